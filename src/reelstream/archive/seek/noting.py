"""An inflation that notes places on the way from which the bytes to come can be read again.

All that is kept are the last few places, and the bytes around them until it is known which of them matter: some MiB at
most, however large a block, a member or the archive is.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from reelstream.archive.alignment import WINDOW_BYTES
from reelstream.archive.inflation import Inflation
from reelstream.archive.seek.inflate import BlockInflater, InflateLibrary
from reelstream.archive.seek.seek_points import (
    SeekPoint,
    copied_places,
    input_bytes_for,
    stand_in,
    usable_skip_bytes,
)

_PIECE_BYTES = 1 << 18

# After a member nothing is known but that a header follows: small steps, so that little is read beyond the next member.
_UNKNOWN_BYTES = 1 << 15

# Stopping at each block costs time, so it is done only this far before a member's end: up to twice the longest
# block of late. zlib's hold 16 to 64 KiB of a video, other writers' some hundred; one of a still image can hold MB.
_FIRST_MARGIN_BYTES = 1 << 19
_LEAST_MARGIN_BYTES = 96 << 10
_LARGEST_MARGIN_BYTES = 1 << 22

# Within a large member a place is noted this often, for a block that begins in it and reaches beyond it.
_SPACING_BYTES = 1 << 18

# Blocks smaller than this are not told apart: there could be one every 10 bits.
_SMALLEST_BLOCK_BYTES = 1 << 12

# A place that is older than this is worked out at once, so that the bytes around it need not be kept.
_LONGEST_MEMORY_BYTES = 1 << 20

# More than any piece has blocks.
_MOST_BOUNDARIES = 256


@dataclass(slots=True, kw_only=True, eq=False)
class Boundary:
    """A place where a deflate block begins, or (inside a stored one) a member: see `SeekPoint`."""

    bit_offset: int
    output_offset: int
    stored_left_bytes: int = 0
    stored_is_last: bool = False
    needed_from: int | None = None
    """From which decompressed offset on its output is needed; None where nobody asked."""
    point: SeekPoint | None = None
    """What is kept of it; None as long as that is not known."""


class _Pieces:
    """The latest bytes of a stream, by offset."""

    def __init__(self, begin: int) -> None:
        self._pieces: deque[tuple[int, bytes]] = deque()
        self.end = begin

    def append(self, piece: bytes) -> None:
        self._pieces.append((self.end, piece))
        self.end += len(piece)

    def drop_before(self, offset: int) -> None:
        while self._pieces and self._pieces[0][0] + len(self._pieces[0][1]) <= offset:
            self._pieces.popleft()

    def slice(self, first: int, end: int) -> bytes:
        """Return the bytes from `first` to `end`, as far as they are here."""
        parts = []
        for start, piece in self._pieces:
            if start >= end:
                break
            if start + len(piece) > first:
                parts.append(piece[max(0, first - start) : end - start])
        return b"".join(parts)


class NotingInflation(Inflation):
    """An `Inflation` that knows where blocks begin. Close it.

    Offsets of the output are counted from the start's; at a gzip file's beginning, from 0.

    Args:
        library: What to decompress with.
        start: Where to begin inside a gzip member; None to begin at a gzip header.
        first_byte: Where the first byte that is given lies in the file; of a start, the start's.
    """

    def __init__(self, library: InflateLibrary, *, start: SeekPoint | None = None, first_byte: int = 0) -> None:
        self._library = library
        self._blocks = BlockInflater(library)
        self._given_end = first_byte if start is None else start.first_byte
        # Where the inflater's own count of consumed bytes begins: it does not count frames.
        self._shift = self._given_end
        self._inputs = _Pieces(self._given_end)
        self._outputs = _Pieces(0)
        self._at_start = False
        self._margin_bytes = _FIRST_MARGIN_BYTES
        self._block_begin: int | None = None
        self._boundaries: deque[Boundary] = deque()
        self._asked: deque[Boundary] = deque()
        self._num_tiny_blocks = 0
        if start is None:
            super().__init__()
        else:
            super().__init__(start.window(), stand_in=start.stand_in, position=start.output_offset)
            self._outputs = _Pieces(start.output_offset - WINDOW_BYTES)
            self._outputs.append(start.window())
            self._boundaries.append(
                Boundary(
                    bit_offset=start.bit_offset,
                    output_offset=start.output_offset,
                    stored_left_bytes=start.stored_left_bytes,
                    stored_is_last=start.stored_is_last,
                )
            )
        self._stop = self.position

    @property
    def consumed(self) -> int:
        """Where the compressed bytes end that are needed for all the output so far."""
        return self._blocks.consumed + self._shift if self._is_inside else self._given_end - len(self._given)

    def give(self, compressed: memoryview | bytes) -> None:
        """Add compressed bytes to those not used yet; only while `hungry`."""
        compressed = bytes(compressed)
        self._inputs.append(compressed)
        self._given_end += len(compressed)
        if self._stand_in is not None and compressed:
            head, compressed = self._stand_in(compressed[0]), compressed[1:]
            self._stand_in = None
            self._shift += 1 - len(head)
            self._blocks.feed(head)
            self._at_start = True
        super().give(compressed)

    def close(self) -> None:
        """Give the decompressor's memory back."""
        self._blocks.close()

    def stop_at(self, offset: int) -> None:
        """Say at which decompressed offset, or behind which, the next header will be.

        One step of decompression ends there, and no boundary before it will be asked for but the last one.
        """
        self._stop = offset

    def boundary_before(self, offset: int) -> Boundary:
        """Return the last boundary at or before a header, of which `stop_at` was told."""
        for boundary in reversed(self._boundaries):
            if boundary.output_offset <= offset:
                return boundary
        raise AssertionError(f"no boundary is known before byte {offset}")

    def ask(self, boundary: Boundary, needed_from: int) -> None:
        """Have a boundary's `point` set as soon as it can be known: 32 KiB further on.

        Args:
            boundary: One that may have been asked for before.
            needed_from: From which decompressed offset on its output is needed; such offsets ascend.
        """
        if boundary.needed_from is None:
            boundary.needed_from = needed_from
            if boundary.point is None:
                self._asked.append(boundary)
        assert boundary.needed_from <= needed_from, "a place is asked for what was passed over already"

    def place_before_next_header(self) -> Boundary | None:
        """Return a boundary that is asked for, from which all can be read from the next header on.

        None where none is known yet: before the first gzip header has passed.
        """
        if not self._boundaries:
            return None
        needed_from = min(self._stop, self.position)
        boundary = self.boundary_before(needed_from)
        self.ask(boundary, needed_from)
        return boundary

    def work_out(self, boundary: Boundary) -> SeekPoint:
        """Set a boundary's `point` with what is known now (all of its window, where that is too little); return it."""
        if boundary.point is None:
            boundary.point = self._point_of(boundary)
        return boundary.point

    def _begin_data(self, window: bytes = b"") -> None:
        if window:
            self._blocks = BlockInflater(self._library, window)
            return
        self._shift = self._given_end - len(self._given) - self._blocks.consumed
        self._block_begin = None
        self._note_boundary(self.consumed * 8, self._outputs.end)

    def _decompress(self, most_bytes: int) -> bytes:
        blocks = self._blocks
        if self._given and not blocks.left_bytes:
            blocks.feed(self._given)
            self._given = b""
        room_bytes, stop_at_block = self._next_step()
        room_bytes = min(room_bytes, most_bytes)
        # What stands in for the first byte has empty blocks of its own.
        stop_at_block &= not self._at_start
        self._at_start = False
        piece = blocks.step(room_bytes, stop_at_block=stop_at_block)
        self._outputs.append(piece)
        if not stop_at_block:
            self._block_begin = None
        self._maybe_pending = bool(blocks.left_bytes or self._given) or len(piece) == room_bytes
        if blocks.stream_ended:
            self._end_data(blocks.take_rest() + self._given)
        self._note(piece)
        return piece

    def _next_step(self) -> tuple[int, bool]:
        """Return the most bytes of the next step, and whether it ends where a block begins."""
        ahead_bytes = self._stop - self._outputs.end
        if self._num_tiny_blocks > 1:
            self._num_tiny_blocks = 0
            return min(_SMALLEST_BLOCK_BYTES, ahead_bytes if ahead_bytes > 0 else _SMALLEST_BLOCK_BYTES), False
        if ahead_bytes <= 0:
            return _UNKNOWN_BYTES, True
        since_boundary = self._outputs.end - self._boundaries[-1].output_offset
        if ahead_bytes <= self._margin_bytes or since_boundary >= _SPACING_BYTES:
            return min(ahead_bytes, _PIECE_BYTES), True
        return min(ahead_bytes - self._margin_bytes, _PIECE_BYTES), False

    def _note(self, piece: bytes) -> None:
        """Note what the last step came to, and forget what no later header can need."""
        here = self._outputs.end
        if self._blocks.boundary_bit is not None:
            self._note_boundary(self._blocks.boundary_bit + 8 * self._shift, here)
        elif piece and here == self._stop:
            self._margin_bytes = max(self._margin_bytes * 15 // 16, _LEAST_MARGIN_BYTES)
            self._learn_block(here - self._boundaries[-1].output_offset)
            self._note_inside_stored(here)
        # The next header lies in bytes not yet handed out, or in the midst of being read.
        next_header = min(here - len(piece), self._stop)
        while len(self._boundaries) > 1 and self._boundaries[1].output_offset <= next_header:
            self._boundaries.popleft()
        if len(self._boundaries) > _MOST_BOUNDARIES:  # a header of hundreds of MB
            del self._boundaries[1]
        while self._asked and self._is_known(self._asked[0], here):
            self.work_out(self._asked.popleft())
        self._forget(here)

    def _learn_block(self, size_bytes: int) -> None:
        self._margin_bytes = max(self._margin_bytes, min(2 * size_bytes, _LARGEST_MARGIN_BYTES))

    def _note_boundary(self, bit_offset: int, here: int) -> None:
        if self._block_begin is not None:
            self._learn_block(here - self._block_begin)
        self._block_begin = here
        last = self._boundaries[-1].output_offset if self._boundaries else -_SMALLEST_BLOCK_BYTES
        if here == last:  # an empty block, or the one that follows what a stored one ended with
            self._num_tiny_blocks += 1
            if self._boundaries[-1].stored_left_bytes or self._boundaries[-1].needed_from is not None:
                return
            self._boundaries.pop()
        self._num_tiny_blocks = self._num_tiny_blocks + 1 if here - last < _SMALLEST_BLOCK_BYTES else 0
        self._boundaries.append(Boundary(bit_offset=bit_offset, output_offset=here))

    def _note_inside_stored(self, here: int) -> None:
        """Where a stored block holds what comes next, reading can begin at any byte of it."""
        block = self._boundaries[-1]
        if block.stored_left_bytes or block.point is not None:
            return
        header = self._inputs.slice(block.bit_offset >> 3, (block.bit_offset >> 3) + 6)
        if len(header) < 6:
            return
        kind = header[0] >> (block.bit_offset & 7) | header[1] << (8 - (block.bit_offset & 7))
        if kind >> 1 & 3:
            return
        # The two lengths begin at the first whole byte after three bits.
        skipped_bytes = ((block.bit_offset & 7) + 3 + 7) >> 3
        length = int.from_bytes(header[skipped_bytes : skipped_bytes + 2], "little")
        passed_bytes = here - block.output_offset
        first_byte = (block.bit_offset >> 3) + skipped_bytes + 4
        if 0 < passed_bytes < length and self.consumed == first_byte + passed_bytes:
            self._boundaries.append(
                Boundary(
                    bit_offset=self.consumed * 8,
                    output_offset=here,
                    stored_left_bytes=length - passed_bytes,
                    stored_is_last=bool(kind & 1),
                )
            )

    def _is_known(self, boundary: Boundary, here: int) -> bool:
        assert boundary.needed_from is not None
        skip_bytes = usable_skip_bytes(boundary.needed_from - boundary.output_offset)
        return here >= boundary.output_offset + skip_bytes + WINDOW_BYTES

    def _point_of(self, boundary: Boundary) -> SeekPoint:
        needed_from = boundary.output_offset if boundary.needed_from is None else boundary.needed_from
        skip_bytes = usable_skip_bytes(needed_from - boundary.output_offset)
        first_byte = boundary.bit_offset >> 3
        compressed = self._inputs.slice(first_byte, first_byte + input_bytes_for(skip_bytes + WINDOW_BYTES))
        window = self._outputs.slice(boundary.output_offset - WINDOW_BYTES, boundary.output_offset)
        head = stand_in(
            boundary.bit_offset, boundary.stored_left_bytes, boundary.stored_is_last, compressed[0] if compressed else 0
        )
        # At the archive's beginning there is less than a window before.
        window = bytes(WINDOW_BYTES - len(window)) + window
        end = boundary.output_offset + skip_bytes + WINDOW_BYTES
        output = self._outputs.slice(boundary.output_offset, end)
        places = copied_places(head + compressed[1:], window, output, skip_bytes)
        return SeekPoint(
            bit_offset=boundary.bit_offset,
            output_offset=boundary.output_offset,
            stored_left_bytes=boundary.stored_left_bytes,
            stored_is_last=boundary.stored_is_last,
            places=places,
            values=np.frombuffer(window, np.uint8)[places].tobytes(),
        )

    def _forget(self, here: int) -> None:
        """Let go of bytes around places that are worked out; work out those that would hold too many."""
        input_floor = self._inputs.end
        output_floor = here
        for boundaries in (self._asked, self._boundaries):
            for boundary in boundaries:
                if boundary.point is not None:
                    continue
                age_bytes = max(here - boundary.output_offset, self.consumed - (boundary.bit_offset >> 3))
                if age_bytes > _LONGEST_MEMORY_BYTES:
                    self.work_out(boundary)
                    continue
                input_floor = min(input_floor, boundary.bit_offset >> 3)
                output_floor = min(output_floor, boundary.output_offset)
                break
        # A boundary can begin in the last byte that was consumed.
        self._inputs.drop_before(min(input_floor, self.consumed - 1))
        self._outputs.drop_before(output_floor - WINDOW_BYTES)
