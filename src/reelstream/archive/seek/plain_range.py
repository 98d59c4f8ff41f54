"""Members that lie outside a gzip stream: as they are, or each deflated by itself behind a zip's local header.

A zip says most things twice, in its directory and before each member. The directory's word counts, as every unpacker
has it; the local header is read for what only it knows: how long it is.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from reelstream.archive.seek.index import Coding, IndexRow
from reelstream.errors import ArchiveError

_PIECE_BYTES = 1 << 18
# Small, since zlib copies the rest of its input at each step.
_INPUT_BYTES = 1 << 16

# Signature, then flags and method; at the end the lengths of the name and of the extra fields.
_LOCAL_HEADER = struct.Struct("<4s2xHH16xHH")
_SIGNATURE = b"PK\x03\x04"
_ENCRYPTED = 1
_METHODS = {Coding.ZIP_STORED: 0, Coding.ZIP_DEFLATED: 8}

_HINT = "delete what is kept of its places, so that they are learned anew; if it fails again, the archive was changed"


class PlainRange:
    """Reads members, in the order they lie, out of one range.

    Args:
        chunks: The range's bytes.
        first_byte: Where it begins.
        path: Names the archive in errors.
    """

    def __init__(self, chunks: Iterator[bytes], first_byte: int, path: str) -> None:
        self._chunks = chunks
        self._piece = memoryview(b"")
        self._position = first_byte
        self._path = path

    def member(self, row: IndexRow) -> Iterator[memoryview]:
        """Yield a member's bytes, at most 256 KiB at a time; of these not one more than its row says.

        Raises:
            ArchiveError: Where the range ends too early, or holds something else than the row says.
        """
        self._skip(row.first_byte - self._position, row.name)
        if row.coding.is_in_zip:
            self._pass_local_header(row)
        pieces = self._inflated(row) if row.coding is Coding.ZIP_DEFLATED else self._stored(row)
        yield from pieces

    def _stored(self, row: IndexRow) -> Iterator[memoryview]:
        left = row.size_bytes
        while left:
            some = self._take(min(left, _PIECE_BYTES), row.name)
            left -= len(some)
            yield some

    def _inflated(self, row: IndexRow) -> Iterator[memoryview]:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        left = row.size_bytes
        while left:
            # What one step could not put out stays inside, with or without input that waits.
            given = inflater.unconsumed_tail or self._take(self._input_bytes(row), row.name)
            try:
                piece = inflater.decompress(given, min(left, _PIECE_BYTES))
                while piece:
                    left -= len(piece)
                    yield memoryview(piece)
                    given = inflater.unconsumed_tail
                    piece = inflater.decompress(given, min(left, _PIECE_BYTES)) if left else b""
            except zlib.error as error:
                raise ArchiveError(
                    f"{self._path}: the deflate data of {row.name} are damaged ({error})", _HINT
                ) from error
            if left and inflater.eof:
                raise ArchiveError(f"{self._path}: {row.name} has {left:,} bytes less than its directory says", _HINT)

    def _input_bytes(self, row: IndexRow) -> int:
        """Return how much may be taken: never beyond the row's end, where the next member begins."""
        return max(0, min(row.compressed_end - self._position, _INPUT_BYTES))

    def _pass_local_header(self, row: IndexRow) -> None:
        header = b""
        while len(header) < _LOCAL_HEADER.size:
            header += self._take(_LOCAL_HEADER.size - len(header), row.name)
        signature, flags, method, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        if signature != _SIGNATURE or method != _METHODS[row.coding] or flags & _ENCRYPTED:
            raise ArchiveError(f"{self._path}: where {row.name} must begin, there is no such member", _HINT)
        self._skip(name_bytes + extra_bytes, row.name)

    def _skip(self, size_bytes: int, name: str) -> None:
        if size_bytes < 0:
            raise ArchiveError(f"{self._path}: the index names members that overlap, up to {name}", _HINT)
        while size_bytes:
            size_bytes -= len(self._take(size_bytes, name))

    def _take(self, most_bytes: int, name: str) -> memoryview:
        """Return at least one and at most `most_bytes` bytes."""
        if not self._piece:
            self._piece = memoryview(next(self._chunks, b""))
        some, self._piece = self._piece[:most_bytes], self._piece[most_bytes:]
        if not some:
            raise ArchiveError(f"{self._path}: its bytes end before its member {name} does", _HINT)
        self._position += len(some)
        return some
