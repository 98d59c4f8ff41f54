"""`reelstream COMMAND …`: finds the command, runs it, prints errors as a fact and a hint."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import cast

import reelstream
from reelstream.cli.command import Command
from reelstream.errors import ReelstreamError

# Modules by name, so that `reelstream serve` need not load torch.
COMMANDS = {
    "serve": "serve a folder of dataset repositories on loopback, as a Hub does",
    "make-sample": "write a sample dataset in the layout of LLaVA-Video-178K",
    "train": "train a video-language model on a streamed dataset",
}

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def _load(name: str) -> Command:
    return cast("Command", importlib.import_module(f"reelstream.cli.{name.replace('-', '_')}"))


def _parser(name: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reelstream", description=reelstream.__doc__)
    parser.add_argument("--version", action="version", version=f"reelstream {reelstream.__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where an error was raised")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command, summary in COMMANDS.items():
        subparser = commands.add_parser(command, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if command == name:
            _load(command).add_arguments(subparser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = next((word for word in words if word in COMMANDS), None)
    arguments = _parser(name).parse_args(words)
    try:
        return _load(arguments.command).run(arguments)
    except ReelstreamError as error:
        if arguments.traceback:
            raise
        print(f"reelstream: {error.fact}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        if arguments.traceback:
            raise
        print("reelstream: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def entry_point() -> None:
    """Run the command line and leave the process with its exit code."""
    sys.exit(main())
