"""Gzip, decompressed on the fly from chunks of any size, with bounded memory.

Several gzip members in one file, and zero padding after one, are read as one stream (RFC 1952, section 2.2). A
checksum that does not match is told at the file's end, after everything that can be read: zlib itself would keep back
the output before it, and with it the last clip.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from reelstream.archive.checksum import crc32
from reelstream.archive.forward import ForwardReader
from reelstream.archive.inflation import Inflation
from reelstream.errors import ArchiveChecksumError, ArchiveError

# The most output of one step: bounds the memory that a decompression bomb can take.
_PIECE_BYTES = 1 << 18


class GunzipReader(ForwardReader):
    """The decompressed bytes of a gzip file, from front to back.

    Args:
        chunks: The compressed bytes. Whatever iterating raises passes through.
        path: Names the archive in errors.
        inflation: What to decompress with, at its beginning.

    Raises (from each method that reads):
        ArchiveError: Where the bytes are no gzip, or end too early.
        ArchiveChecksumError: At the end of the file, where the checksum or length of a gzip member in it is not that of
            its bytes.
    """

    def __init__(self, chunks: Iterator[bytes], path: str, inflation: Inflation | None = None) -> None:
        self._chunks = chunks
        self._path = path
        self._inflation = Inflation() if inflation is None else inflation
        self._crc32 = 0
        self._member_start = 0
        self._inflated_bytes = 0
        self._mismatch: ArchiveChecksumError | None = None
        self._piece = memoryview(b"")
        self._members = 0
        self.position = 0
        """Decompressed bytes handed out so far."""
        self.compressed_position = 0
        """Compressed bytes taken from the chunks so far."""
        self.at_end = False
        """Whether the file was read to a clean end, all its checksums right."""

    def read_some(self, most_bytes: int) -> memoryview:
        """Return at least one and at most `most_bytes` bytes, without a copy; none at the end of the file."""
        while not self._piece:
            if not self._advance():
                return memoryview(b"")
        some, self._piece = self._piece[:most_bytes], self._piece[most_bytes:]
        self.position += len(some)
        return some

    def _advance(self) -> bool:
        """Decompress one piece; return False at a clean end of the file."""
        inflation = self._inflation
        if inflation.hungry:
            chunk = next(self._chunks, b"")
            if not chunk:
                return self._end_of_input()
            self.compressed_position += len(chunk)
            inflation.give(chunk)
        try:
            piece = inflation.inflate(_PIECE_BYTES)
        except zlib.error as error:
            raise self._translated(error) from error
        self._crc32 = crc32(piece, self._crc32)
        self._inflated_bytes += len(piece)
        if inflation.ends:
            self._check_member()
        self._piece = memoryview(piece)
        return True

    def _check_member(self) -> None:
        """Compare what was decompressed with what the end of its gzip member says."""
        (_, trailer) = self._inflation.ends.pop()
        size_bytes = (self._inflated_bytes - self._member_start) & 0xFFFF_FFFF
        if (trailer.crc32, trailer.size_bytes) != (self._crc32, size_bytes) and self._mismatch is None:
            self._mismatch = self._wrong_checksum()
        self._members += 1
        self._crc32, self._member_start = 0, self._inflated_bytes

    def _end_of_input(self) -> bool:
        if self._inflation.between_members:
            if self._mismatch is not None:
                raise self._mismatch
            self.at_end = True
            return False
        raise ArchiveError(
            f"{self._path} is cut short: it ends after {self.compressed_position:,} bytes, inside a gzip stream",
            "the published file itself is incomplete; tell its publisher",
        )

    def _translated(self, error: zlib.error) -> ArchiveError:
        message = str(error)
        if self.position == 0 and self._members == 0:
            return ArchiveError(f"{self._path} is not a gzip file ({message})", "check what was published there")
        return ArchiveError(f"{self._where()}: the gzip data are damaged ({message})", "tell the archive's publisher")

    def _wrong_checksum(self) -> ArchiveChecksumError:
        return ArchiveChecksumError(
            f"{self._where()}: the gzip checksum does not match the bytes that were read",
            "bytes were damaged on the way or in the published file; what came from it may be wrong",
        )

    def _where(self) -> str:
        return f"{self._path}, before compressed byte {self.compressed_position:,}"
