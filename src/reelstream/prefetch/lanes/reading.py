"""A span of unknown members, read from a place on: its members, and what is learned of where they lie."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from reelstream.archive import IndexRow, Member, MemberKind, read_member
from reelstream.archive.containers import Container, MemberStream, WholeDigest, open_stream
from reelstream.archive.cuts.bookmark import Bookmark
from reelstream.archive.cuts.cut import CutReader
from reelstream.archive.cuts.report import CutReport
from reelstream.archive.seek.index import normal_name
from reelstream.errors import ArchiveError
from reelstream.prefetch.lanes.host import SpanResult
from reelstream.prefetch.lanes.known_part import KnownPart
from reelstream.prefetch.lanes.paced import PacedSource
from reelstream.prefetch.state import Mark
from reelstream.types import ContainerKind, Span, SpanKind


@dataclass(slots=True, kw_only=True)
class RowMember:
    """A member whose row is known: a hard link, or one that a run before this one has met."""

    name: str
    row: IndexRow
    """Of the member that holds its bytes."""
    _source: PacedSource | WholeDigest = field(repr=False)

    @property
    def size_bytes(self) -> int:
        """Of its bytes."""
        return self.row.size_bytes

    @property
    def problem(self) -> str | None:
        """None: its bytes can be had."""
        return None

    @property
    def digest(self) -> bytes:
        """Of its bytes."""
        return self.row.digest

    def chunks(self) -> Iterator[memoryview]:
        """Yield the bytes, by a ranged read of their own."""
        return read_member(self._source, self.row)


@dataclass(slots=True, kw_only=True)
class LostLink:
    """A hard link to a member that is not there."""

    name: str
    problem: str
    size_bytes: int = 0
    digest: bytes | None = None

    def chunks(self) -> Iterator[memoryview]:
        """Yield nothing."""
        return iter(())


AnyMember = Member | RowMember | LostLink


class SpanReading:
    """Reads a whole archive, or cuts of it as long as each next one follows the one before.

    Args:
        span: Where to begin.
        source: The archive's bytes.
        later_cuts: Where all the archive's cuts begin that come after the span.
        mark: Where in the span to begin; None for its own beginning.
        known: What a run before this one has learned of the span.
    """

    def __init__(
        self,
        span: Span,
        source: PacedSource,
        *,
        later_cuts: Sequence[int],
        mark: Mark | None,
        known: KnownPart | None,
    ) -> None:
        self.span = span
        self._later_cuts = later_cuts
        self._mark = mark
        self._source: PacedSource | WholeDigest = source
        bookmark = mark.bookmark if mark else None
        self._ahead = list(known.ahead) if known is not None else []
        self._known_report = known.report if self._ahead and known is not None else None
        if self._ahead and known is not None:
            bookmark = known.bookmark
        self._cuts: CutReader | None = None
        self._stream: MemberStream | None = None
        if span.archive.kind is ContainerKind.TAR_GZ:
            if span.kind is SpanKind.ARCHIVE and bookmark is None:
                self._source = WholeDigest(source)
            self._cuts = CutReader(self._source, span.first_byte, later_cuts, learn=True, resume=bookmark)
        else:
            self._stream = open_stream(Container.of(span.archive), source, resume=bookmark)
        self._awaited: deque[tuple[int, int]] = deque()
        self._marks: deque[Mark] = deque()
        self.rows: list[IndexRow] = [*known.before, *self._ahead] if known is not None else []
        """Where members of the span lie, in order, as far as is known."""
        self.bookmark: Bookmark | None = None
        """At the last of these rows; None where some clip among them has none."""
        self.all_known = mark is None or known is not None
        """Whether these are all rows from the span's beginning on."""
        self._has_rowless_clip = False
        self._held: dict[str, IndexRow | None] = {}
        for row in known.before if known is not None else ():
            self._hold(row)

    def close(self) -> None:
        """Give up what is being read."""
        for reader in (self._cuts, self._stream):
            if reader is not None:
                reader.close()

    def members(self) -> Iterator[AnyMember]:
        """Yield the members of the span, hard links with the bytes of their targets where these are known.

        Raises:
            ArchiveError: As `CutReader.members`, `MemberStream.members`.
        """
        yield from self._members_ahead()
        if self._known_report is not None:
            return
        reader = self._cuts or self._stream
        assert reader is not None
        for member in reader.members():
            yield member if member.link_target is None else self._linked(member, member.link_target)
        self._learn()

    def note_clip(self, member: AnyMember, clips_before: int) -> None:
        """Say that a member just yielded is a clip, and how many of the span come before it."""
        if isinstance(member, Member):
            # Symbolic links and the like have no rows.
            self._has_rowless_clip |= member.problem is not None and member.link_target is None
            self._awaited.append((member.header_offset, clips_before))

    def take_marks(self, num_rows: int | None) -> list[Mark]:
        """Return the marks of clips that became known since the last call, in order.

        Args:
            num_rows: Only those of the first so many rows; None for all.
        """
        self._learn()
        num_rows = len(self.rows) if num_rows is None else num_rows
        marks: list[Mark] = []
        while (
            num_rows and self._marks and self._marks[0].bookmark.header_offset <= self.rows[num_rows - 1].header_offset
        ):
            marks.append(self._marks.popleft())
        return marks

    def result(self, *, clips: Sequence[int], num_unreferenced: int, problem: ArchiveError | None) -> SpanResult:
        """Return what came of the span, once all its members were taken or a problem ended the reading."""
        self._learn()
        whole = problem is None
        learned = whole and self.all_known and self._cuts is not None and not self._cuts.problem
        return SpanResult(
            span=self.span,
            clips=clips,
            num_unreferenced=num_unreferenced,
            report=self._report if whole else None,
            rows=self.rows if learned else None,
            sha256=self._source.digest() if whole and isinstance(self._source, WholeDigest) else None,
            bookmark=self.bookmark,
            index=self._stream.index() if whole and self._stream is not None else None,
            problem=problem,
        )

    def go_on_into(self, span: Span) -> bool:
        """Turn to the span that follows, if it does; return whether no byte need be read twice for it."""
        if (
            self._cuts is None
            or self._cuts.finished
            or self._known_report is not None
            or span.archive != self.span.archive
        ):
            return False
        if self._report is None or self._report.served_until != span.first_byte:
            return False
        self.span = span
        self.rows, self._held, self.bookmark = [], {}, None
        self.all_known, self._has_rowless_clip = True, False
        self._awaited.clear()
        return True

    @property
    def _report(self) -> CutReport | None:
        if self._known_report is not None:
            return self._known_report
        return self._cuts.reports[-1] if self._cuts is not None and self._cuts.reports else None

    def _members_ahead(self) -> Iterator[AnyMember]:
        """Yield the members that a run before this one has met, from the mark on."""
        ahead, self._ahead = self._ahead, []
        for row in ahead:
            holding = self._hold(row)
            if holding is not None:
                yield RowMember(name=row.name, row=holding, _source=self._source)
            else:
                yield LostLink(name=row.name, problem=f"a hard link to {row.link_target}")

    def _hold(self, row: IndexRow) -> IndexRow | None:
        """Note the next row of the span; return the one that holds its member's bytes, None for a link to nothing.

        A link's target is the last member of that name before it, as tar has it: so no links go round in circles.
        """
        is_link = row.kind is MemberKind.HARD_LINK
        holding = self._held.get(normal_name(row.link_target or "")) if is_link else row
        self._held[normal_name(row.name)] = holding
        return holding

    def _learn(self, *, now: bool = False) -> None:
        reader = self._cuts or self._stream
        assert reader is not None
        for learned in reader.take_rows(now=now):
            row = learned.row
            self.rows.append(row)
            self.bookmark = None if self._has_rowless_clip else learned.bookmark
            self._hold(row)
            while self._awaited and self._awaited[0][0] < row.header_offset:
                self._awaited.popleft()
            if self._awaited and self._awaited[0][0] == row.header_offset:
                self._marks.append(Mark(clips=self._awaited.popleft()[1], bookmark=learned.bookmark))

    def _linked(self, member: Member, target: str) -> Member | RowMember:
        self._learn(now=True)
        name = normal_name(target)
        if name not in self._held:
            self._learn_before()
        row = self._held.get(name)
        return member if row is None else RowMember(name=member.name, row=row, _source=self._source)

    def _learn_before(self) -> None:
        """Learn what lies before the mark, where nothing at hand tells, by reading it once.

        Without it a link to what lies there would be a clip for those who read the span in one go, and a loss for those
        who go on in its middle.
        """
        mark, self._mark = self._mark, None
        if mark is None or self.all_known:
            return
        held_behind, self._held = self._held, {}
        for row in _rows_before(mark.bookmark, self.span, self._source, self._later_cuts):
            self._hold(row)
        self._held.update(held_behind)


def _rows_before(
    bookmark: Bookmark, span: Span, source: PacedSource | WholeDigest, later_cuts: Sequence[int]
) -> Iterator[IndexRow]:
    """Yield the rows of a span before a bookmark of it, their offsets counted from where this reading begins."""
    # Another reader may have counted from elsewhere, but for its cut's border.
    passed_bytes = bookmark.header_offset - bookmark.border_offset
    is_cut = span.archive.kind is ContainerKind.TAR_GZ
    with (
        CutReader(source, span.first_byte, later_cuts, learn=True)
        if is_cut
        else open_stream(Container.of(span.archive), source)
    ) as reader:
        for _ in reader.members():
            for learned in reader.take_rows():
                if learned.row.header_offset - learned.bookmark.border_offset >= passed_bytes:
                    return
                yield learned.row
        for learned in reader.take_rows(now=True):
            if learned.row.header_offset - learned.bookmark.border_offset < passed_bytes:
                yield learned.row
