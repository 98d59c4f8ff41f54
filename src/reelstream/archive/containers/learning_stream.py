"""What streams have in common that learn their rows only as the members pass."""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Generator, Iterator
from typing import Self

from reelstream.archive.containers.container import Container
from reelstream.archive.cuts.bookmark import LearnedRow
from reelstream.archive.seek.index import ArchiveIndex, IndexBuilder, Verification
from reelstream.archive.source import ByteSource
from reelstream.archive.tar import Member
from reelstream.errors import ArchiveChecksumError, ArchiveError


class WholeDigest:
    """A source whose SHA-256 is made as it is read, once, from its first byte to its last.

    Args:
        source: Where the bytes come from.
    """

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._sha256 = hashlib.sha256()
        self._digested_bytes = 0

    @property
    def path(self) -> str:
        """The source's."""
        return self._source.path

    @property
    def size_bytes(self) -> int:
        """The source's."""
        return self._source.size_bytes

    def read(self, first_byte: int, end_byte: int) -> Iterator[bytes]:
        """Yield the range, as the source does; what follows all that came before is digested."""
        position = first_byte
        for chunk in self._source.read(first_byte, end_byte):
            if position == self._digested_bytes:
                self._sha256.update(chunk)
                self._digested_bytes += len(chunk)
            position += len(chunk)
            yield chunk

    def digest(self) -> str | None:
        """Return the hex digest of the whole file; None where not all of it was read."""
        return self._sha256.hexdigest() if self._digested_bytes == self.size_bytes else None


class LearningStream(abc.ABC):
    """A `MemberStream` that learns; where it begins at the first byte, it compares the SHA-256 that is published.

    Args:
        container: What is read.
        source: Its bytes; those who list the members read `self._source` instead.
        learn: Whether rows are learned.
        from_start: Whether it is read from its first byte.
    """

    def __init__(self, container: Container, source: ByteSource, *, learn: bool, from_start: bool) -> None:
        self._identity = container.identity
        self._whole = WholeDigest(source) if self._identity.sha256 is not None and from_start else None
        self._source: ByteSource = self._whole or source
        self._learns_all = learn and from_start
        self._builder = IndexBuilder()
        self._known: list[LearnedRow] = []
        self._reading: Generator[Member, None, None] | None = None
        self.verification = Verification.PROVISIONAL
        """What is known of the bytes so far."""
        self.complete = False
        """Whether all members were listed to the end."""

    @property
    def problem(self) -> str:
        """Why no rows are learned; empty where they are."""
        return ""

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
        complete = self.complete and self._learns_all and not self.problem
        return self._builder.build(self._identity, self.verification, complete=complete)

    def close(self) -> None:
        """Give up the range that is being read, and what memory is held for it."""
        if self._reading is not None:
            self._reading.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abc.abstractmethod
    def _listed(self) -> Iterator[Member]:
        """Yield the members, and raise what is wrong at the end; set `complete` where all were listed."""

    @abc.abstractmethod
    def _prove(self) -> Verification:
        """Return what the container's own checksums prove, now that it was read.

        Raises:
            ArchiveChecksumError: Where they do not match.
        """

    def _collect(self, *, now: bool) -> None:  # noqa: B027 - nothing to do where a row is known at once
        """Learn the rows that are known by now."""

    def _learn(self, learned: LearnedRow) -> None:
        self._builder.add(learned.row)
        self._known.append(learned)

    def _members(self) -> Generator[Member, None, None]:
        try:
            yield from self._listed()
            self._compare_published()
            proven = self._prove()
            self.verification = proven if self._whole is None else Verification.SHA256
        except ArchiveError:
            # What is damaged can be what was published, all the same.
            self.verification = Verification.SHA256 if self._is_published() else Verification.FAILED
            raise

    def _is_published(self) -> bool:
        return self._whole is not None and self._whole.digest() == self._identity.sha256

    def _compare_published(self) -> None:
        if self._whole is not None and not self._is_published():
            raise ArchiveChecksumError(
                f"{self._source.path}: its SHA-256 is {self._whole.digest()}, and the published one "
                f"{self._identity.sha256}",
                "bytes were damaged on the way; what came from it may be wrong",
            )
