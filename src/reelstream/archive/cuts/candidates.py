"""Places where decompression could begin: told from the bytes alone, fast, with few false ones and none left out.

Three kinds of places say what they are: a gzip header by its magic; a stored block by its length, which is followed by
the length's complement (RFC 1951, 3.2.4); a block with its own codes by the code lengths of its code length code, which
must be complete (3.2.7). Blocks with the fixed codes say nothing of themselves and are not looked for, nor are last
blocks of a gzip member, which only its end can follow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LOOKAHEAD_BYTES = 24
"""As far behind a place as one must see to tell."""

_GZIP_MAGIC = b"\x1f\x8b\x08"
_NUM_CODE_LENGTHS = 19
_FIRST_LENGTH_BIT = 17  # 3 bits of block header, 5 + 5 + 4 bits of counts
_COMPLETE = 128  # a code of at most 7 bits is complete where the 2^(7 - length) of its symbols add up to this


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """A place at which decompression could begin."""

    bit: int
    """Where it lies, in bits."""
    is_member: bool = False
    """Whether a gzip header is there, rather than a block."""

    @property
    def byte(self) -> int:
        """The byte in which it begins."""
        return self.bit >> 3


def landmarks(buffer: memoryview, first_byte: int, end_byte: int) -> list[Candidate]:
    """Return the gzip headers and the stored blocks in [first_byte, end_byte), ascending."""
    members = [Candidate(8 * place, is_member=True) for place in gzip_members(buffer, first_byte, end_byte)]
    return sorted(members + [Candidate(bit) for bit in stored_blocks(buffer, first_byte, end_byte)])


def gzip_members(buffer: memoryview, first_byte: int, end_byte: int) -> list[int]:
    """Return the bytes in [first_byte, end_byte) at which a gzip header could begin, ascending."""
    found = []
    data = bytes(buffer[first_byte : end_byte + 3])
    place = data.find(_GZIP_MAGIC)
    while 0 <= place < end_byte - first_byte:
        if len(data) > place + 3 and data[place + 3] & 0xE0 == 0:  # reserved flags
            found.append(first_byte + place)
        place = data.find(_GZIP_MAGIC, place + 1)
    return found


def stored_blocks(buffer: memoryview, first_byte: int, end_byte: int) -> list[int]:
    """Return the bits of bytes in [first_byte, end_byte) at which a stored block could begin, ascending.

    Its three bits are followed by padding up to a byte's end. Wherever they begin, the last three bits before that end
    are zeros, if padding is: so bit 5 of the byte before the length serves as the block's beginning.
    """
    data = np.frombuffer(buffer[first_byte : end_byte + 4], np.uint8)
    if len(data) < 5:
        return []
    # A byte and its complement, two bytes further on, twice.
    hits = (data[1:-3] ^ data[3:-1] == 0xFF) & (data[2:-2] ^ data[4:] == 0xFF) & (data[:-4] < 0x20)
    return [(first_byte + int(place)) * 8 + 5 for place in np.nonzero(hits)[0]]


def dynamic_blocks(buffer: memoryview, first_byte: int, end_byte: int) -> list[int]:
    """Return the bits in [8 * first_byte, 8 * end_byte) at which a block with codes of its own could begin, ascending.

    A place too near the end of the buffer to tell is none.
    """
    end_byte = min(end_byte, len(buffer) - LOOKAHEAD_BYTES)
    if end_byte <= first_byte:
        return []
    num_bytes = end_byte - first_byte
    data = np.frombuffer(buffer[first_byte : end_byte + LOOKAHEAD_BYTES], np.uint8).astype(np.uint64)
    # words[i]: the eight bytes from i on.
    words = np.zeros(num_bytes + 8, np.uint64)
    for byte in range(8):
        words |= data[byte : byte + num_bytes + 8] << np.uint64(8 * byte)
    places = [_dynamic_blocks_at(words, bit) for bit in range(8)]
    return sorted(int(place) for place in np.concatenate(places) + 8 * first_byte)


def _dynamic_blocks_at(words: npt.NDArray[np.uint64], bit: int) -> npt.NDArray[np.int64]:
    """Return the places, in bits, of the blocks that begin at bit `bit` of a byte."""
    # The 32 bits from `bit` on, in which the block's three bits and its counts lie.
    header = (words[:-8] >> np.uint64(bit)).astype(np.uint32)
    possible = header & 0b111 == 0b100  # not the last one, dynamic
    possible &= header & 0b11111 << 3 <= 29 << 3  # at most 286 literal and length codes
    possible &= header & 0b11111 << 8 <= 29 << 8  # at most 30 distance codes
    places = np.nonzero(possible)[0]
    num_lengths = (header[places] >> 13 & 15) + 4
    low, high = words[places], words[places + 8]
    total = np.zeros(len(places), np.int64)
    for number in range(_NUM_CODE_LENGTHS):
        at = bit + _FIRST_LENGTH_BIT + 3 * number
        if at + 3 <= 64:
            length = low >> np.uint64(at)
        elif at < 64:
            length = low >> np.uint64(at) | high << np.uint64(64 - at)
        else:
            length = high >> np.uint64(at - 64)
        length = (length & np.uint64(7)).astype(np.int64)
        total += np.where((number < num_lengths) & (length > 0), _COMPLETE >> length, 0)
    found: npt.NDArray[np.int64] = places[total == _COMPLETE] * 8 + bit
    return found
