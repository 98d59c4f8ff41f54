"""The decompressed bytes of a piece of an archive: read forward like a whole one, watched for borders, checksummed."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from reelstream.archive.alignment import WINDOW_BYTES
from reelstream.archive.checksum import crc32
from reelstream.archive.cuts.border import BorderScan
from reelstream.archive.cuts.crc import crc32_combine
from reelstream.archive.cuts.entry import EXPECTED_BYTES, Entry, NoEntry, entry_ahead
from reelstream.archive.cuts.feed import Feed
from reelstream.archive.forward import ForwardReader
from reelstream.archive.inflation import GzipTrailer, Inflation
from reelstream.errors import ArchiveError

# What is given to the inflater at once; less where a border is near, behind which it was read for nothing.
_TAKE_BYTES = 1 << 16
_TAKE_NEAR_BORDER_BYTES = 1 << 14
_PIECE_BYTES = 1 << 18
# Media hardly shrink: as many compressed bytes as output will be needed, and a little more.
_MARGIN_BYTES = 1 << 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The part of a piece that lies in one gzip member."""

    crc32: int
    size_bytes: int
    trailer: GzipTrailer | None
    """What the gzip member's end says of all of it; None where the piece ends before."""


class Watch:
    """What a reader who comes from before knows of a later cut's border: what that cut's own reader will find."""

    def __init__(self, first_byte: int) -> None:
        self.first_byte = first_byte
        self.entry: Entry | NoEntry | None = None
        """None until its byte was reached."""
        self.agrees: bool | None = None
        """Whether the output at the entry is what its reader sees; None while it is not known."""
        self.scan: BorderScan | None = None
        self._window_crc32 = 0
        self._window_left = WINDOW_BYTES
        self._window_at = 0
        self._is_own = False

    @property
    def is_awaited(self) -> bool:
        """Whether the reader from before is beyond this cut's entry, and will stop at its border if all is well."""
        return isinstance(self.entry, Entry) and self.agrees is not False and not self._is_own

    def is_pending(self, header: int) -> bool:
        """Return whether this cut began before a header, and its border may be there or behind it."""
        is_followed = isinstance(self.entry, Entry) and self.agrees is not False
        return is_followed and (self.border is None or self.border >= header)

    @property
    def border(self) -> int | None:
        """Where its reader begins; None while that is not known."""
        return self.scan.border if self.scan else None

    def enter(self, entry: Entry) -> None:
        """Begin at this cut's own entry: the output's positions are counted from it."""
        self.entry = entry
        self._is_own = True
        self._window_at = entry.true_from
        self.scan = BorderScan(entry.true_from)

    def split_after(self, position: int) -> int | None:
        """Return the compressed byte at which this watch wants the input to be split next."""
        if self.entry is None:
            return self.first_byte
        if isinstance(self.entry, Entry) and self.entry.compressed_position > position:
            return self.entry.compressed_position
        return None

    def reach(self, feed: Feed, output_position: int) -> bool:
        """Take note that all before the feed's position was decompressed; return whether the cut begins there."""
        is_first_byte = self.entry is None and feed.position == self.first_byte
        if is_first_byte:
            self.entry = entry_ahead(feed)
        if self.scan is None and isinstance(self.entry, Entry) and feed.position == self.entry.compressed_position:
            self._window_at = output_position + self.entry.true_from
            self.scan = BorderScan(self._window_at)
        return is_first_byte

    def follow(self, piece: bytes, position: int) -> None:
        """Look at the next piece of output."""
        if self.scan is None or self.agrees is False:
            return
        if self._window_left and position + len(piece) > self._window_at:
            part = piece[self._window_at - position :][: self._window_left]
            self._window_crc32 = crc32(part, self._window_crc32)
            self._window_at += len(part)
            self._window_left -= len(part)
            if not self._window_left:
                assert isinstance(self.entry, Entry)
                self.agrees = self._window_crc32 == self.entry.window_crc32
        if self.agrees is not False:
            self.scan.follow(piece, position)


class PieceReader(ForwardReader):
    """Decompressed bytes from a place on, for `walk_headers` and `Member`.

    Args:
        feed: The compressed bytes, at that place.
        inflation: Begun there.
        watches: Later cuts whose borders are to be found while their bytes pass by, ascending.
        path: Names the archive in errors.
        on_reach: Called with a watch when all before its cut's first byte was decompressed.

    Raises (from each method that reads):
        ArchiveError: Where the bytes are damaged or end too early.
    """

    def __init__(
        self,
        feed: Feed,
        inflation: Inflation,
        watches: Iterable[Watch],
        path: str,
        *,
        on_reach: Callable[[Watch], None] = lambda _: None,
    ) -> None:
        self._feed = feed
        self._inflation = inflation
        self._watches = list(watches)
        self._path = path
        self._on_reach = on_reach
        self._pieces: deque[memoryview] = deque()
        self._buffered = 0
        self._segments: list[Segment] = []
        self._crc32 = 0
        self._segment_from = self.position = inflation.position
        """Output handed out so far, from where the decompression began."""
        self.needed_to = 0
        """Output that will be needed for sure: a hint for how much to fetch at once."""

    @property
    def decompressed(self) -> int:
        """Output decompressed so far, handed out or not."""
        return self._inflation.position

    def read_some(self, most_bytes: int) -> memoryview:
        """Return at least one and at most `most_bytes` bytes; none at the archive's end."""
        while not self._buffered:
            if not self.advance():
                self._close_segments()
                return memoryview(b"")
        self._close_segments()
        if self._inflation.ends:
            most_bytes = min(most_bytes, self._inflation.ends[0][0] - self.position)
        piece = self._pieces.popleft()
        some, rest = piece[:most_bytes], piece[most_bytes:]
        if rest:
            self._pieces.appendleft(rest)
        self._crc32 = crc32(some, self._crc32)
        self.position += len(some)
        self._buffered -= len(some)
        return some

    def watch(self, watches: Iterable[Watch]) -> None:
        """Look for the borders of these cuts from now on, and of no others."""
        self._watches = list(watches)

    def look_ahead(self, size_bytes: int) -> None:
        """Decompress until `size_bytes` more can be handed out, so that watches have seen them, or to the end."""
        while self._buffered < size_bytes and self.advance():
            pass

    def begin_piece(self, before: tuple[Segment, ...] = ()) -> None:
        """Begin the checksum of a piece here, or go on with one whose checksums up to here are given."""
        self._close_segments()  # those of what came before
        self._segments = list(before[:-1])
        self._crc32, self._segment_from = 0, self.position
        if before:
            self._crc32, self._segment_from = before[-1].crc32, self.position - before[-1].size_bytes

    def end_piece(self) -> tuple[Segment, ...]:
        """Return the checksums from where the piece began to here.

        Gzip members that lie wholly inside it, and are what their ends say, are left out; of those that are not, one
        stays.
        """
        self._close_segments()
        last = Segment(crc32=self._crc32, size_bytes=self.position - self._segment_from, trailer=None)
        return (*self._segments, last)

    def advance(self) -> bool:
        """Decompress one piece, or feed the inflater; return False at a clean end of the archive."""
        if self._inflation.hungry:
            return self._give_more()
        start = self._inflation.position
        try:
            piece = self._inflation.inflate(_PIECE_BYTES)
        except zlib.error as error:
            raise ArchiveError(
                f"{self._path}, before compressed byte {self._feed.position:,}: the gzip data are damaged ({error})",
                "tell the archive's publisher",
            ) from error
        if piece:
            self._pieces.append(memoryview(piece))
            self._buffered += len(piece)
            for watch in self._watches:
                watch.follow(piece, start)
        return True

    def _give_more(self) -> bool:
        for watch in self._watches:
            if watch.reach(self._feed, self._inflation.position):
                self._on_reach(watch)
        position = self._feed.position
        splits = [split for watch in self._watches if (split := watch.split_after(position)) is not None]
        near_border = any(watch.is_awaited for watch in self._watches)
        take_bytes = _TAKE_NEAR_BORDER_BYTES if near_border else _TAKE_BYTES
        self._feed.expect(self._expected_bytes(near_border=near_border))
        taken = self._feed.take(min([take_bytes, *(split - position for split in splits)]))
        if taken:
            self._inflation.give(taken)
            return True
        if self._inflation.between_members:
            return False
        raise ArchiveError(
            f"{self._path} is cut short: it ends after {position:,} bytes, inside a gzip stream",
            "the published file itself is incomplete; tell its publisher",
        )

    def _expected_bytes(self, *, near_border: bool) -> int:
        """Return how many compressed bytes will be needed from here on, as far as that is known."""
        if near_border:
            return self.needed_to - self._inflation.position + _MARGIN_BYTES
        ahead = [watch.first_byte for watch in self._watches if watch.entry is None]
        return min(ahead) - self._feed.position + EXPECTED_BYTES if ahead else self._feed.left_bytes

    def _close_segments(self) -> None:
        """End the segments of the gzip members that end here."""
        ends = self._inflation.ends
        while ends and ends[0][0] == self.position:
            _, trailer = ends.pop(0)
            segment = Segment(crc32=self._crc32, size_bytes=self.position - self._segment_from, trailer=trailer)
            # The first may have begun before the piece; of others that are false one is enough.
            if not self._segments or (len(self._segments) == 1 and not is_true(segment)):
                self._segments.append(segment)
            self._crc32, self._segment_from = 0, self.position


def is_true(segment: Segment) -> bool:
    """Return whether a segment that is a whole gzip member is what the member's end says."""
    trailer = segment.trailer
    return (
        trailer is not None
        and trailer.crc32 == segment.crc32
        and trailer.size_bytes == segment.size_bytes & 0xFFFF_FFFF
    )


def pieces_are_true(pieces: Iterable[Iterable[Segment]]) -> bool:
    """Return whether the pieces of an archive, from its beginning to its end in order, are what was packed.

    The checksums of pieces are combined, and compared with what the ends of the gzip members say. It makes no
    difference who read which piece.
    """
    crc32 = size_bytes = num_members = 0
    for segment in (segment for piece in pieces for segment in piece):
        crc32 = crc32_combine(crc32, segment.crc32, segment.size_bytes)
        size_bytes += segment.size_bytes
        if segment.trailer is not None:
            if not is_true(Segment(crc32=crc32, size_bytes=size_bytes, trailer=segment.trailer)):
                return False
            crc32 = size_bytes = 0
            num_members += 1
    return size_bytes == 0 and num_members > 0
