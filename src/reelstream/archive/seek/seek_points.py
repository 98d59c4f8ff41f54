"""Places of a gzip file from which it can be read without what comes before, kept in some tens of bytes each.

A reader that begins inside a gzip file needs the 32 KiB of output before that place, since deflate copies from there.
Of these only the bytes that are really copied matter: next to none in media, which do not repeat themselves. They are
found by inflating from the place once more, with a window whose every byte is changed: an output byte that changes was
copied from there, perhaps in several steps. A second time, with other changes, tells from which place of the window.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reelstream.archive.alignment import LOW_MARKS, WINDOW_BYTES, aligned_byte, raw_inflater
from reelstream.types import UInt8Array

Places = npt.NDArray[np.uint16]

_PLACES: Places = np.arange(WINDOW_BYTES, dtype=np.uint16)
# What a place's byte is changed by: never by 0, and no two places by the same pair.
_CHANGES = (_PLACES % 255 + 1).astype(np.uint8), (_PLACES // 255 + 1).astype(np.uint8)

# What is looked back for is found within a window's length of output, unless the first bytes are needed much later.
_FARTHEST_SKIP_BYTES = 1 << 18


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


def unknown_before(bit_offset: int) -> SeekPoint:
    """Return the point of a block that nothing is known before: output is counted from it, and wrong at first."""
    return SeekPoint(
        bit_offset=bit_offset,
        output_offset=0,
        stored_left_bytes=0,
        stored_is_last=False,
        places=_PLACES,
        values=LOW_MARKS,
    )


def stand_in(bit_offset: int, stored_left_bytes: int, stored_is_last: bool, first_byte: int) -> bytes:
    """Return what a raw inflater is fed instead of the byte at a point; the arguments are a point's and that byte."""
    if not stored_left_bytes:
        return aligned_byte(first_byte, bit_offset & 7)
    inverse = stored_left_bytes ^ 0xFFFF
    header = bytes([stored_is_last]) + stored_left_bytes.to_bytes(2, "little") + inverse.to_bytes(2, "little")
    return header + bytes([first_byte])


def input_bytes_for(output_bytes: int) -> int:
    """Return how many compressed bytes nearly always hold that much output; others are looked into in vain."""
    # Deflate makes nothing much larger, unless its writer wants to.
    return output_bytes + (output_bytes >> 4) + 1024


def usable_skip_bytes(skip_bytes: int) -> int:
    """Return how many of the first output bytes can be left out of account: 0 where finding out would cost too much."""
    return skip_bytes if skip_bytes <= _FARTHEST_SKIP_BYTES else 0


def copied_places(compressed: bytes, window: bytes, output: bytes, skip_bytes: int) -> Places:
    """Return which bytes of the window the output copies, ascending.

    Args:
        compressed: What a raw inflater is fed, the stand-in first.
        window: The true 32 KiB before.
        output: What truly comes out: 32 KiB beyond what is skipped, less only where a gzip stream ends. (What is copied
            later, in several steps, is copied within any 32 KiB before.)
        skip_bytes: How many of the first output bytes are not needed; what only they copy is left out.

    Returns:
        The places, 0 to 32767. All of them, where the compressed bytes do not suffice to know.
    """
    wanted_bytes = skip_bytes + WINDOW_BYTES
    changes = _change(compressed, window, output, 0, wanted_bytes)
    if changes is None:
        return _PLACES
    copied = np.flatnonzero(changes[skip_bytes:]) + skip_bytes
    if not len(copied):
        return _PLACES[:0]
    # The second change tells the places apart that the first one is the same for.
    more_changes = _change(compressed, window, output, 1, int(copied[-1]) + 1)
    if more_changes is None:
        return _PLACES
    found: Places = np.unique((more_changes[copied].astype(np.uint16) - 1) * 255 + (changes[copied] - 1))
    return found


def _change(compressed: bytes, window: bytes, output: bytes, kind: int, wanted_bytes: int) -> UInt8Array | None:
    """Return how each output byte changes where each byte of the window is changed; None where that is not known."""
    inflater = raw_inflater((np.frombuffer(window, np.uint8) ^ _CHANGES[kind]).tobytes())
    try:
        changed = inflater.decompress(compressed, wanted_bytes)
    except zlib.error:
        return None
    if (len(changed) < wanted_bytes and not inflater.eof) or len(changed) > len(output):
        return None
    return np.frombuffer(changed, np.uint8) ^ np.frombuffer(output, np.uint8, count=len(changed))
