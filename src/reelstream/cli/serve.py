"""`reelstream serve DIR`: a Hub on loopback."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from reelstream.hubserver.extra import require_aiohttp
from reelstream.hubserver.process import TOKEN_VARIABLE
from reelstream.hubserver.settings import LOOPBACK, ServeSettings
from reelstream.units import count, format_rate, parse_rate, parse_seconds

if TYPE_CHECKING:
    from reelstream.hubserver.server import Opened

_Value = TypeVar("_Value")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `serve`."""
    parser.add_argument("root", type=Path, metavar="DIR", help="folder that holds <org>/<name>/ dataset repositories")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="port of the Hub; 0, the default, takes a free one")
    parser.add_argument("--cdn-port", type=int, default=0, help="port of the CDN; 0, the default, takes a free one")
    parser.add_argument(
        "--bandwidth",
        type=_shown_in_usage(parse_rate),
        metavar="RATE",
        help="cap on all connections together, such as 10MB/s (default: none)",
    )
    parser.add_argument(
        "--latency",
        type=_shown_in_usage(parse_seconds),
        default=0.0,
        metavar="TIME",
        help="delay of each answer, such as 50ms (default: 0)",
    )
    parser.add_argument(
        "--address-ttl",
        type=_shown_in_usage(parse_seconds),
        default=3600.0,
        metavar="TIME",
        help="how long a signed address is served, such as 1h (default: 3600)",
    )
    parser.add_argument(
        "--token",
        default=os.environ.get(TOKEN_VARIABLE) or None,
        help=f"make the hub private: answer to this token only (default: ${TOKEN_VARIABLE})",
    )
    parser.add_argument("--faults", action="store_true", help="let tests order faults at /_faults")
    parser.add_argument(
        "--writable",
        action="store_true",
        help="let clients make repositories and commit to them; models go to DIR/.models",
    )
    parser.add_argument(
        "--exit-with-parent", action="store_true", help="stop when standard input ends, as it does with its writer"
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted; return 0."""
    require_aiohttp()
    settings = ServeSettings(
        root=arguments.root,
        host=arguments.host,
        port=arguments.port,
        cdn_port=arguments.cdn_port,
        bandwidth_bytes_per_s=arguments.bandwidth,
        latency_s=arguments.latency,
        address_ttl_s=arguments.address_ttl,
        token=arguments.token,
        faults=arguments.faults,
        writable=arguments.writable,
    )
    from reelstream.hubserver.server import run_until_stopped  # noqa: PLC0415 - needs the optional aiohttp

    run_until_stopped(
        settings,
        on_open=lambda opened: _announce(opened, settings),
        report=_say,
        stop_at_end_of_input=arguments.exit_with_parent,
    )
    return 0


def _announce(opened: Opened, settings: ServeSettings) -> None:
    _say(f"serving {count(len(opened.repo_ids), 'dataset repository', 'dataset repositories')} from {settings.root}")
    for repo_id in opened.repo_ids:
        _say(f"  {repo_id}")
    if not opened.repo_ids:
        _say(f"a repository is a folder {settings.root}/<org>/<name>/; it may be added while the hub runs")
    if settings.bandwidth_bytes_per_s is not None:
        _say(f"all connections together get at most {format_rate(settings.bandwidth_bytes_per_s)}")
    if settings.writable:
        _say(f"writable: clients may make repositories, and change and delete files below {settings.root}")
    if settings.host not in LOOPBACK:
        _say(f"listening on {settings.host}: whoever reaches this machine can read these files")
    _say(f"the CDN answers at {opened.cdn_endpoint}")
    _say(f"use it:  export HF_ENDPOINT={opened.endpoint} HF_HUB_DISABLE_XET=1")
    _say("stop it: Ctrl-C")
    print(f"endpoint {opened.endpoint}", flush=True)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _shown_in_usage(parse: Callable[[str], _Value]) -> Callable[[str], _Value]:
    """Let the sentence of a parser's `ValueError` reach the user, which argparse would replace by its own."""

    def parse_argument(text: str) -> _Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse_argument
