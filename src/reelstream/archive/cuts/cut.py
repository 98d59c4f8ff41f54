"""Cuts: an archive read in pieces, by readers who know nothing of each other, each member by exactly one of them.

A cut begins at a compressed byte. Its members begin at its *border* (`entry`, `border`), a function of the archive's
bytes and of that byte alone, and end where the next cut's do. So the reader of a cut needs to know two borders: its own
and the next one, which lies a clip or two beyond the next cut's first byte.

The one who comes from before knows which bytes are headers, and checks each border it comes to. A border that is none
(inside a file that is a tar itself) is passed over: this reader serves the members as far as the next border that is
one, and says which cuts went astray; what their readers delivered is void. So does it at a cut without a border. Hence,
of the readers that are left (`settled`), each member comes from exactly one, whatever the archive.

    cuts     0                 1                 2 (no border)      3
    bytes    ├─────────────────┼─────────────────┼──────────────────┼──────────────
    tar      ■──■────■──■────■─────■────■──■───────■────■──■────■────────■────■──■
    members  └─ of 0 ──────────────┘└ of 1 ──────────────────────────────┘└ of 3
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

from reelstream.archive.cuts.bookmark import Bookmark, LearnedRow
from reelstream.archive.cuts.border import BLOCK_BYTES, plausible_header
from reelstream.archive.cuts.entry import (
    EXPECTED_BYTES,
    Entry,
    EntryKind,
    NoEntry,
    NoEntryReason,
    entry_ahead,
    find_entry,
)
from reelstream.archive.cuts.feed import Feed
from reelstream.archive.cuts.learner import CutLearner, Standing
from reelstream.archive.cuts.piece import PieceReader, Watch
from reelstream.archive.cuts.report import CutReport, settled
from reelstream.archive.inflation import Inflation
from reelstream.archive.seek.inflate import BlockInflation, block_inflation
from reelstream.archive.seek.seek_points import unknown_before
from reelstream.archive.source import ByteSource
from reelstream.archive.tar import Member, member_of, walk_headers
from reelstream.errors import ArchiveError

__all__ = ["Bookmark", "CutReader", "CutReport", "LearnedRow", "read_cut", "settled", "whole_only"]


class CutReader:
    """Reads a cut of an archive, and may go on into the next ones without reading a byte twice.

    Where it learns, each member's bytes are digested whether they are read or not, and the rows of the archive's index
    come from `take_rows`.

    Args:
        source: The archive.
        first_byte: Where the cut begins; 0 for the first one.
        later_cuts: Where all later cuts of the archive begin, ascending. All of them: the next one may have no border.
        learn: Whether to learn rows.
        resume: Where to go on in the cut, for a reader that shall not begin at its border: the member there is the
            first one. It has to be of this cut of this archive, and of a reader that knew of the same later cuts.
        inflation: What to decompress with where rows are learned; the fastest one that is found here, unless told.
    """

    def __init__(
        self,
        source: ByteSource,
        first_byte: int,
        later_cuts: Sequence[int] = (),
        *,
        learn: bool = False,
        resume: Bookmark | None = None,
        inflation: BlockInflation | None = None,
    ) -> None:
        self._source = source
        self._size_bytes = source.size_bytes
        self._own = Watch(first_byte)
        self._later = [Watch(byte) for byte in later_cuts if first_byte < byte < self._size_bytes]
        self._feed = Feed(source, first_byte, expected_bytes=EXPECTED_BYTES)
        self._reader: PieceReader | None = None  # None where decompression has to begin anew
        self._next_cut: Watch | None = None  # at whose border the reader stands
        self._confirmed: set[int] = set()
        self._resume = resume
        self._false_before: tuple[int, ...] = ()  # what the bookmark says of cuts that are watched no more
        self._border_offset = 0
        found = (block_inflation() if inflation is None else inflation) if learn else None
        self._learner = None if found is None or found.library is None else CutLearner(found.library)
        self.problem = found.problem if found else ""
        """Why no rows are learned although they shall be; empty where they are."""
        self.finished = False
        """Whether the archive's end was reached: there is no cut to go on into."""
        self.reports: list[CutReport] = []
        """One for each cut that was read to its end, in order."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the range that is being read; rows that were learned can still be taken."""
        self._feed.close()
        if self._learner is not None:
            self._learner.close()

    def members(self) -> Iterator[Member]:
        """Yield the members of the cut; called again, those of the next one.

        Each call adds to `reports` when all its members were taken. A member that is not read is passed over.

        Raises:
            ArchiveError: As `read_members`.
        """
        reader = self._go_on_at(self._resume) if self._resume is not None else self._stand_at_border()
        if reader is None:
            return
        if self._resume is None:
            reader.begin_piece()
            self._border_offset = reader.position
        self._resume = None
        # Where there are later cuts the archive's checksum is not for this reader to judge.
        headers = walk_headers(reader, self._source.path, ends_at=self._ends_at, to_trailer=not self._later)
        learner = self._learner
        try:
            if learner is not None:
                learner.begin_cut()
            for info, next_header in headers:
                reader.needed_to = next_header + BLOCK_BYTES
                if learner is None:
                    yield member_of(info, reader)
                else:
                    yield from learner.pass_member(info, next_header, reader)
        finally:
            if learner is not None:
                learner.finish()
        self._end_cut(reader)

    def take_rows(self, *, now: bool = False) -> list[LearnedRow]:
        """Return the rows that became known since the last call, in the order of the archive.

        A row is known once its member has passed and, at most 300 KiB further on, it is clear what its seek point
        needs; all rows of a cut are when its members were taken. They are provisional: only the checksums of all
        pieces tell whether what they were learned from is what was packed.

        Args:
            now: Have all rows whose members have passed, at the price of points that lie further ahead, or keep more.
        """
        return self._learner.take_rows(now=now) if self._learner is not None else []

    # --- beginning to decompress ----------------------------------------------------------------------------------

    def _reader_at(self, inflation: Inflation, watches: list[Watch]) -> PieceReader:
        return PieceReader(self._feed, inflation, watches, self._source.path, on_reach=self._note_reached)

    def _begin_at_entry(self, entry: Entry) -> Inflation:
        if self._learner is None:
            return entry.begin()
        if entry.kind is EntryKind.GZIP_MEMBER:
            return self._learner.begin(None, entry.bit >> 3)
        return self._learner.begin(unknown_before(entry.bit), entry.bit >> 3)

    def _note_reached(self, watch: Watch) -> None:
        if self._learner is not None:
            self._learner.reach(watch.first_byte)

    def _go_on_at(self, bookmark: Bookmark) -> PieceReader:
        """Return the reader at the bookmark's header."""
        point = bookmark.point
        if point.first_byte >= self._size_bytes:
            raise self._wrong_bookmark()
        self._false_before = bookmark.false_borders
        self._confirmed.update(bookmark.confirmed)
        self._border_offset = bookmark.border_offset
        self._later = [watch for watch in self._later if watch.first_byte >= bookmark.watch_from]
        passed = [watch for watch in self._later if watch.first_byte < point.first_byte]
        for watch in passed:
            watch.entry = find_entry(self._source, watch.first_byte)
            if isinstance(watch.entry, Entry) and watch.entry.compressed_position < point.first_byte:
                # No bookmark of ours: this reader serves that cut's members, and its report says so.
                self._later.remove(watch)
        self._go_to(point.first_byte)
        if self._learner is not None:
            inflation: Inflation = self._learner.begin(point, point.first_byte)
        else:
            inflation = Inflation(point.window(), stand_in=point.stand_in, position=point.output_offset)
        self._reader = reader = self._reader_at(inflation, self._later)
        for watch in passed:
            self._note_reached(watch)
        reader.needed_to = bookmark.header_offset + BLOCK_BYTES
        if self._learner is not None:
            self._learner.expect_header(bookmark.header_offset)
        missing = bookmark.header_offset - reader.position
        if reader.skip(missing) < missing:
            raise self._wrong_bookmark()
        reader.look_ahead(BLOCK_BYTES)
        reader.begin_piece(bookmark.segments)
        return reader

    def _wrong_bookmark(self) -> ArchiveError:
        return ArchiveError(
            f"{self._source.path} ends before the place at which reading shall go on",
            "the saved state is of another archive, or damaged; go on from an older one",
        )

    # --- finding the own border -----------------------------------------------------------------------------------

    def _stand_at_border(self) -> PieceReader | None:
        """Return the reader at the cut's border; where it has none, report that and return None."""
        if self.finished:
            return None
        if self._next_cut is not None:
            self._next_cut = None
            return self._reader
        if self._own.first_byte == 0 and self._reader is None:
            inflation = Inflation() if self._learner is None else self._learner.begin(None, 0)
            self._reader = self._reader_at(inflation, self._later)
            return self._reader
        try:
            return self._seek_border() if self._reader or self._enter() else None
        except ArchiveError:
            # The reader from before meets the same damage, and says so.
            self._own_none(NoEntryReason.DAMAGED, next_cut=self._later[0] if self._later else None)
            return None

    def _enter(self) -> bool:
        """Begin to decompress at the cut's entry; return False where it has none, or another cut has the same."""
        self._go_to(self._own.first_byte)
        entry = entry_ahead(self._feed)
        if isinstance(entry, NoEntry):
            self._own_none(entry.reason, next_cut=self._later[0] if self._later else None)
            return False
        for watch in self._later:
            if watch.first_byte >= entry.bit >> 3:
                break
            self._feed.move_to(watch.first_byte)
            watch.entry = entry_ahead(self._feed)
            if isinstance(watch.entry, Entry) and watch.entry.bit <= entry.bit:
                self._own_none(NoEntryReason.NEXT_CUT, next_cut=watch)
                return False
        self._feed.move_to(entry.bit >> 3)
        self._own.enter(entry)
        self._reader = self._reader_at(self._begin_at_entry(entry), [self._own, *self._later])
        for watch in self._later:
            if watch.entry is not None:
                self._note_reached(watch)
        return True

    def _seek_border(self) -> PieceReader | None:
        reader = self._reader
        assert reader is not None
        while True:
            if self._learner is not None:
                self._learner.expect_header(reader.position)
            if (rival := self._rival()) is not None:
                # Its reader begins where this one would, or before; this one may go on for it.
                self._own_none(NoEntryReason.NEXT_CUT, next_cut=rival, goes_on=True)
                return None
            if self._own.border is not None:
                reader.skip(self._own.border - reader.position)
                reader.watch(self._later)
                return reader
            # A header of which not all was seen stays.
            reader.skip(max(0, reader.decompressed - (BLOCK_BYTES - 1) - reader.position))
            assert self._own.scan is not None
            reader.needed_to = (self._own.scan.next_header or 0) + BLOCK_BYTES
            if not reader.advance():
                self._own_none(NoEntryReason.NO_MEMBER, next_cut=None)
                return None

    def _rival(self) -> Watch | None:
        """Return the last of the later cuts whose border is this one's, or lies before it."""
        return next((watch for watch in reversed(self._later) if self._is_rival(watch)), None)

    def _is_rival(self, watch: Watch) -> bool:
        own, other = self._own.scan, watch.scan
        if own is None or other is None or not watch.agrees:
            return False
        if other.border is not None:
            return own.border is None or other.border <= own.border
        # Where both still search for the first header they will find the same.
        return own.searched_to is not None and own.searched_to == other.searched_to

    def _own_none(self, reason: NoEntryReason, *, next_cut: Watch | None, goes_on: bool = False) -> None:
        self._report(served_until=next_cut, owns_none=reason)
        if next_cut is None:
            self.finished = True
            return
        self._later = self._after(next_cut)
        if goes_on and self._reader is not None:
            self._own = next_cut
            self._reader.watch([self._own, *self._later])
        else:
            self._own = Watch(next_cut.first_byte)
            self._later = [Watch(watch.first_byte) for watch in self._later]
            self._reader = None

    def _go_to(self, byte: int) -> None:
        if byte >= self._feed.position:
            self._feed.move_to(byte)
        else:
            self._feed.close()
            self._feed = Feed(self._source, byte, expected_bytes=EXPECTED_BYTES)

    # --- checking the borders of later cuts -----------------------------------------------------------------------

    def _ends_at(self, header: int) -> bool:
        """Return whether a header of the archive is the border at which the next reader begins."""
        reader = self._reader
        assert reader is not None
        if self._learner is not None:
            self._learner.expect_header(header)
        reader.skip(header - reader.position)
        reader.look_ahead(BLOCK_BYTES)
        here = [watch for watch in self._later if watch.agrees and watch.border == header]
        self._confirmed.update(watch.first_byte for watch in here)
        if not here or self._has_rival(here[-1]):
            if self._learner is not None:
                self._learner.stand(self._standing(header, reader))
            return False
        self._next_cut = here[-1]
        return True

    def _standing(self, header: int, reader: PieceReader) -> Standing:
        """Return what a bookmark at a header says."""
        undecided = [watch.first_byte for watch in self._later if watch.entry is None or watch.is_pending(header)]
        watch_from = min(undecided, default=self._size_bytes)
        return Standing(
            cut=self._own.first_byte,
            header_offset=header,
            border_offset=self._border_offset,
            segments=reader.end_piece(),
            watch_from=watch_from,
            false_borders=self._false_borders(watch_from),
            confirmed=tuple(sorted(byte for byte in self._confirmed if byte >= watch_from)),
        )

    def _false_borders(self, end: int) -> tuple[int, ...]:
        """Return which of the later cuts that begin before a compressed byte went astray."""
        found = (watch.first_byte for watch in self._later if watch.first_byte < end and self._is_false(watch))
        return (*self._false_before, *found)

    def _has_rival(self, watch: Watch) -> bool:
        """Return whether the reader of that cut may find that the border of a later one lies before its own."""
        assert isinstance(watch.entry, Entry)
        assert watch.border is not None
        return any(
            (later.border is not None and later.border <= watch.border)
            or (isinstance(later.entry, Entry) and later.entry.bit <= watch.entry.bit)
            for later in self._after(watch)
        )

    def _after(self, watch: Watch) -> list[Watch]:
        return [later for later in self._later if later.first_byte > watch.first_byte]

    def _end_cut(self, reader: PieceReader) -> None:
        next_cut = self._next_cut
        self._report(served_until=next_cut, owns_none=None, reader=reader)
        if next_cut is None:
            self.finished = True
            return
        self._later = self._after(next_cut)
        self._false_before = ()
        self._own = next_cut
        reader.watch(self._later)

    def _report(
        self, *, served_until: Watch | None, owns_none: NoEntryReason | None, reader: PieceReader | None = None
    ) -> None:
        """Add the report of the own cut; of a reader, where it stands at the cut's end."""
        end = served_until.first_byte if served_until else self._size_bytes
        self.reports.append(
            CutReport(
                first_byte=self._own.first_byte,
                served_until=end,
                owns_none=owns_none,
                false_borders=self._false_borders(end),
                piece=reader.end_piece() if reader else (),
                piece_bytes=reader.position - self._border_offset if reader else 0,
                border_offset=self._border_offset if reader else 0,
            )
        )

    def _is_false(self, watch: Watch) -> bool:
        begins_astray = watch.agrees is False or watch.border is not None
        return begins_astray and watch.first_byte not in self._confirmed


def read_cut(source: ByteSource, first_byte: int, end_byte: int, *, later_cuts: Sequence[int] = ()) -> Iterator[Member]:
    """Yield the members of the cut [first_byte, end_byte) of an archive: `CutReader` for one cut, without its report.

    Args:
        source: The archive.
        first_byte: The cut's first compressed byte.
        end_byte: The next cut's first one, or the archive's size.
        later_cuts: Where the cuts after the next one begin.
    """
    with CutReader(source, first_byte, (end_byte, *later_cuts)) as reader:
        yield from reader.members()


def whole_only(source: ByteSource) -> str | None:
    """Return why an archive must be read whole, as far as its first bytes tell; None where it may be cut.

    Reads one range of at most 64 KiB. Some archives (of text, say) tell only when they are entered.
    """
    try:
        feed = Feed(source, 0, expected_bytes=1 << 16)
        block = PieceReader(feed, Inflation(), (), source.path).read(BLOCK_BYTES)
        feed.close()
    except ArchiveError as error:
        return error.fact
    return None if plausible_header(block) else "its headers don't say that they are (no `ustar` in them)"
