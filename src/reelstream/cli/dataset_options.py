"""What the commands share that ask for archives of a repository: their options, and what these open."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reelstream.archive import ByteSource
from reelstream.cancel import Cancellation
from reelstream.catalog import select_media
from reelstream.errors import ConfigError
from reelstream.indexes import INDEX_FOLDER, IndexStore
from reelstream.indexes.sources import CancellableSource
from reelstream.prefetch.options import StreamOptions
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import Event, Notice, Retried
from reelstream.transport import HubClient
from reelstream.types import Archive, Repository
from reelstream.units import format_seconds

DEFAULT_CONNECTIONS = 4


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which archives a command is about, and where what is known of them lies."""
    parser.add_argument("repo_id", metavar="REPO", help="dataset repository, as in lmms-lab/LLaVA-Video-178K")
    parser.add_argument(
        "--subset", nargs="+", action="extend", default=[], metavar="NAME", help="folders of it (default: all)"
    )
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit (default: the default branch)")
    parser.add_argument(
        "--endpoint", metavar="URL", help="address of the Hub (default: $HF_ENDPOINT, or the public one)"
    )
    parser.add_argument(
        "--cache-dir",
        type=Path,
        default=StreamOptions.cache_dir,
        metavar="DIR",
        help=f"where indexes are kept (default: {StreamOptions.cache_dir})",
    )


def add_connections_argument(parser: argparse.ArgumentParser) -> None:
    """Declare how many archives or ranges are read at once."""
    parser.add_argument(
        "--connections",
        type=int,
        default=DEFAULT_CONNECTIONS,
        metavar="N",
        help=f"the most ranged reads at once (default: {DEFAULT_CONNECTIONS})",
    )


@dataclass(frozen=True, kw_only=True)
class OpenedDataset:
    """Archives of a repository at one commit, and the store of their indexes."""

    client: HubClient
    repository: Repository
    archives: tuple[Archive, ...]
    store: IndexStore
    cancellation: Cancellation
    telemetry: Telemetry

    def open_source(self, archive: Archive) -> ByteSource:
        """Return an archive's bytes; reads end with the cancellation."""
        return CancellableSource(self.client.open(self.repository, archive.file), self.cancellation)


@contextlib.contextmanager
def opened_dataset(arguments: argparse.Namespace) -> Iterator[OpenedDataset]:
    """Pin the repository, choose its archives, and open what is known of them.

    Raises:
        ConfigError: Where an option is wrong, or the repository or a subset holds no archive.
        HubError: Where the repository cannot be had.
    """
    if getattr(arguments, "connections", 1) < 1:
        raise ConfigError(f"--connections must be at least 1, not {arguments.connections}")
    telemetry = Telemetry(_Talk())
    with HubClient(endpoint=arguments.endpoint, telemetry=telemetry) as client:
        repository = client.repository(arguments.repo_id, arguments.revision)
        yield OpenedDataset(
            client=client,
            repository=repository,
            archives=select_media(repository, arguments.subset),
            store=IndexStore(arguments.cache_dir / INDEX_FOLDER, telemetry=telemetry),
            cancellation=Cancellation(),
            telemetry=telemetry,
        )


def command_words(command: str, arguments: argparse.Namespace) -> list[str]:
    """Return the words of another command about the same archives."""
    words = ["reelstream", command, arguments.repo_id]
    if arguments.revision:
        words += ["--revision", arguments.revision]
    if arguments.endpoint:
        words += ["--endpoint", arguments.endpoint]
    if arguments.cache_dir != StreamOptions.cache_dir:
        words += ["--cache-dir", str(arguments.cache_dir)]
    return words + (["--subset", *arguments.subset] if arguments.subset else [])


def say(sentence: str) -> None:
    """Tell a person; results go to standard output."""
    print(sentence, file=sys.stderr, flush=True)


class _Talk:
    """Tells what a person should know of the network and of what is kept."""

    def receive(self, wall_s: float, event: Event) -> None:  # noqa: ARG002 - the protocol's
        match event:
            case Notice():
                say(f"reelstream: {event.message}")
            case Retried():
                say(f"reelstream: {event.path}: {event.reason}; trying again in {format_seconds(event.wait_s)}")
            case _:
                pass


def one_line(text: str) -> str:
    """Return a member's name fit for a column of a line: what would break the line is escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
