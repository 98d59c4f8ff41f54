"""A raw inflater that begins at any bit, with a window that is made up.

Deflate blocks begin at any bit of a byte, and zlib takes whole bytes only. (`inflatePrime` would help, but the standard
library does not offer it.) Empty blocks, whose lengths add up to the number of bits to pass over, put in front of the
rest of the first byte do the same: an empty fixed block is 10 bits long, an empty dynamic one 91 (RFC 1951, 3.2.6-7).

Which bytes of the unknown window does the output contain? Inflate twice, with windows that differ in every byte: where
the outputs differ, a byte came from the window. A third window tells which: `LOW_MARKS` and `HIGH_MARKS` hold the low
and the high byte of each place.
"""

from __future__ import annotations

import zlib

WINDOW_BYTES = 1 << 15
"""As far as deflate looks back."""

LOW_MARKS = bytes(place & 0xFF for place in range(WINDOW_BYTES))
"""A window whose bytes are the low bytes of their places."""

INVERSE_MARKS = bytes(0xFF - mark for mark in LOW_MARKS)
"""A window that differs from `LOW_MARKS` in every byte."""

HIGH_MARKS = bytes(place >> 8 for place in range(WINDOW_BYTES))
"""A window whose bytes are the high bytes of their places."""

_CODE_LENGTH_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1)


def _joined(*fields: tuple[int, int]) -> tuple[int, int]:
    """Join (value, number of bits) fields, the first one lowest, as deflate packs them."""
    value = num_bits = 0
    for field, width in fields:
        value |= field << num_bits
        num_bits += width
    return value, num_bits


_EMPTY_FIXED = _joined((0, 1), (1, 2), (0, 7))
_EMPTY_DYNAMIC = _joined(
    *((0, 1), (2, 2)),  # not final, dynamic
    *((0, 5), (0, 5), (14, 4)),  # 257 literal codes, 1 distance code, 18 code lengths
    *((int(symbol in (1, 18)), 3) for symbol in _CODE_LENGTH_ORDER),  # "length 1" is bit 0, "many zeros" is bit 1
    (0, 1),  # literal 0 has a code of one bit
    *((1, 1), (138 - 11, 7)),  # literals 1 to 138 have none
    *((1, 1), (117 - 11, 7)),  # literals 139 to 255 have none
    *((0, 1), (0, 1)),  # the end of a block and distance 1 have codes of one bit
    (1, 1),  # the end of the block
)


def aligned_byte(first_byte: int, bit: int) -> bytes:
    """Return what to feed a raw inflater instead of an archive's byte, so that it begins at bit `bit` of it.

    Args:
        first_byte: The byte's value.
        bit: The bits of it that belong to what came before, 0 to 7.

    Returns:
        The byte itself, or up to 16 bytes that end in its upper bits. They add nothing to the output.
    """
    value, num_bits = _EMPTY_DYNAMIC if bit & 1 else (0, 0)
    while num_bits % 8 != bit:
        value |= _EMPTY_FIXED[0] << num_bits
        num_bits += _EMPTY_FIXED[1]
    return (value | first_byte >> bit << num_bits).to_bytes((num_bits + 8 - bit) // 8, "little")


def raw_inflater(window: bytes = b"") -> zlib._Decompress:
    """Return an inflater of raw deflate data that came after `window`, at most `WINDOW_BYTES` long."""
    return zlib.decompressobj(-zlib.MAX_WBITS, zdict=window)
