"""`reelstream COMMAND …`: finds the command, runs it, prints errors as a fact and a hint."""

from __future__ import annotations

import argparse
import importlib
import os
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
    "index": "learn where the clips of a dataset lie in its archives",
    "find": "say which archive of a dataset holds a clip",
    "get": "fetch single clips of a dataset",
    "pull": "fetch the newest checkpoint that a run has pushed",
    "train": "train a video-language model on a streamed dataset",
}

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130
# What shells report of a process that SIGPIPE ended.
EXIT_READER_LEFT = 141


def _load(name: str) -> Command:
    return cast("Command", importlib.import_module(f"reelstream.cli.{name.replace('-', '_')}"))


def _general_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reelstream",
        description=reelstream.__doc__,
        epilog="commands:\n" + "\n".join(f"  {name:<13} {summary}" for name, summary in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"reelstream {reelstream.__version__}")
    _add_traceback(parser)
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help=", ".join(COMMANDS))
    return parser


def _command_parser(name: str) -> argparse.ArgumentParser:
    summary = COMMANDS[name]
    parser = argparse.ArgumentParser(prog=f"reelstream {name}", description=summary[0].upper() + summary[1:] + ".")
    _add_traceback(parser)
    _load(name).add_arguments(parser)
    return parser


def _add_traceback(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--traceback", action="store_true", help="show where an error was raised")


def _parse(words: Sequence[str]) -> tuple[str, argparse.Namespace]:
    """Return the command and its arguments; options may stand anywhere among them."""
    place = next((place for place, word in enumerate(words) if not word.startswith("-")), len(words))
    general = _general_parser().parse_args(words[: place + 1])
    arguments = _command_parser(general.command).parse_intermixed_args(words[place + 1 :])
    arguments.traceback |= general.traceback
    return general.command, arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    shows_traceback = "--traceback" in words
    try:
        # Loading a command imports torch: long enough for a Ctrl-C to hit.
        command, arguments = _parse(words)
        return _load(command).run(arguments)
    except ReelstreamError as error:
        if shows_traceback:
            raise
        print(f"reelstream: {error.fact}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        if shows_traceback:
            raise
        print("reelstream: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def entry_point() -> None:
    """Run the command line and leave the process with its exit code."""
    try:
        code = main()
        # Here, so that a reader who has left is noticed where it can be handled.
        sys.stdout.flush()
    except BrokenPipeError:
        # As with `| head`: who reads has seen enough. What is left goes nowhere, or the interpreter would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_READER_LEFT
    sys.exit(code)
