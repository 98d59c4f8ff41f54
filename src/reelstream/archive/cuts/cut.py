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

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from reelstream.archive.cuts.border import BLOCK_BYTES, plausible_header
from reelstream.archive.cuts.entry import EXPECTED_BYTES, Entry, NoEntry, NoEntryReason, entry_ahead
from reelstream.archive.cuts.feed import Feed
from reelstream.archive.cuts.piece import PieceReader, Segment, Watch
from reelstream.archive.inflation import Inflation
from reelstream.archive.source import ByteSource
from reelstream.archive.tar import Member, member_of, walk_headers
from reelstream.errors import ArchiveError


@dataclass(frozen=True, slots=True, kw_only=True)
class CutReport:
    """What the reader of a cut found."""

    first_byte: int
    """The cut's first compressed byte."""
    served_until: int
    """The first byte of the cut whose members come next; the archive's size where none do."""
    owns_none: str | None
    """Why no member is the cut's; None where some may be."""
    false_borders: tuple[int, ...]
    """The first bytes of cuts whose readers begin at no header: what they deliver is void."""
    piece: tuple[Segment, ...]
    """Checksums from the cut's border to where the reader stopped."""


class CutReader:
    """Reads a cut of an archive, and may go on into the next ones without reading a byte twice.

    Args:
        source: The archive.
        first_byte: Where the cut begins; 0 for the first one.
        later_cuts: Where all later cuts of the archive begin, ascending. All of them: the next one may have no border.
    """

    def __init__(self, source: ByteSource, first_byte: int, later_cuts: Sequence[int] = ()) -> None:
        self._source = source
        self._size_bytes = source.size_bytes
        self._own = Watch(first_byte)
        self._later = [Watch(byte) for byte in later_cuts if first_byte < byte < self._size_bytes]
        self._feed = Feed(source, first_byte, expected_bytes=EXPECTED_BYTES)
        self._reader: PieceReader | None = None  # None where decompression has to begin anew
        self._next_cut: Watch | None = None  # at whose border the reader stands
        self._confirmed: set[int] = set()
        self.finished = False
        """Whether the archive's end was reached: there is no cut to go on into."""
        self.reports: list[CutReport] = []
        """One for each cut that was read to its end, in order."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the range that is being read."""
        self._feed.close()

    def members(self) -> Iterator[Member]:
        """Yield the members of the cut; called again, those of the next one.

        Each call adds to `reports` when all its members were taken. A member that is not read is passed over.

        Raises:
            ArchiveError: As `read_members`.
        """
        reader = self._stand_at_border()
        if reader is None:
            return
        reader.begin_piece()
        for info, next_header in walk_headers(reader, self._source.path, ends_at=self._ends_at):
            reader.needed_to = next_header + BLOCK_BYTES
            yield member_of(info, reader)
        self._end_cut(reader)

    # --- finding the own border -----------------------------------------------------------------------------------

    def _stand_at_border(self) -> PieceReader | None:
        """Return the reader at the cut's border; where it has none, report that and return None."""
        if self.finished:
            return None
        if self._next_cut is not None:
            self._next_cut = None
            return self._reader
        if self._own.first_byte == 0 and self._reader is None:
            self._reader = PieceReader(self._feed, Inflation(), self._later, self._source.path)
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
        self._reader = PieceReader(self._feed, entry.begin(), [self._own, *self._later], self._source.path)
        return True

    def _seek_border(self) -> PieceReader | None:
        reader = self._reader
        assert reader is not None
        while True:
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
        reader.skip(header - reader.position)
        reader.look_ahead(BLOCK_BYTES)
        here = [watch for watch in self._later if watch.agrees and watch.border == header]
        self._confirmed.update(watch.first_byte for watch in here)
        if not here or self._has_rival(here[-1]):
            return False
        self._next_cut = here[-1]
        return True

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
        self._report(served_until=next_cut, owns_none=None, piece=reader.end_piece())
        if next_cut is None:
            self.finished = True
            return
        self._later = self._after(next_cut)
        self._own = next_cut
        reader.watch(self._later)

    def _report(
        self, *, served_until: Watch | None, owns_none: NoEntryReason | None, piece: tuple[Segment, ...] = ()
    ) -> None:
        end = served_until.first_byte if served_until else self._size_bytes
        self.reports.append(
            CutReport(
                first_byte=self._own.first_byte,
                served_until=end,
                owns_none=owns_none,
                false_borders=tuple(w.first_byte for w in self._later if w.first_byte < end and self._is_false(w)),
                piece=piece,
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


def settled(reports: Iterable[CutReport]) -> list[CutReport]:
    """Return the reports of the readers whose members count, from the archive's beginning on.

    The first cut's reader knows what it reads; it says at which cut's border it stopped, having checked it; and so on.
    The other readers' members are void: they began astray, or the one before went on past their border. Where a report
    is missing, the list ends there.
    """
    by_first_byte = {report.first_byte: report for report in reports}
    chain: list[CutReport] = []
    first_byte = 0
    while (report := by_first_byte.get(first_byte)) is not None and report.owns_none is None:
        chain.append(report)
        first_byte = report.served_until
    return chain


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
