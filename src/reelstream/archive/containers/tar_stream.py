"""Plain tar, read from front to back and indexed in passing: its members lie as they are."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from reelstream.archive.containers.container import Container
from reelstream.archive.containers.learned import learned_row
from reelstream.archive.containers.learning_stream import LearningStream
from reelstream.archive.containers.member import digested
from reelstream.archive.containers.plain_reader import PlainReader
from reelstream.archive.cuts.bookmark import Bookmark
from reelstream.archive.seek.index import Coding, IndexRow, MemberKind, Verification, plain_point
from reelstream.archive.source import ByteSource
from reelstream.archive.tar import Member, member_of, walk_headers
from reelstream.errors import ArchiveError


class TarStream(LearningStream):
    """Reads a plain tar; see `MemberStream`.

    A plain tar has no checksum of its contents. Where its publisher names a SHA-256 and it is read from its first byte,
    that is compared at the end; else its rows stay provisional, and each later read is held against what this pass saw.
    Something else than padding behind its end mark is an error: what looks like the end may be damage, and no checksum
    would tell.

    Args:
        container: The tar.
        source: Its bytes.
        learn: Whether to learn rows, which digests each member.
        resume: Where to go on, as a row's bookmark says.
    """

    def __init__(
        self, container: Container, source: ByteSource, *, learn: bool = True, resume: Bookmark | None = None
    ) -> None:
        first_byte = 0 if resume is None else resume.header_offset
        super().__init__(container, source, learn=learn, from_start=not first_byte)
        self._learns = learn
        if first_byte > source.size_bytes:
            raise ArchiveError(
                f"{source.path} ends before the place at which reading shall go on",
                "the saved state is of another archive, or damaged; go on from an older one",
            )
        self._reader = PlainReader(self._source, first_byte)

    def close(self) -> None:
        """Give up the range that is being read."""
        super().close()
        self._reader.close()

    def _listed(self) -> Iterator[Member]:
        reader = self._reader
        for info, _ in walk_headers(reader, self._source.path):
            member = member_of(info, reader)
            if not self._learns:
                yield member
                continue
            reader.begin_digest()
            yield digested(member, reader.digest)
            end_byte = info.offset_data + member.size_bytes
            reader.skip(end_byte - reader.position)
            digest = reader.digest()
            # A member that was cut short is found out at the next header, and is no row.
            is_row = member.problem is None or member.link_target is not None
            if is_row and reader.position == end_byte:
                self._learn(learned_row(_row(info, member, digest)))
        if not reader.only_zeros:
            raise ArchiveError(
                f"{self._source.path}: more than padding follows the end mark of the tar; what it is could not be "
                "listed",
                "tell the archive's publisher",
            )
        self.complete = True

    def _prove(self) -> Verification:
        return Verification.PROVISIONAL


def _row(info: tarfile.TarInfo, member: Member, digest: bytes) -> IndexRow:
    return IndexRow(
        name=member.name,
        kind=MemberKind.REGULAR if member.link_target is None else MemberKind.HARD_LINK,
        size_bytes=member.size_bytes,
        header_offset=member.header_offset,
        data_offset=info.offset_data,
        compressed_end=info.offset_data + member.size_bytes,
        digest=digest,
        link_target=member.link_target,
        point=plain_point(info.offset_data),
        coding=Coding.STORED,
    )
