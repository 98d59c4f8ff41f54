"""Plain tar, read from front to back and indexed in passing: its members lie as they are."""

from __future__ import annotations

import tarfile
from collections.abc import Generator, Iterator
from typing import Self

from reelstream.archive.containers.container import Container
from reelstream.archive.containers.learned import learned_row
from reelstream.archive.containers.plain_reader import PlainReader, WholeDigest
from reelstream.archive.cuts.bookmark import Bookmark, LearnedRow
from reelstream.archive.seek.index import (
    ArchiveIndex,
    Coding,
    IndexBuilder,
    IndexRow,
    MemberKind,
    Verification,
    plain_point,
)
from reelstream.archive.source import ByteSource
from reelstream.archive.tar import Member, member_of, printable_name, walk_headers
from reelstream.errors import ArchiveChecksumError, ArchiveError


class TarStream:
    """Reads a plain tar; see `MemberStream`.

    A plain tar has no checksum of its contents. Where its publisher names a SHA-256 and it is read from its first byte,
    that is compared at the end; else its rows stay provisional, and each later read is held against what this pass saw.

    Args:
        container: The tar.
        source: Its bytes.
        learn: Whether to learn rows, which digests each member.
        resume: Where to go on, as a row's bookmark says.
    """

    problem = ""

    def __init__(
        self, container: Container, source: ByteSource, *, learn: bool = True, resume: Bookmark | None = None
    ) -> None:
        self._identity = container.identity
        self._path = source.path
        first_byte = 0 if resume is None else resume.header_offset
        self._whole = WholeDigest(source) if self._identity.sha256 is not None and not first_byte else None
        self._reader = PlainReader(self._whole or source, first_byte)
        self._from_start = not first_byte
        self._learn = learn
        self._builder = IndexBuilder()
        self._passed: list[LearnedRow] = []
        self._reading: Generator[Member, None, None] | None = None
        self.verification = Verification.PROVISIONAL
        """What is known of the bytes so far."""
        self.complete = False

    def members(self) -> Iterator[Member]:
        """Yield the members; see `MemberStream.members`.

        Raises:
            ArchiveError: Also where something else than padding follows the tar's end mark: what looks like the end may
                be damage, and no checksum would tell.
        """
        assert self._reading is None, "members can be listed once"
        self._reading = self._members()
        return self._reading

    def take_rows(self, *, now: bool = False) -> list[LearnedRow]:  # noqa: ARG002 - the protocol's; a row is known at once
        """Return the rows of the members that passed since the last call."""
        rows, self._passed = self._passed, []
        return rows

    def index(self) -> ArchiveIndex:
        """Return the index as far as it was learned."""
        return self._builder.build(
            self._identity, self.verification, complete=self.complete and self._from_start and self._learn
        )

    def close(self) -> None:
        """Give up the range that is being read."""
        if self._reading is not None:
            self._reading.close()
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _members(self) -> Generator[Member, None, None]:
        reader = self._reader
        try:
            for info, _ in walk_headers(reader, self._path):
                member = member_of(info, reader)
                if self._learn:
                    reader.begin_digest()
                yield member
                if self._learn:
                    reader.skip(info.offset_data + member.size_bytes - reader.position)
                    self._note(info, member, reader.end_digest())
            self._check_end()
        except ArchiveError:
            self.verification = Verification.FAILED
            raise

    def _check_end(self) -> None:
        self.complete = self._reader.only_zeros
        if self._whole is not None:
            digest = self._whole.digest()
            if digest != self._identity.sha256:
                raise ArchiveChecksumError(
                    f"{self._path}: its SHA-256 is {digest}, and the published one {self._identity.sha256}",
                    "bytes were damaged on the way; what came from it may be wrong",
                )
            self.verification = Verification.SHA256
        if not self._reader.only_zeros:
            raise ArchiveError(
                f"{self._path}: more than padding follows the end mark of the tar; what it is could not be listed",
                "tell the archive's publisher",
            )

    def _note(self, info: tarfile.TarInfo, member: Member, digest: bytes) -> None:
        if member.problem is not None and not info.islnk():
            return
        # A member that was cut short is found out behind it, and is no row.
        end_byte = info.offset_data + member.size_bytes
        if self._reader.position < end_byte:
            return
        row = IndexRow(
            name=member.name,
            kind=MemberKind.HARD_LINK if info.islnk() else MemberKind.REGULAR,
            size_bytes=member.size_bytes,
            header_offset=info.offset,
            data_offset=info.offset_data,
            compressed_end=end_byte,
            digest=digest,
            link_target=printable_name(info.linkname) if info.islnk() else None,
            point=plain_point(info.offset_data),
            coding=Coding.STORED,
        )
        self._builder.add(row)
        self._passed.append(learned_row(row))
