"""Read members out of an archive from one range of its compressed bytes, by their rows in its index.

The standard library's zlib is enough. An index that lies costs a failed digest, never memory: output is made 256 KiB at
a time, and never more of it than the range's own bytes can hold.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from reelstream.archive.seek.index import Coding, DigestKind, IndexRow, MemberKind
from reelstream.archive.seek.plain_range import PlainRange
from reelstream.archive.seek.row_kinds import Digester
from reelstream.archive.seek.seek_points import SeekPoint
from reelstream.archive.source import ByteSource
from reelstream.errors import ArchiveChecksumError, ArchiveError

_PIECE_BYTES = 1 << 18
# Small, since zlib copies the rest of its input at each step.
_INPUT_BYTES = 1 << 16
_GZIP_FORMAT = 16 + zlib.MAX_WBITS
_GZIP_TRAILER_BYTES = 8

_HINT = "delete what is kept of its places, so that they are learned anew; if it fails again, the archive was changed"


@dataclass(slots=True, kw_only=True)
class RangedMember:
    """One member that is being read from a range, whose bytes can be read once, until the next one is asked for."""

    row: IndexRow
    _path: str = field(repr=False)
    _pieces: Iterator[memoryview] = field(repr=False)

    def chunks(self) -> Iterator[memoryview]:
        """Yield the member's bytes, at most 256 KiB at a time; none of them is proven before the last one has passed.

        A row without a digest (`DigestKind.NONE`) proves its size only.

        Raises:
            ArchiveError: Where the range ends too early, or holds something else than the row says.
            ArchiveChecksumError: At the end, where the bytes are not those that the row was made of.
        """
        digester = Digester(self.row.digest_kind)
        for some in self._pieces:
            digester.update(some)
            yield some
        if digester.digest() != self.row.digest:
            made_of = (
                "its directory names" if self.row.digest_kind is DigestKind.CRC32 else "its index was learned from"
            )
            raise ArchiveChecksumError(
                f"{self._path}: the bytes of {self.row.name} are not those that {made_of}", _HINT
            )


def read_member(source: ByteSource, row: IndexRow) -> Iterator[memoryview]:
    """Yield the bytes of one member, from one range of the archive; for a hard link give `ArchiveIndex.holding`'s row.

    Raises:
        ArchiveError: As `RangedMember.chunks`.
        ArchiveChecksumError: As `RangedMember.chunks`.
    """
    for member in read_rows(source, [row]):
        yield from member.chunks()


def read_rows(source: ByteSource, rows: Sequence[IndexRow]) -> Iterator[RangedMember]:
    """Yield several members from the one range that holds them all, and what lies between them.

    Args:
        source: The archive's bytes.
        rows: Regular members of one index, in the order they lie in the archive.

    Raises (while the members are read):
        ArchiveError: As `RangedMember.chunks`.
        ArchiveChecksumError: As `RangedMember.chunks`.
    """
    assert all(row.kind is MemberKind.REGULAR for row in rows), "a hard link has no bytes of its own"
    assert all(before.data_offset <= row.data_offset for before, row in itertools.pairwise(rows)), "rows out of order"
    filled = [row for row in rows if row.size_bytes]
    chunks: Iterator[bytes] = iter(())
    point = rows[0].point if rows else None
    if filled:
        point = filled[0].point
        end_byte = min(filled[-1].compressed_end, source.size_bytes)
        if point.first_byte < end_byte:
            chunks = source.read(point.first_byte, end_byte)
    try:
        if point is not None:
            reader = _reader(chunks, rows[0].coding, point, source.path)
            for row in rows:
                yield RangedMember(
                    row=row, _path=source.path, _pieces=reader.member(row) if row.size_bytes else iter(())
                )
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()


def _reader(chunks: Iterator[bytes], coding: Coding, point: SeekPoint, path: str) -> _PointReader | PlainRange:
    if coding is Coding.DEFLATE_STREAM:
        return _PointReader(chunks, point, path)
    return PlainRange(chunks, point.first_byte, path)


class _PointReader:
    """The decompressed bytes from a seek point on, over gzip streams' ends, as far as the compressed ones reach."""

    def __init__(self, chunks: Iterator[bytes], point: SeekPoint, path: str) -> None:
        self._inputs = _small(_with_stand_in(chunks, point))
        self._path = path
        self._inflater: zlib._Decompress | None = zlib.decompressobj(-zlib.MAX_WBITS, zdict=point.window())
        self._is_raw = True
        self._left_of_trailer = 0
        self._compressed = b""
        self._maybe_pending = False
        self._piece = memoryview(b"")
        self._position = point.output_offset

    def member(self, row: IndexRow) -> Iterator[memoryview]:
        """Yield a member's bytes, at most 256 KiB at a time."""
        self.skip_to(row.data_offset, row.name)
        left = row.size_bytes
        while left:
            some = self.read_some(left, row.name)
            left -= len(some)
            yield some

    def skip_to(self, offset: int, name: str) -> None:
        """Pass over what lies before a decompressed offset."""
        while self._position < offset:
            self.read_some(offset - self._position, name)
        if self._position > offset:
            raise ArchiveError(f"{self._path}: the index names members that overlap, up to {name}", _HINT)

    def read_some(self, most_bytes: int, name: str) -> memoryview:
        """Return at least one and at most `most_bytes` bytes."""
        while not self._piece:
            try:
                more = self._advance()
            except zlib.error as error:
                raise ArchiveError(
                    f"{self._path}: where its index says that {name} lies, there are no deflate data ({error})", _HINT
                ) from error
            if not more:
                raise ArchiveError(f"{self._path}: its bytes end before its member {name} does", _HINT)
        some, self._piece = self._piece[:most_bytes], self._piece[most_bytes:]
        self._position += len(some)
        return some

    def _advance(self) -> bool:
        """Decompress one piece, or pass over a part of what lies between gzip streams; return False at the end."""
        if not self._compressed and not self._maybe_pending:
            self._compressed = next(self._inputs, b"")
            if not self._compressed:
                return False
        if self._inflater is None:
            trailer_bytes = min(self._left_of_trailer, len(self._compressed))
            self._left_of_trailer -= trailer_bytes
            self._compressed = self._compressed[trailer_bytes:]
            if not self._left_of_trailer:
                self._compressed = self._compressed.lstrip(b"\0")
            if not self._compressed:
                return True
            self._inflater = zlib.decompressobj(_GZIP_FORMAT)
        piece = self._inflater.decompress(self._compressed, _PIECE_BYTES)
        self._compressed = self._inflater.unconsumed_tail
        self._maybe_pending = len(piece) == _PIECE_BYTES
        if self._inflater.eof:
            self._compressed = self._inflater.unused_data
            self._inflater, self._maybe_pending = None, False
            # The checksum of a stream that was entered in its middle cannot be checked.
            self._left_of_trailer = _GZIP_TRAILER_BYTES if self._is_raw else 0
            self._is_raw = False
        self._piece = memoryview(piece)
        return True


def _with_stand_in(chunks: Iterator[bytes], point: SeekPoint) -> Iterator[bytes]:
    first = next(chunks, b"")
    if first:
        yield point.stand_in(first[0])
        yield first[1:]
        yield from chunks


def _small(chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), _INPUT_BYTES):
            yield chunk[start : start + _INPUT_BYTES]
