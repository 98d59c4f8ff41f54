"""Fetching single clips: by ranged reads where their places are known, else by reading archives until they turn up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from reelstream.archive import ByteSource, Member, RangedMember, read_rows
from reelstream.archive.containers import Container, open_stream
from reelstream.cancel import Cancellation
from reelstream.errors import ArchiveError, ConfigError, HubError, ReelstreamError
from reelstream.indexes.clips import PlannedRead, WantedMember
from reelstream.indexes.known import FoundMember, NamePattern
from reelstream.indexes.output import OutputFolder
from reelstream.indexes.passes import ArchivePass, refuse_unlearnable
from reelstream.indexes.sources import CountedSource, OpenSource
from reelstream.indexes.store import IndexStore
from reelstream.types import Archive


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What came of one read: files, or why there are none."""

    paths: tuple[Path, ...] = ()
    """Files written, whole and verified."""
    error: ReelstreamError | None = None
    """What ended it; files of members before are written all the same."""


def left_to_fetch(found: Iterable[FoundMember], output: OutputFolder) -> list[WantedMember]:
    """Return the members that are not in the output folder yet, and where they go.

    Raises:
        ArchiveError: Where a member's name leads out of the folder.
        ConfigError: Where another file is in the way, or the bytes of a hard link are not known.
    """
    wanted = []
    for each in found:
        path = output.path_of(each.name)
        held = each.holding
        if held is None:
            raise ArchiveError(
                f"{each.archive.path}: {each.name} is a hard link to a member that the archive does not hold before it",
                "tell the archive's publisher",
            )
        if not output.holds(path, each.index.row(held)):
            wanted.append(WantedMember(found=each, path=path))
    return wanted


def fetch_members(
    reads: Sequence[PlannedRead],
    open_source: OpenSource,
    output: OutputFolder,
    *,
    connections: int = 4,
    on_bytes: Callable[[int], None] = lambda _: None,
    cancellation: Cancellation | None = None,
) -> Generator[Fetched, None, None]:
    """Write members to files, several ranged reads at once; each member is verified before its file appears.

    Args:
        reads: Which, and where to; see `plan_reads`.
        open_source: Gives an archive's bytes; what it gives must end with `cancellation`.
        output: Where files are written.
        connections: The most reads at once.
        on_bytes: Called with the size of each chunk that comes.
        cancellation: Calls the work off; it is set where the generator is left before its end.

    Yields:
        What came of each read, as they end: one whose archive is damaged or cannot be had does not stop the others.

    Raises:
        ConfigError: Where a file is in the way.
        DiskError: Where a file cannot be written.
        Cancelled: Where the work was called off.
    """
    cancellation = cancellation or Cancellation()

    def run(read: PlannedRead) -> Fetched:
        cancellation.raise_if_cancelled()
        return _fetch(read, CountedSource(open_source(read.archive), on_bytes), output)

    with ThreadPoolExecutor(max_workers=connections, thread_name_prefix="reelstream-fetch") as workers:
        futures = [workers.submit(run, read) for read in reads]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            # The block waits for the threads, which remove what they have half written.
            cancellation.cancel()
            raise


def _fetch(read: PlannedRead, source: ByteSource, output: OutputFolder) -> Fetched:
    written: list[Path] = []
    try:
        with contextlib.closing(_generator(read_rows(source, read.rows))) as members:
            for member, paths in zip(members, read.paths, strict=True):
                output.write(paths[0], member.chunks())
                written.append(paths[0])
                for other in paths[1:]:
                    output.copy(paths[0], other)
                    written.append(other)
    except (ArchiveError, HubError) as error:
        return Fetched(paths=tuple(written), error=error)
    return Fetched(paths=tuple(written))


def look_through(
    archive: Archive,
    missing: Sequence[NamePattern],
    source: ByteSource,
    store: IndexStore,
    output: OutputFolder,
    *,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> list[tuple[NamePattern, Path | None]]:
    """Read an archive until the members that are missing have turned up, write them, and keep what is learned.

    What is written was not proven: that takes the archive's end, or a later ranged read.

    Args:
        archive: A tar or tar.gz whose index is not known.
        missing: What to look for.
        source: The archive's bytes.
        store: Where rows are kept.
        output: Where files are written.
        on_bytes: Called with the size of each chunk that comes.

    Returns:
        What has turned up, and its file; None for a hard link, whose place is known now.

    Raises:
        ArchiveError: Where the archive is damaged, or a member's name leads out of the folder.
        HubError: Where it cannot be had.
        ConfigError: Where another file is in the way.
        DiskError: Where a file cannot be written.
    """
    left = list(missing)
    turned_up: list[tuple[NamePattern, Path | None]] = []
    with contextlib.closing(_passing(archive, source, store, on_bytes)) as members:
        for member in members:
            # Not before the next member has begun: only then is the place of the last one known.
            if not left:
                break
            meant = [pattern for pattern in left if pattern.matches(member.name)]
            if not meant:
                continue
            path = _written(member, archive, output)
            turned_up += ((pattern, path) for pattern in meant)
            left = [pattern for pattern in left if pattern not in meant]
    return turned_up


def _passing(
    archive: Archive, source: ByteSource, store: IndexStore, on_bytes: Callable[[int], None]
) -> Generator[Member, None, None]:
    try:
        refuse_unlearnable(archive)
    except (ArchiveError, ConfigError):
        with open_stream(Container.of(archive), CountedSource(source, on_bytes), learn=False) as stream:
            yield from stream.members()
        return
    yield from ArchivePass(archive, source, store, on_bytes=on_bytes).members()


def _written(member: Member, archive: Archive, output: OutputFolder) -> Path | None:
    """Write a member as it passes; return its file, None for a hard link."""
    if member.link_target is not None:
        return None
    if member.problem is not None:
        raise ArchiveError(f"{archive.path}: {member.name} cannot be had: it is {member.problem}")
    path = output.path_of(member.name)
    output.write(path, member.chunks())
    return path


def _generator(members: Iterator[RangedMember]) -> Generator[RangedMember, None, None]:
    yield from members
