"""Stream an archive's members, and learn its index in the same pass.

Nothing is read twice and nothing is sought: the compressed bytes come once, from front to back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from reelstream.archive.gunzip import GunzipReader
from reelstream.archive.seek.index import ArchiveIdentity, ArchiveIndex, IndexBuilder, IndexRow, Verification
from reelstream.archive.seek.inflate import BlockInflation, block_inflation
from reelstream.archive.seek.learning import RowLearner
from reelstream.archive.seek.noting import NotingInflation
from reelstream.archive.tar import Member, read_members, walk_headers
from reelstream.errors import ArchiveChecksumError, ArchiveError


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
        self._noting = None if inflation.library is None else NotingInflation(inflation.library)
        self._learner = None if self._noting is None else RowLearner(self._noting)
        self._reader = GunzipReader(chunks, path, self._noting)
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
            if self._learner is None:
                yield from read_members(reader, self._path)
            else:
                yield from self._indexed_members(self._learner)
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

    def _indexed_members(self, learner: RowLearner) -> Iterator[Member]:
        def expect_header(offset: int) -> bool:
            learner.expect_header(offset)
            return False

        try:
            for info, next_header in walk_headers(self._reader, self._path, ends_at=expect_header):
                yield from learner.pass_member(info, next_header, self._reader)
                self._collect(learner)
        finally:
            learner.finish()
            self._collect(learner)
            if self._noting is not None:
                self._noting.close()

    def _collect(self, learner: RowLearner) -> None:
        """Keep the rows whose points are known by now."""
        for row, _ in learner.take():
            self._finished.append(row)
            self._builder.add(row)


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
