"""Rows of an index, learned from members as they pass.

The price is a digest of each member's bytes, a few stops before each member's end, and two short decompressions a seek
point.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tarfile
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from reelstream.archive.forward import ForwardReader
from reelstream.archive.seek.index import DIGEST_BYTES, IndexRow, MemberKind
from reelstream.archive.seek.noting import Boundary, NotingInflation
from reelstream.archive.seek.seek_points import SeekPoint
from reelstream.archive.tar import Member, member_of

# Small members share a point: a point costs some 0.4 ms and 100 bytes.
_LEAST_SPACING_BYTES = 1 << 18

# A large member has a point of its own unless the last one is this near, as a share of its size.
_LARGE_MEMBER_BYTES = 1 << 20
_LARGE_MEMBER_SHARE = 128

# A point that cannot be worked out for lack of output behind it keeps its whole window, 32 KiB. Reading from the point
# before it, where that is as near as this, costs less.
_NEAR_BYTES = 1 << 20


@dataclass(slots=True, kw_only=True)
class _DigestedMember(Member):
    """A member whose digest is made of the bytes as they pass."""

    _digest: Any = field(repr=False, default_factory=hashlib.sha256)

    @property
    def digest(self) -> bytes | None:
        """Of its bytes, as its row will say; None before all of them have passed."""
        return None if self._left_bytes else bytes(self._digest.digest()[:DIGEST_BYTES])

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
class _OpenRow:
    """A row whose seek points are not yet worked out."""

    fields: dict[str, Any]
    boundary: Boundary
    restart: Boundary


class RowLearner:
    """Learns the rows of the members that pass by, in the order they lie.

    Args:
        inflation: What the members' reader decompresses with.
    """

    def __init__(self, inflation: NotingInflation) -> None:
        self._inflation = inflation
        self._boundary: Boundary | None = None
        self._open: deque[_OpenRow] = deque()
        self._known: list[tuple[IndexRow, SeekPoint]] = []
        self._last_point: SeekPoint | None = None

    def begin_cut(self) -> None:
        """From now on no point of the rows before is used."""
        self.finish()
        self._boundary = self._last_point = None

    def expect_header(self, offset: int) -> None:
        """Say where the next header lies, or behind which offset: before what lies ahead of it is decompressed."""
        self._inflation.stop_at(offset)

    def pass_member(
        self, info: tarfile.TarInfo, next_header: int, reader: ForwardReader, *, restart: Boundary | None = None
    ) -> Generator[Member, None, bool]:
        """Yield the member of a header that was just read, and pass over what is not read of it.

        Args:
            info: The header.
            next_header: Where the next one lies.
            reader: What it was read from.
            restart: Where to begin for a reader that goes on at this member, if not at the row's point.

        Returns:
            Whether it has a row: regular files and hard links do.
        """
        self._inflation.stop_at(next_header)
        boundary = self._boundary_for(info)
        member = _digested(member_of(info, reader))
        yield member
        digest = member.finish()
        # Not the last byte of the padding: that is where a tar that was cut short is found out.
        reader.skip(max(0, next_header - 1 - reader.position))
        is_row = member.problem is None or info.islnk()
        if is_row:
            self._open.append(
                _OpenRow(
                    fields={
                        "name": member.name,
                        "kind": MemberKind.HARD_LINK if info.islnk() else MemberKind.REGULAR,
                        "size_bytes": member.size_bytes,
                        "header_offset": info.offset,
                        "data_offset": info.offset_data,
                        "compressed_end": self._inflation.consumed,
                        "digest": digest,
                        "link_target": member.link_target,
                    },
                    boundary=boundary,
                    restart=restart or boundary,
                )
            )
        return is_row

    def take(self) -> list[tuple[IndexRow, SeekPoint]]:
        """Return the rows that became known since the last call, in the order they lie.

        Beside each row stands the point from which a reader can go on at its header.
        """
        while self._open:
            row = self._open[0]
            if row.boundary.point is None or row.restart.point is None:
                break
            self._close(row.boundary.point, row.restart.point)
        known, self._known = self._known, []
        return known

    def finish(self) -> None:
        """Make known the rows that are still open, with what is known now."""
        self._known = self.take()
        while self._open:
            row = self._open[0]
            offset = row.fields["header_offset"]
            restart = self._point_now(row.restart, offset)
            self._close(self._point_now(row.boundary, offset), restart)

    def _close(self, point: SeekPoint, restart: SeekPoint) -> None:
        self._last_point = point
        self._known.append((IndexRow(**self._open.popleft().fields, point=point), restart))

    def _point_now(self, boundary: Boundary, offset: int) -> SeekPoint:
        last = self._last_point
        if boundary.point is None and last is not None and offset - last.output_offset <= _NEAR_BYTES:
            return last
        return self._inflation.work_out(boundary)

    def _boundary_for(self, info: tarfile.TarInfo) -> Boundary:
        """Return where a member will be read from: the last boundary that is used already, if that is near enough."""
        found = self._inflation.boundary_before(info.offset)
        spacing_bytes = info.size // _LARGE_MEMBER_SHARE if info.size >= _LARGE_MEMBER_BYTES else _LEAST_SPACING_BYTES
        if self._boundary is None or found.output_offset - self._boundary.output_offset >= spacing_bytes:
            self._inflation.ask(found, info.offset)
            self._boundary = found
        return self._boundary


def _digested(member: Member) -> _DigestedMember:
    return _DigestedMember(**{name.name: getattr(member, name.name) for name in dataclasses.fields(member)})
