"""One pass over what is not yet known of an archive, whose rows are kept while it goes on.

A tar.gz is read in cuts: those that earlier runs have learned are not read again, nor what an interrupted pass has
learned of the one that it was in. When the last one is known, their checksums are put together and held against the
archive's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Protocol

from reelstream.archive import ArchiveIndex, ByteSource, IndexRow, Member, Verification
from reelstream.archive.containers import Container, open_stream
from reelstream.archive.containers.learning_stream import WholeDigest
from reelstream.archive.cuts.assemble import assemble_index
from reelstream.archive.cuts.bookmark import Bookmark, LearnedRow
from reelstream.archive.cuts.cut import CutReader
from reelstream.archive.cuts.report import CutReport
from reelstream.archive.seek.index import IndexBuilder
from reelstream.archive.seek.inflate import block_inflation
from reelstream.clock import Clock, SystemClock
from reelstream.errors import ArchiveChecksumError, ArchiveError, ConfigError
from reelstream.indexes.cut_file import LearnedCut
from reelstream.indexes.known import chained
from reelstream.indexes.sources import CountedSource
from reelstream.indexes.store import IndexStore, identity_of
from reelstream.types import Archive, ContainerKind

# What a kill may cost: so many compressed bytes, or so long.
_SAVE_EVERY_BYTES = 64 << 20
_SAVE_EVERY_S = 10.0
# A learned cut is written anew as it grows, which takes time in proportion to it: no more than this share of the pass.
_MOST_SAVING_SHARE = 0.05


class _Stream(Protocol):
    """What is needed of a reader that learns rows."""

    def members(self) -> Iterator[Member]: ...
    def take_rows(self, *, now: bool = False) -> list[LearnedRow]: ...


class ArchivePass:
    """Reads those members of an archive that are not known, and learns where they lie.

    Whatever ends it, what it has learned is kept: another pass goes on from there.

    Args:
        archive: One that `needs_pass`, and of which `refuse_unlearnable` has no complaint.
        source: Its bytes.
        store: Where rows and the index are kept.
        on_bytes: Called with the size of each chunk that comes.
        clock: Tells how long saving takes.
    """

    def __init__(
        self,
        archive: Archive,
        source: ByteSource,
        store: IndexStore,
        *,
        on_bytes: Callable[[int], None] = lambda _: None,
        clock: Clock | None = None,
    ) -> None:
        identity = identity_of(archive)
        assert identity is not None, "an archive without SHA-256 cannot be told from another"
        assert needs_pass(archive)
        self._identity = identity
        self._archive = archive
        self._saving = _Saving(clock or SystemClock())

        def count(size_bytes: int) -> None:
            self._saving.count(size_bytes)
            on_bytes(size_bytes)

        self._source = CountedSource(source, count)
        self._store = store
        self._own_cuts: set[int] = set()
        self.index: ArchiveIndex | None = None
        """All members, once they are known; kept by the store, where that has room."""

    def members(self) -> Generator[Member, None, None]:
        """Yield the members that were not known, in the order they lie; can be called once.

        A member that is not read is passed over. Close the iterator to stop before the end.

        Raises:
            ArchiveError: Where the archive is damaged or cut short; what was learned before stays.
            ArchiveChecksumError: At the end, where a checksum, or the SHA-256 that the Hub names, does not match: all
                that was learned of the archive is dropped.
            DiskError: Where what is learned cannot be kept.
        """
        try:
            if self._archive.kind is ContainerKind.TAR:
                yield from self._tar_members()
            else:
                yield from self._tar_gz_members()
        except ArchiveChecksumError:
            self._store.drop_cuts(self._archive)
            raise

    # ------------------------------------------------------------------ plain tar

    def _tar_members(self) -> Iterator[Member]:
        rows, resume = _begun(self._store.find_cut(self._archive, 0))
        with open_stream(Container.of(self._archive), self._source, resume=resume) as stream:
            yield from self._listed(stream, 0, rows)
            verification = stream.index().verification
        builder = IndexBuilder()
        for row in rows:
            builder.add(row)
        self._keep(builder.build(self._identity, verification, complete=True))

    # ------------------------------------------------------------------ tar.gz

    def _tar_gz_members(self) -> Iterator[Member]:
        known = {cut.first_byte: cut for cut in self._store.cuts(self._archive)}
        # Read by one pass from its first byte on, the file is held against its SHA-256 too.
        whole = None if known else WholeDigest(self._source)
        # To stop at the others would cost a border each, for nothing.
        whole_cuts = [
            cut.first_byte for cut in known.values() if cut.report is not None and cut.report.owns_none is None
        ]
        chain: list[tuple[CutReport, Sequence[IndexRow]]] = []
        first_byte = 0
        while first_byte < self._archive.size_bytes:
            cut = known.get(first_byte)
            if cut is None or cut.report is None:
                cut = yield from self._read_cut(whole or self._source, first_byte, cut, later_cuts=whole_cuts)
            report = cut.report
            assert report is not None
            if report.owns_none is not None or report.served_until <= first_byte:
                raise self._void(f"the cut at byte {first_byte:,} of it has no members of its own")
            chain.append((report, cut.rows))
            first_byte = report.served_until
        index = assemble_index(self._identity, chain)
        if index.verification is Verification.FAILED:
            raise self._void("the checksums of what was read of it are not those in its gzip trailers")
        self._keep(index if whole is None else self._held_against_sha256(index, whole))

    def _read_cut(
        self, source: ByteSource, first_byte: int, begun: LearnedCut | None, *, later_cuts: Sequence[int]
    ) -> Generator[Member, None, LearnedCut]:
        """Yield the members of a cut, or of the rest of it; return it with all its rows."""
        rows, resume = _begun(begun)
        # Of cuts before that place the reader that left the bookmark may have known nothing: then they are passed over.
        watch_from = first_byte + 1 if resume is None else resume.watch_from
        later = [byte for byte in later_cuts if byte >= watch_from]
        with CutReader(source, first_byte, later, learn=True, resume=resume) as reader:
            assert not reader.problem, reader.problem
            yield from self._listed(reader, first_byte, rows)
            cut = LearnedCut(first_byte=first_byte, report=reader.reports[0], rows=rows)
        self._store.save_cut(self._archive, cut)
        return cut

    def _held_against_sha256(self, index: ArchiveIndex, whole: WholeDigest) -> ArchiveIndex:
        sha256 = whole.digest()
        if sha256 is None:
            return index
        if sha256 != self._identity.sha256:
            raise self._void(f"its SHA-256 is {sha256}, and the published one {self._identity.sha256}")
        return ArchiveIndex(
            identity=index.identity, verification=Verification.SHA256, complete=index.complete, columns=index.columns
        )

    def _void(self, reason: str) -> ArchiveChecksumError:
        return ArchiveChecksumError(
            f"{self._archive.path}: {reason}",
            "what was learned of it is dropped, and the next run reads it anew; if it fails again, tell its publisher",
        )

    # ------------------------------------------------------------------ what both do

    def _listed(self, stream: _Stream, first_byte: int, rows: list[IndexRow]) -> Iterator[Member]:
        """Yield a stream's members, and add its rows to those known, which are kept as they grow and at any end."""
        self._own_cuts.add(first_byte)
        bookmark: Bookmark | None = None

        def take(*, now: bool = False) -> None:
            nonlocal bookmark
            for learned in stream.take_rows(now=now):
                rows.append(learned.row)
                bookmark = learned.bookmark

        def save() -> None:
            if bookmark is not None:
                begun = LearnedCut(first_byte=first_byte, report=None, rows=rows, bookmark=bookmark)
                self._store.save_cut(self._archive, begun)

        try:
            for member in stream.members():
                yield member
                take()
                if self._saving.is_due():
                    with self._saving.timed():
                        save()
            take(now=True)
        except BaseException:
            take(now=True)
            save()
            raise

    def _keep(self, index: ArchiveIndex) -> None:
        self.index = index
        if self._store.save(index):
            # Others may still be of use to the run that learned them.
            self._store.drop_cuts(self._archive, self._own_cuts)


def needs_pass(archive: Archive) -> bool:
    """Return whether only a pass over an archive can tell what it holds."""
    return archive.kind in {ContainerKind.TAR, ContainerKind.TAR_GZ}


def refuse_unlearnable(archive: Archive) -> None:
    """Refuse an archive that can be streamed, but not learned.

    Raises:
        ArchiveError: Where its index could not be found again.
        ConfigError: Where this platform cannot learn it.
    """
    if identity_of(archive) is None:
        raise ArchiveError(
            f"{archive.path}: the Hub names no SHA-256 of it, so that its index could not be found again",
            "publish it as a large file (LFS), as archives are",
        )
    problem = block_inflation().problem if archive.kind is ContainerKind.TAR_GZ else ""
    if problem:
        raise ConfigError(
            f"the index of a tar.gz cannot be learned on this machine: {problem}",
            "learn it on another one, and copy the folder of indexes from there",
        )


def bytes_to_read(archive: Archive, store: IndexStore) -> int:
    """Return about how many compressed bytes a pass over an archive has to read, for what is not known of it."""
    known_bytes = 0
    for cut in chained(store.cuts(archive)):
        rows, _ = _begun(cut)
        end_byte = cut.report.served_until if cut.report is not None else rows[-1].first_byte if rows else 0
        known_bytes += max(0, end_byte - cut.first_byte)
    return archive.size_bytes - known_bytes


def _begun(cut: LearnedCut | None) -> tuple[list[IndexRow], Bookmark | None]:
    """Return the rows that are known of a cut, and where to go on: at the member after them."""
    if cut is None or cut.bookmark is None:
        return [], None
    # The bookmark is that of the last row: its member is read again.
    return list(cut.rows[:-1]), cut.bookmark


class _Saving:
    """Says when it is time to keep what has been learned: seldom enough that it costs little.

    Args:
        clock: The time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begun_s = self._last_s = clock.monotonic()
        self._spent_s = 0.0
        self._new_bytes = 0

    def count(self, size_bytes: int) -> None:
        """Note compressed bytes that were read."""
        self._new_bytes += size_bytes

    def is_due(self) -> bool:
        """Return whether a kill would cost enough by now, and enough time has passed for what saving costs."""
        now_s = self._clock.monotonic()
        has_gone_on = self._new_bytes >= _SAVE_EVERY_BYTES or now_s - self._last_s >= _SAVE_EVERY_S
        return has_gone_on and self._spent_s <= _MOST_SAVING_SHARE * (now_s - self._begun_s)

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Note what saving takes."""
        begun_s = self._clock.monotonic()
        yield
        self._last_s = self._clock.monotonic()
        self._spent_s += self._last_s - begun_s
        self._new_bytes = 0
