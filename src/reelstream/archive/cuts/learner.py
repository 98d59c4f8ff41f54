"""What a reader of cuts learns on the way: rows of the archive's index, and places to go on at.

A reader that goes on at a bookmark has to find the borders of later cuts where the one before it would have. A border
is found by what follows its cut's entry, so a bookmark between a later cut's first byte and its border begins to
decompress before that byte, where everything else is found anew: some 300 KiB and at most the clip that straddles are
read twice. What was decided about cuts before is written into the bookmark.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from tarfile import TarInfo

from reelstream.archive.cuts.bookmark import Bookmark, LearnedRow
from reelstream.archive.cuts.piece import PieceReader, Segment
from reelstream.archive.seek.inflate import InflateLibrary
from reelstream.archive.seek.learning import RowLearner
from reelstream.archive.seek.noting import Boundary, NotingInflation
from reelstream.archive.seek.seek_points import SeekPoint
from reelstream.archive.tar import Member


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """All that a bookmark says but its seek point: how things stand at a header."""

    cut: int
    header_offset: int
    border_offset: int
    segments: tuple[Segment, ...]
    watch_from: int
    false_borders: tuple[int, ...]
    confirmed: tuple[int, ...]


class CutLearner:
    """Learns rows and bookmarks from the members that a `CutReader` meets.

    Args:
        library: What to decompress with.
    """

    def __init__(self, library: InflateLibrary) -> None:
        self._library = library
        self._inflation: NotingInflation | None = None
        self._rows: RowLearner | None = None
        self._restarts: dict[int, Boundary] = {}  # by the first byte of the later cut that they lie before
        self._standing: Standing | None = None
        self._standings: deque[Standing] = deque()  # of the rows that are not known yet
        self._learned: list[LearnedRow] = []

    def begin(self, start: SeekPoint | None, first_byte: int) -> NotingInflation:
        """Return a decompression from a place on, or from a gzip header at `first_byte`; the one before has ended."""
        self.close()
        self._inflation = NotingInflation(self._library, start=start, first_byte=first_byte)
        self._rows = RowLearner(self._inflation)
        self._restarts.clear()
        return self._inflation

    def begin_cut(self) -> None:
        """The reader stands at a cut's border."""
        self.finish()
        if self._rows is not None:
            self._rows.begin_cut()

    def reach(self, cut: int) -> None:
        """All before the first byte of a later cut was decompressed, or all before its entry."""
        if self._inflation is None:
            return
        place = self._inflation.place_before_next_header()
        if place is not None:
            self._restarts[cut] = place

    def expect_header(self, offset: int) -> None:
        """Say where the next header lies, or behind which offset: before what lies ahead of it is decompressed."""
        if self._rows is not None:
            self._rows.expect_header(offset)

    def stand(self, standing: Standing) -> None:
        """Say how things stand at the header that is read next."""
        self._standing = standing

    def pass_member(self, info: TarInfo, next_header: int, reader: PieceReader) -> Iterator[Member]:
        """Yield the member of the header that was just read, and pass over what is not read of it."""
        standing = self._standing
        assert standing is not None
        assert self._rows is not None
        restart = self._restarts.get(standing.watch_from)
        if (yield from self._rows.pass_member(info, next_header, reader, restart=restart)):
            self._standings.append(standing)

    def take_rows(self, *, now: bool) -> list[LearnedRow]:
        """Return the rows that became known since the last call, or all that passed, in the order they lie."""
        if now:
            self.finish()
        self._collect()
        learned, self._learned = self._learned, []
        return learned

    def finish(self) -> None:
        """Make known all rows that passed."""
        if self._rows is not None:
            self._rows.finish()
            self._collect()

    def close(self) -> None:
        """Give the decompressor's memory back; what was learned stays."""
        self.finish()
        if self._inflation is not None:
            self._inflation.close()

    def _collect(self) -> None:
        if self._rows is None:
            return
        for row, point in self._rows.take():
            standing = self._standings.popleft()
            bookmark = Bookmark(
                point=point,
                header_offset=standing.header_offset,
                border_offset=standing.border_offset,
                segments=standing.segments,
                watch_from=standing.watch_from,
                false_borders=standing.false_borders,
                confirmed=standing.confirmed,
            )
            self._learned.append(LearnedRow(cut=standing.cut, row=row, bookmark=bookmark))
