"""Stream an archive's members, and learn its index in the same pass.

Nothing is read twice and nothing is sought: the compressed bytes come once, from front to back. The price is a digest
of each member's bytes, a few stops before each member's end, and two short decompressions a seek point.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tarfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from reelstream.archive.gunzip import GunzipReader
from reelstream.archive.seek.block_reader import BlockReader, Boundary
from reelstream.archive.seek.index import (
    DIGEST_BYTES,
    ArchiveIdentity,
    ArchiveIndex,
    IndexBuilder,
    IndexRow,
    MemberKind,
    Verification,
)
from reelstream.archive.seek.inflate import BlockInflation, block_inflation
from reelstream.archive.tar import Member, member_of, printable_name, read_members, walk_headers
from reelstream.errors import ArchiveChecksumError, ArchiveError

# Small members share a point: a point costs some 0.4 ms and 100 bytes.
_LEAST_SPACING_BYTES = 1 << 18

# A large member has a point of its own unless the last one is this near, as a share of its size.
_LARGE_MEMBER_BYTES = 1 << 20
_LARGE_MEMBER_SHARE = 128


@dataclass(slots=True, kw_only=True)
class _DigestedMember(Member):
    """A member whose digest is made of the bytes as they pass."""

    _digest: Any = field(repr=False, default_factory=hashlib.sha256)

    def chunks(self) -> Iterator[memoryview]:
        """Yield the member's bytes, as `Member.chunks`."""
        # Not `super()`: a dataclass with slots is another class than the one that this function was defined in.
        for some in Member.chunks(self):
            self._digest.update(some)
            yield some

    def finish(self) -> bytes:
        """Pass over what was not read; return the digest of all of it."""
        for _ in self.chunks():
            pass
        return bytes(self._digest.digest()[:DIGEST_BYTES])


@dataclass(frozen=True, slots=True, kw_only=True)
class _UnfinishedRow:
    """A row whose seek point is not yet worked out."""

    fields: dict[str, Any]
    boundary: Boundary


class IndexingPass:
    """One pass over a tar.gz that comes as chunks, from front to back.

    Where the platform's zlib cannot be called so that it tells where blocks begin, members are streamed all the same,
    and `problem` says why there is no index.

    Args:
        chunks: The compressed bytes. Whatever iterating raises passes through.
        path: Names the archive in errors.
        sha256: Hex digest of the whole file, where its publisher names one: it is computed and compared at the end,
            which costs a tenth of the speed or more.
        inflation: What to decompress with; the fastest one that is found here, unless told.
    """

    def __init__(
        self, chunks: Iterator[bytes], path: str, *, sha256: str | None = None, inflation: BlockInflation | None = None
    ) -> None:
        inflation = block_inflation() if inflation is None else inflation
        self._path = path
        self._sha256 = sha256
        if sha256 is not None:
            chunks = _checked(chunks, path, sha256)
        self._reader: GunzipReader = (
            GunzipReader(chunks, path) if inflation.library is None else BlockReader(chunks, path, inflation.library)
        )
        self._boundary: Boundary | None = None
        self._unfinished: deque[_UnfinishedRow] = deque()
        self._finished: list[IndexRow] = []
        self._builder = IndexBuilder()
        self.problem = inflation.problem
        """Why no index is learned; empty where one is."""
        self.verification = Verification.PROVISIONAL
        """What is known of the bytes so far: nothing, before the end."""
        self.complete = False
        """Whether the tar was listed to its end."""

    def members(self) -> Iterator[Member]:
        """Yield the members as `read_members` does; can be called once.

        Raises:
            ArchiveError: Where the tar or the gzip is damaged or cut short. It is raised after the rest was read for
                its checksum; the rows so far stay.
            ArchiveChecksumError: At the end, where a checksum or the file's SHA-256 does not match.
        """
        reader = self._reader
        try:
            if isinstance(reader, BlockReader):
                yield from self._indexed_members(reader)
            else:
                yield from read_members(reader, self._path)
            self.complete = True
        except ArchiveError:
            self.verification = Verification.FAILED
            raise
        finally:
            # A tar that is damaged can be what was packed, all the same.
            if reader.at_end:
                self.verification = Verification.CHECKSUM if self._sha256 is None else Verification.SHA256

    def take_rows(self) -> list[IndexRow]:
        """Return the rows that became known since the last call, in the order of the archive.

        A row is known once its member has passed and, at most 300 KiB further on, it is clear what its seek point
        needs. It is provisional until the pass ends well.
        """
        rows, self._finished = self._finished, []
        return rows

    def index(self, *, size_bytes: int | None = None, etag: str | None = None) -> ArchiveIndex:
        """Return the index as far as it is known.

        Args:
            size_bytes: The archive's size; needed where the pass has not ended.
            etag: The server's tag of this version of the file.
        """
        identity = ArchiveIdentity(
            size_bytes=self._reader.compressed_position if size_bytes is None else size_bytes,
            sha256=self._sha256,
            etag=etag,
        )
        return self._builder.build(identity, self.verification, complete=self.complete)

    def _indexed_members(self, reader: BlockReader) -> Iterator[Member]:
        def expect_header(offset: int) -> bool:
            reader.stop_at(offset)
            return False

        try:
            for info, next_header in walk_headers(reader, self._path, ends_at=expect_header):
                reader.stop_at(next_header)
                boundary = self._boundary_for(info, reader)
                member = _digested(member_of(info, reader))
                yield member
                digest = member.finish()
                # Not the last byte of the padding: that is where a tar that was cut short is found out.
                reader.skip(max(0, next_header - 1 - reader.position))
                self._note(info, member, digest, boundary, reader.consumed)
                self._collect()
        finally:
            reader.work_out_asked()
            reader.close()
            self._collect()

    def _boundary_for(self, info: tarfile.TarInfo, reader: BlockReader) -> Boundary:
        """Return where a member will be read from: the last boundary that is used already, if that is near enough."""
        found = reader.boundary_before(info.offset)
        spacing_bytes = info.size // _LARGE_MEMBER_SHARE if info.size >= _LARGE_MEMBER_BYTES else _LEAST_SPACING_BYTES
        if self._boundary is None or found.output_offset - self._boundary.output_offset >= spacing_bytes:
            reader.ask(found, info.offset_data)
            self._boundary = found
        return self._boundary

    def _note(
        self, info: tarfile.TarInfo, member: Member, digest: bytes, boundary: Boundary, compressed_end: int
    ) -> None:
        if member.problem is not None and not info.islnk():
            return
        fields = {
            "name": member.name,
            "kind": MemberKind.HARD_LINK if info.islnk() else MemberKind.REGULAR,
            "size_bytes": member.size_bytes,
            "header_offset": info.offset,
            "data_offset": info.offset_data,
            "compressed_end": compressed_end,
            "digest": digest,
            "link_target": printable_name(info.linkname) if info.islnk() else None,
        }
        self._unfinished.append(_UnfinishedRow(fields=fields, boundary=boundary))

    def _collect(self) -> None:
        """Finish the rows whose points are known by now."""
        while self._unfinished and (point := self._unfinished[0].boundary.point) is not None:
            row = IndexRow(**self._unfinished.popleft().fields, point=point)
            self._finished.append(row)
            self._builder.add(row)


def _digested(member: Member) -> _DigestedMember:
    return _DigestedMember(**{name.name: getattr(member, name.name) for name in dataclasses.fields(member)})


def _checked(chunks: Iterator[bytes], path: str, sha256: str) -> Iterator[bytes]:
    """Pass chunks on; after the last one, refuse a file that is not the published one."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != sha256:
        raise ArchiveChecksumError(
            f"{path}: its SHA-256 is {digest.hexdigest()}, and the published one {sha256}",
            "bytes were damaged on the way; what came from it may be wrong",
        )
