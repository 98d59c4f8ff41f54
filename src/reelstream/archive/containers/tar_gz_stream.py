"""tar.gz, read from front to back by the reader of cuts: one that begins at byte 0 and ends with the archive."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Self

from reelstream.archive.containers.container import Container
from reelstream.archive.containers.plain_reader import WholeDigest
from reelstream.archive.cuts.bookmark import Bookmark, LearnedRow
from reelstream.archive.cuts.cut import CutReader
from reelstream.archive.cuts.piece import pieces_are_true
from reelstream.archive.seek.index import ArchiveIndex, IndexBuilder, Verification
from reelstream.archive.source import ByteSource
from reelstream.archive.tar import Member
from reelstream.errors import ArchiveChecksumError, ArchiveError


class TarGzStream:
    """Reads a tar.gz; see `MemberStream`.

    Args:
        container: The archive.
        source: Its bytes.
        learn: Whether to learn rows; costs some of the speed.
        resume: Where to go on, as a row's bookmark says.
    """

    def __init__(
        self, container: Container, source: ByteSource, *, learn: bool = True, resume: Bookmark | None = None
    ) -> None:
        self._identity = container.identity
        self._path = source.path
        self._from_start = resume is None
        self._whole = WholeDigest(source) if self._identity.sha256 is not None and self._from_start else None
        self._cut = CutReader(self._whole or source, 0, (), learn=learn, resume=resume)
        self._learn = learn and not self._cut.problem
        self._builder = IndexBuilder()
        self._known: list[LearnedRow] = []
        self._reading: Generator[Member, None, None] | None = None
        self.verification = Verification.PROVISIONAL
        """What is known of the bytes so far."""
        self.complete = False

    @property
    def problem(self) -> str:
        """Why no rows are learned; empty where they are."""
        return self._cut.problem

    def members(self) -> Iterator[Member]:
        """Yield the members; see `MemberStream.members`."""
        assert self._reading is None, "members can be listed once"
        self._reading = self._members()
        return self._reading

    def take_rows(self, *, now: bool = False) -> list[LearnedRow]:
        """Return the rows that became known since the last call."""
        self._collect(now=now)
        rows, self._known = self._known, []
        return rows

    def index(self) -> ArchiveIndex:
        """Return the index as far as it was learned."""
        self._collect(now=False)
        complete = self.complete and self._from_start and self._learn
        return self._builder.build(self._identity, self.verification, complete=complete)

    def close(self) -> None:
        """Give up the range that is being read, and the decompressor's memory."""
        if self._reading is not None:
            self._reading.close()
        self._cut.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _members(self) -> Generator[Member, None, None]:
        try:
            yield from self._cut.members()
            self._check_end()
        except ArchiveError:
            self.verification = Verification.FAILED
            raise

    def _check_end(self) -> None:
        self.complete = True
        digest = None if self._whole is None else self._whole.digest()
        if digest is not None and digest != self._identity.sha256:
            raise ArchiveChecksumError(
                f"{self._path}: its SHA-256 is {digest}, and the published one {self._identity.sha256}",
                "bytes were damaged on the way; what came from it may be wrong",
            )
        # A stream that was resumed knows what came before from its bookmark.
        if not pieces_are_true(report.piece for report in self._cut.reports):
            raise ArchiveChecksumError(
                f"{self._path}: the checksum at its end does not match its content",
                "the archive was damaged before or after it was published; what came from it may be wrong",
            )
        self.verification = Verification.CHECKSUM if digest is None else Verification.SHA256

    def _collect(self, *, now: bool) -> None:
        for learned in self._cut.take_rows(now=now):
            self._builder.add(learned.row)
            self._known.append(learned)
