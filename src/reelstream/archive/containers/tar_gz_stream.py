"""tar.gz, read from front to back by the reader of cuts: one that begins at byte 0 and ends with the archive."""

from __future__ import annotations

from collections.abc import Iterator

from reelstream.archive.containers.container import Container
from reelstream.archive.containers.learning_stream import LearningStream
from reelstream.archive.cuts.bookmark import Bookmark
from reelstream.archive.cuts.cut import CutReader
from reelstream.archive.cuts.piece import pieces_are_true
from reelstream.archive.seek.index import Verification
from reelstream.archive.source import ByteSource
from reelstream.archive.tar import Member
from reelstream.errors import ArchiveChecksumError


class TarGzStream(LearningStream):
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
        super().__init__(container, source, learn=learn, from_start=resume is None)
        self._cut = CutReader(self._source, 0, (), learn=learn, resume=resume)

    @property
    def problem(self) -> str:
        """Why no rows are learned; empty where they are."""
        return self._cut.problem

    def close(self) -> None:
        """Give up the range that is being read, and the decompressor's memory."""
        super().close()
        self._cut.close()

    def _listed(self) -> Iterator[Member]:
        yield from self._cut.members()
        self.complete = True

    def _prove(self) -> Verification:
        # A stream that was resumed knows the checksum of what came before from its bookmark.
        if not pieces_are_true(report.piece for report in self._cut.reports):
            raise ArchiveChecksumError(
                f"{self._source.path}: the checksum at its end does not match its content",
                "the archive was damaged before or after it was published; what came from it may be wrong",
            )
        return Verification.CHECKSUM

    def _collect(self, *, now: bool) -> None:
        for learned in self._cut.take_rows(now=now):
            self._learn(learned)
