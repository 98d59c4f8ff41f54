"""Places of a gzip file from which it can be read without what comes before, kept in some tens of bytes each.

A reader that begins inside a gzip file needs the 32 KiB of output before that place, since deflate copies from there.
Of these only the bytes that are really copied matter: next to none in media, which do not repeat themselves. They are
found by inflating from the place twice, with two made-up windows that differ in every byte and tell every place apart
by the pair of their bytes: an output byte that differs was copied, perhaps in several steps, from the place that its
pair names.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reelstream.archive.alignment import LOW_MARKS, WINDOW_BYTES, aligned_byte, raw_inflater

_PLACES = np.arange(WINDOW_BYTES, dtype=np.uint16)
# The second mark less the first one, modulo 256, is 1 + the high byte of the place: never 0.
_SECOND_MARKS = ((_PLACES & 0xFF) + 1 + (_PLACES >> 8)).astype(np.uint8).tobytes()

# What is looked back for is found within a window's length of output, unless the first bytes are needed much later.
_FARTHEST_SKIP_BYTES = 1 << 18

Places = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeekPoint:
    """Where reading can begin, and what must be known of the output before.

    The window is always 32 KiB long and ends where the point is; bytes that are not kept are never copied to an output
    that is needed, and stand as zeros.
    """

    bit_offset: int
    """The compressed bit that is read first: a deflate block's first one, or the next byte's of a stored block."""
    output_offset: int
    """The decompressed offset of what comes out first."""
    stored_left_bytes: int
    """0 at a block's beginning; inside a stored block, how many bytes of it are left."""
    stored_is_last: bool
    """Whether that stored block is its gzip stream's last one."""
    places: Places
    """Which bytes of the window are kept, ascending."""
    values: bytes
    """The kept bytes, in the same order."""

    @property
    def first_byte(self) -> int:
        """The first compressed byte that must be read."""
        return self.bit_offset >> 3

    def window(self) -> bytes:
        """Return the 32 KiB before the point, as far as they are needed."""
        window = np.zeros(WINDOW_BYTES, np.uint8)
        window[self.places] = np.frombuffer(self.values, np.uint8)
        return window.tobytes()

    def stand_in(self, first_byte: int) -> bytes:
        """Return what a raw inflater is fed instead of the first compressed byte, whose value is given."""
        return stand_in(self.bit_offset, self.stored_left_bytes, self.stored_is_last, first_byte)


def stand_in(bit_offset: int, stored_left_bytes: int, stored_is_last: bool, first_byte: int) -> bytes:
    """Return what a raw inflater is fed instead of the byte at a point; the arguments are a point's and that byte."""
    if not stored_left_bytes:
        return aligned_byte(first_byte, bit_offset & 7)
    inverse = stored_left_bytes ^ 0xFFFF
    header = bytes([stored_is_last]) + stored_left_bytes.to_bytes(2, "little") + inverse.to_bytes(2, "little")
    return header + bytes([first_byte])


def most_input_bytes(skip_bytes: int) -> int:
    """Return how many compressed bytes after a point `copied_places` looks at."""
    # Deflate makes nothing much larger, unless its writer wants to.
    return 2 * (skip_bytes + WINDOW_BYTES)


def usable_skip_bytes(skip_bytes: int) -> int:
    """Return how many of the first output bytes can be left out of account: 0 where finding out would cost too much."""
    return skip_bytes if skip_bytes <= _FARTHEST_SKIP_BYTES else 0


def copied_places(compressed: Sequence[bytes], skip_bytes: int) -> Places:
    """Return which bytes of the window the output copies, ascending.

    Args:
        compressed: What a raw inflater is fed, `stand_in` first.
        skip_bytes: How many of the first output bytes are not needed; what only they copy is left out.

    Returns:
        The places, 0 to 32767. All of them, where the compressed bytes do not suffice to know.
    """
    wanted_bytes = skip_bytes + WINDOW_BYTES
    data = b"".join(compressed)
    outputs = []
    for marks in (LOW_MARKS, _SECOND_MARKS):
        inflater = raw_inflater(marks)
        try:
            output = inflater.decompress(data, wanted_bytes)
        except zlib.error:
            return _PLACES
        if len(output) < wanted_bytes and not inflater.eof:
            return _PLACES
        # Each later copy of a window's byte has a copy of it within any window's length of output.
        outputs.append(np.frombuffer(output, np.uint8)[skip_bytes:])
    low, second = outputs
    difference = second - low
    copied = np.flatnonzero(difference)
    found: Places = np.unique((difference[copied] - np.uint8(1)).astype(np.uint16) << 8 | low[copied])
    return found
