"""Containers that know their members beforehand, read from front to back: zip and loose files."""

from __future__ import annotations

import bisect
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Self

from reelstream.archive.containers.container import Directory, UnservedMember
from reelstream.archive.containers.learned import learned_row
from reelstream.archive.containers.member import DigestedMember
from reelstream.archive.cuts.bookmark import Bookmark, LearnedRow
from reelstream.archive.forward import ForwardReader
from reelstream.archive.seek.coalesce import RequestCosts, plan_rows
from reelstream.archive.seek.index import ArchiveIndex
from reelstream.archive.seek.member_range import RangedMember, read_rows
from reelstream.archive.source import ByteSource
from reelstream.archive.tar import Member


class KnownStream:
    """Reads all members of a container whose directory is at hand; see `MemberStream`.

    A member whose bytes are not what the directory says fails by itself (`ArchiveError` from its chunks); those after
    it can still be read. Nothing is fetched of members that cannot be had, where that saves time.

    Args:
        source: The container.
        directory: Its members.
        resume: Where to go on, as a row's bookmark says.
    """

    problem = ""

    def __init__(self, source: ByteSource, directory: Directory, *, resume: Bookmark | None = None) -> None:
        self._source = source
        self._index = directory.index
        offsets = directory.index.columns.header_offsets
        self._unserved = directory.unserved
        self._next_unserved = self._next_row = 0
        if resume is not None:
            self._next_row = bisect.bisect_left(offsets, resume.header_offset)
            self._next_unserved = bisect.bisect_left(
                directory.unserved, resume.header_offset, key=lambda each: each.header_offset
            )
        self._passed: list[LearnedRow] = []
        self._reading: Generator[Member, None, None] | None = None
        self.complete = False

    def members(self) -> Iterator[Member]:
        """Yield the members; see `MemberStream.members`."""
        assert self._reading is None, "members can be listed once"
        self._reading = self._members()
        return self._reading

    def take_rows(self, *, now: bool = False) -> list[LearnedRow]:  # noqa: ARG002 - the protocol's; all is known
        """Return the rows of the members that passed since the last call."""
        rows, self._passed = self._passed, []
        return rows

    def index(self) -> ArchiveIndex:
        """Return the index of all members: it was known before the first one was read."""
        return self._index

    def close(self) -> None:
        """Give up the range that is being read."""
        if self._reading is not None:
            self._reading.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _members(self) -> Generator[Member, None, None]:
        numbers = range(self._next_row, len(self._index))
        for request in plan_rows(self._index, numbers, RequestCosts()):
            rows = [self._index.row(number) for number in request.numbers]
            with closing(_as_generator(read_rows(self._source, rows))) as ranged:
                for member in ranged:
                    yield from self._unserved_before(member.row.header_offset)
                    yield _member(member)
                    self._passed.append(learned_row(member.row))
        yield from self._unserved_before(self._source.size_bytes + 1)
        self.complete = True

    def _unserved_before(self, offset: int) -> Iterator[Member]:
        while self._next_unserved < len(self._unserved):
            unserved = self._unserved[self._next_unserved]
            if unserved.header_offset >= offset:
                return
            self._next_unserved += 1
            yield _unserved_member(unserved)


class _PiecesReader(ForwardReader):
    """One member's bytes, checked before the last of them are handed out."""

    def __init__(self, pieces: Iterator[memoryview], size_bytes: int) -> None:
        self._pieces = pieces
        self._size_bytes = size_bytes
        self._pulled_bytes = 0
        self._piece = memoryview(b"")

    def read_some(self, most_bytes: int) -> memoryview:
        """Return at least one and at most `most_bytes` bytes; none at the end."""
        if not self._piece:
            self._piece = next(self._pieces, memoryview(b""))
            self._pulled_bytes += len(self._piece)
            if self._pulled_bytes == self._size_bytes:
                next(self._pieces, None)  # where the digest is compared
        some, self._piece = self._piece[:most_bytes], self._piece[most_bytes:]
        self.position += len(some)
        return some


def _as_generator(members: Iterator[RangedMember]) -> Generator[RangedMember, None, None]:
    yield from members


def _member(ranged: RangedMember) -> Member:
    row = ranged.row
    reader = _PiecesReader(ranged.chunks(), row.size_bytes)
    return DigestedMember(
        name=row.name,
        size_bytes=row.size_bytes,
        problem=None,
        link_target=None,
        header_offset=row.header_offset,
        _reader=reader,
        _left_bytes=row.size_bytes,
        _digest_of_bytes=lambda: row.digest,
    )


def _unserved_member(unserved: UnservedMember) -> Member:
    nothing = _PiecesReader(iter(()), 0)
    return Member(
        name=unserved.name,
        size_bytes=0,
        problem=unserved.problem,
        link_target=None,
        header_offset=unserved.header_offset,
        _reader=nothing,
        _left_bytes=0,
    )
