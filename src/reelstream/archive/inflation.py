"""Decompression that begins at a gzip header, or at a deflate block inside a gzip member, after a window of choice.

A gzip's frame is read by hand (RFC 1952), since zlib can't check the checksum of a gzip member that was entered in its
middle: whoever has its other pieces can, and needs what its end says.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from reelstream.archive.alignment import aligned_byte, raw_inflater

_FRAME_MAGIC = b"\x1f\x8b\x08"
_TRAILER_BYTES = 8
_HAS_CHECKSUM, _HAS_EXTRA, _HAS_NAME, _HAS_COMMENT, _RESERVED = 0x02, 0x04, 0x08, 0x10, 0xE0
# Name, comment and extra field are short; who claims more is no gzip header.
_LARGEST_FRAME_HEADER_BYTES = 1 << 17


@dataclass(frozen=True, slots=True, kw_only=True)
class GzipTrailer:
    """What the end of a gzip member says of it."""

    crc32: int
    """The checksum of all its output, as its writer says."""
    size_bytes: int
    """Its output's size modulo 2³², as its writer says."""


class Inflation:
    """A decompression to which compressed bytes are given, and from which output is taken piece by piece.

    Args:
        window: None to begin at a gzip header; else what came before the deflate block to begin at.
        bit: The bit of the first byte at which that block begins.
        stand_in: What to feed instead of the first byte, where that is not for `bit` to say (inside a stored block).
        position: What `position` begins at.

    Raises (from `inflate`):
        zlib.error: Where the bytes are not what must come.
    """

    def __init__(
        self,
        window: bytes | None = None,
        *,
        bit: int = 0,
        stand_in: Callable[[int], bytes] | None = None,
        position: int = 0,
    ) -> None:
        if stand_in is None and bit:
            stand_in = functools.partial(aligned_byte, bit=bit)
        self._stand_in = stand_in
        self._given = b""
        self._maybe_pending = False
        self._is_inside = window is not None  # of deflate data, rather than of a frame
        self._in_trailer = False
        self._members = 0
        self.position = position
        """Bytes of output so far."""
        self.ends: list[tuple[int, GzipTrailer]] = []
        """The gzip members that ended, and where in the output; the user takes them out."""
        if window is not None:
            self._begin_data(window)

    @property
    def hungry(self) -> bool:
        """Whether nothing more comes out before more is given."""
        return not self._maybe_pending

    @property
    def between_members(self) -> bool:
        """Whether the file may end here."""
        return not self._is_inside and not self._in_trailer and not self._given and self._members > 0

    def give(self, compressed: memoryview | bytes) -> None:
        """Add compressed bytes to those not used yet; only while `hungry`."""
        if self._stand_in is not None and compressed:
            compressed = self._stand_in(compressed[0]) + bytes(compressed[1:])
            self._stand_in = None
        self._given = self._given + bytes(compressed) if self._given else bytes(compressed)
        self._maybe_pending = True

    def inflate(self, most_bytes: int) -> bytes:
        """Return the next output, at most `most_bytes`; it may be empty although more is to come (see `hungry`)."""
        if not self._is_inside:
            self._maybe_pending = self._take_trailer() if self._in_trailer else self._take_header()
            return b""
        piece = self._decompress(most_bytes)
        self.position += len(piece)
        return piece

    def close(self) -> None:
        """Give memory back at once, where it isn't Python's own; it can be called twice."""

    def _decompress(self, most_bytes: int) -> bytes:
        """Return output of the gzip member; say whether more may be pending, and where the member's data end."""
        piece = self._inflater.decompress(self._given, most_bytes)
        self._given = self._inflater.unconsumed_tail
        # Output may be waiting inside although all input is consumed.
        self._maybe_pending = bool(self._given) or len(piece) == most_bytes
        if self._inflater.eof:
            self._end_data(self._inflater.unused_data)
        return piece

    def _begin_data(self, window: bytes = b"") -> None:
        """Begin to inflate a gzip member's data."""
        self._inflater = raw_inflater(window)

    def _end_data(self, rest: bytes) -> None:
        """The last block was passed; `rest` follows it."""
        self._given = rest
        self._is_inside = False
        self._in_trailer = self._maybe_pending = True

    def _take_trailer(self) -> bool:
        if len(self._given) < _TRAILER_BYTES:
            return False
        trailer, self._given = self._given[:_TRAILER_BYTES], self._given[_TRAILER_BYTES:]
        crc32, size_bytes = int.from_bytes(trailer[:4], "little"), int.from_bytes(trailer[4:], "little")
        self.ends.append((self.position, GzipTrailer(crc32=crc32, size_bytes=size_bytes)))
        self._members += 1
        self._in_trailer = False
        return True

    def _take_header(self) -> bool:
        if self._members:
            self._given = self._given.lstrip(b"\0")  # padding between gzip members
        size_bytes = frame_header_bytes(self._given)
        if size_bytes is None:
            return False
        self._given = self._given[size_bytes:]
        self._is_inside = True
        self._begin_data()
        return True


def frame_header_bytes(start: bytes) -> int | None:
    """Return the size of the gzip header that `start` begins with; None where more is needed to tell.

    Raises:
        zlib.error: Where it is no gzip header.
    """
    if not _FRAME_MAGIC.startswith(start[:3]) or (len(start) > 3 and start[3] & _RESERVED):
        raise zlib.error("no gzip header where one must be")
    if len(start) < 10:
        return None
    flags, end = start[3], 10
    if flags & _HAS_EXTRA:
        if len(start) < end + 2:
            return None
        end += 2 + int.from_bytes(start[end : end + 2], "little")
    for flag in (_HAS_NAME, _HAS_COMMENT):
        if flags & flag:
            end = start.find(b"\0", end) + 1
            if end == 0:
                if len(start) > _LARGEST_FRAME_HEADER_BYTES:
                    raise zlib.error("no gzip header where one must be")
                return None
    end += 2 if flags & _HAS_CHECKSUM else 0
    return end if len(start) >= end else None
