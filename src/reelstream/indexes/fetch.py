"""Fetching single clips: by ranged reads where their places are known, else by reading archives until they turn up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from reelstream.archive import ByteSource, IndexRow, Member, RangedMember, read_rows
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


@dataclass(slots=True)
class FetchPlan:
    """What is to be fetched of the members that were found."""

    wanted: list[WantedMember] = field(default_factory=list)
    """Members that are not in the output folder, and where they go."""
    there: list[Path] = field(default_factory=list)
    """Files that are there already, with the right bytes."""
    refused: list[ReelstreamError] = field(default_factory=list)
    """Why others are not written: their names lead out of the folder, or become the same when they are written, or they
    are hard links to what the archive does not hold before them."""


def plan_fetch(found: Iterable[FoundMember], output: OutputFolder) -> FetchPlan:
    """Return what is to be fetched; nothing is read but files that are there.

    Raises:
        ConfigError: Where another file is in the way.
    """
    plan = FetchPlan()
    taken: dict[Path, FoundMember] = {}
    for each in found:
        try:
            path = output.path_of(each.name)
            row = _held_row(each)
            if (other := taken.setdefault(path, each)) is not each:
                raise _same_path(each, other, path)
        except ArchiveError as error:
            plan.refused.append(error)
            continue
        if output.holds(path, row):
            plan.there.append(path)
        else:
            plan.wanted.append(WantedMember(found=each, path=path))
    return plan


def _held_row(found: FoundMember) -> IndexRow:
    held = found.holding
    if held is None:
        raise ArchiveError(
            f"{found.archive.path}: {found.name} is a hard link to a member that the archive does not hold before it",
            "tell the archive's publisher",
        )
    return found.index.row(held)


def _same_path(found: FoundMember, other: FoundMember, path: Path) -> ArchiveError:
    return ArchiveError(
        f"{found.archive.path}: {found.name!r} would be written to {path}, as {other.name!r} is",
        "fetch it into another folder, by -o",
    )


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
