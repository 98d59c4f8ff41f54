"""`reelstream get REPO CLIP…`: fetches single clips, verified, each in one ranged read where its place is known."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import threading
from collections.abc import Sequence
from pathlib import Path

from reelstream.archive import RequestCosts
from reelstream.archive.seek.row_kinds import DigestKind
from reelstream.cli.dataset_options import (
    OpenedDataset,
    add_connections_argument,
    add_dataset_arguments,
    command_words,
    opened_dataset,
    say,
)
from reelstream.cli.progress import BytesDone, told_progress
from reelstream.errors import ArchiveError, HubError, NotFoundOnHubError, ReelstreamError
from reelstream.indexes.clips import Resolution, WantedMember, plan_reads, resolve
from reelstream.indexes.fetch import fetch_members, look_through, plan_fetch
from reelstream.indexes.known import NamePattern, known_archives
from reelstream.indexes.output import OutputFolder
from reelstream.indexes.passes import bytes_to_read
from reelstream.interrupt import Interrupted, Interrupts, exit_code_of
from reelstream.types import Archive
from reelstream.units import count, format_bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    add_dataset_arguments(parser)
    add_connections_argument(parser)
    parser.add_argument(
        "clips",
        nargs="+",
        metavar="CLIP",
        help="a clip's path, the end of one, or a pattern with *, ? and [...] in quotes",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(), metavar="DIR", help="where clips go, by their paths (default: .)"
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there and are not these clips")


def run(arguments: argparse.Namespace) -> int:
    """Fetch; print the path of each clip; return 1 where one could not be had."""
    try:
        with Interrupts(), opened_dataset(arguments) as dataset:
            return _get(dataset, arguments)
    except Interrupted as interrupted:
        say(f"reelstream: stopped by {interrupted.reason}; clips that are whole, and what was learned, are kept")
        return exit_code_of(interrupted.reason)


def _get(dataset: OpenedDataset, arguments: argparse.Namespace) -> int:
    getting = _Getting(dataset, OutputFolder(arguments.output, force=arguments.force), arguments.connections)
    known = known_archives(dataset.archives, dataset.store, dataset.open_source, connections=arguments.connections)
    for each in known:
        if each.problem is not None:
            getting.tell_failure(each.problem)
    resolution = resolve([NamePattern(text) for text in arguments.clips], known)
    getting.fetch(resolution)
    unknown = [each.archive for each in known if not each.complete and each.problem is None]
    missing = resolution.missing
    # Nobody knows when all that fits a pattern has turned up.
    sought = [pattern for pattern in missing if pattern.is_literal]
    if sought and unknown:
        missing = [pattern for pattern in missing if pattern not in getting.look_for(sought, unknown)]
    for pattern in missing:
        getting.tell_failure(_not_found(pattern, unknown, arguments))
    return 1 if getting.has_failed else 0


def _not_found(pattern: NamePattern, unknown: Sequence[Archive], arguments: argparse.Namespace) -> ReelstreamError:
    if not unknown or pattern.is_literal:
        return NotFoundOnHubError(
            f"no archive holds {pattern.text}",
            f"see what is there: {shlex.join([*command_words('find', arguments), '*'])}",
        )
    return NotFoundOnHubError(
        f"no member that is known fits {pattern.text}, and {count(len(unknown), 'archive')} "
        f"{'is' if len(unknown) == 1 else 'are'} not known",
        f"learn them with: {shlex.join(command_words('index', arguments))}",
    )


class _Getting:
    """One run of the command: fetches, and tells what came of it."""

    def __init__(self, dataset: OpenedDataset, output: OutputFolder, connections: int) -> None:
        self._dataset = dataset
        self._output = output
        self._connections = connections
        self._read_bytes = 0
        self._lock = threading.Lock()
        self.has_failed = False

    def tell_failure(self, error: ReelstreamError) -> None:
        """Tell why something could not be had; the rest goes on."""
        self.has_failed = True
        say(f"reelstream: {error.fact}" + (f"\n  hint: {error.hint}" if error.hint else ""))

    def fetch(self, resolution: Resolution) -> None:
        """Fetch members whose places are known, by ranged reads."""
        for other in resolution.elsewhere:
            say(f"{other.name} is also in {other.archive.path}; the first one is taken")
        plan = plan_fetch(resolution.found, self._output)
        for path in plan.there:
            print(path)
        if plan.there:
            say(f"{count(len(plan.there), 'clip')} {'is' if len(plan.there) == 1 else 'are'} there already")
        if plan.wanted:
            self._fetch(plan.wanted)
        for error in plan.refused:
            self.tell_failure(error)

    def _fetch(self, wanted: Sequence[WantedMember]) -> None:
        reads = plan_reads(wanted, RequestCosts())
        errors: list[ReelstreamError] = []
        num_written, before_bytes = 0, self._read_bytes
        total_bytes = before_bytes + sum(read.size_bytes for read in reads)
        results = fetch_members(
            reads,
            self._dataset.open_source,
            self._output,
            connections=self._connections,
            on_bytes=self._count,
            cancellation=self._dataset.cancellation,
        )
        with told_progress(lambda: self._state("fetching", total_bytes)), contextlib.closing(results):
            for result in results:
                num_written += len(result.paths)
                for path in result.paths:
                    print(path, flush=True)
                if result.error is not None:
                    errors.append(result.error)
        num_requests = sum(read.size_bytes > 0 for read in reads)
        unproven = [row.name for read in reads for row in read.rows if row.digest_kind is DigestKind.NONE]
        for name in unproven:
            say(f"{name} is verified by its size only: the Hub names no digest of it")
        say(
            f"fetched {count(num_written, 'clip')}{'' if unproven else ', verified'}, "
            f"in {count(num_requests, 'request')} of {format_bytes(self._read_bytes - before_bytes)}"
        )
        for error in errors:
            self.tell_failure(error)

    def look_for(self, sought: Sequence[NamePattern], unknown: Sequence[Archive]) -> list[NamePattern]:
        """Read archives that are not known until what is sought has turned up; return what has."""
        left = list(sought)
        size_bytes = sum(bytes_to_read(archive, self._dataset.store) for archive in unknown)
        say(
            f"{', '.join(pattern.text for pattern in left)}: in no archive that is known; looking through "
            f"{count(len(unknown), 'archive')}, {format_bytes(size_bytes)} at most:"
        )
        for archive in unknown:
            say(f"  {archive.path}")
        for archive in unknown:
            if not left:
                break
            turned_up = self._look_through(archive, left)
            left = [pattern for pattern in left if pattern not in turned_up]
        return [pattern for pattern in sought if pattern not in left]

    def _look_through(self, archive: Archive, left: Sequence[NamePattern]) -> list[NamePattern]:
        before_bytes = self._read_bytes
        size_bytes = bytes_to_read(archive, self._dataset.store)
        try:
            with told_progress(lambda: self._state(f"reading {archive.path}", before_bytes + size_bytes)):
                turned_up = look_through(
                    archive,
                    left,
                    self._dataset.open_source(archive),
                    self._dataset.store,
                    self._output,
                    on_bytes=self._count,
                )
        except (ArchiveError, HubError) as error:
            self.tell_failure(error)
            return []
        for pattern, path in turned_up:
            if path is not None:
                print(path)
                say(
                    f"{pattern.text} was in {archive.path}, after {format_bytes(self._read_bytes - before_bytes)}; "
                    "it is not verified, since the archive was not read to its checksum"
                )
        links = [pattern for pattern, path in turned_up if path is None]
        if links:
            self.fetch(resolve(links, known_archives([archive], self._dataset.store, self._dataset.open_source)))
        return [pattern for pattern, _ in turned_up]

    def _count(self, size_bytes: int) -> None:
        with self._lock:
            self._read_bytes += size_bytes

    def _state(self, label: str, total_bytes: int) -> BytesDone:
        return BytesDone(label=label, done_bytes=self._read_bytes, total_bytes=total_bytes)
