"""Repositories read by whole archives, by cuts or by blocks of known members, and a model of what each of them gives.

The model of a cut is what `read_cut` says of it, read by itself; that of a block is the index.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from reelstream.archive import ArchiveIndex, BytesSource, IndexingPass, IndexRow, Member
from reelstream.archive.cuts.cut import read_cut
from reelstream.cache import allocated_bytes
from reelstream.prefetch.lanes.host import SpanResult
from reelstream.prefetch.plan import EpochPlan
from reelstream.prefetch.state import EpochState, SpanSettings
from reelstream.schedule import (
    KnownMember,
    archive_spans,
    block_spans,
    cut_spans,
    deal_to_lanes,
    lane_quotas,
    order_spans,
)
from reelstream.types import Archive, RepositoryFile, Span, SpanKind
from unit.prefetch.board_kit import Case, MadeClip
from unit.prefetch.pipeline_kit import SUBSETS, LearnNothing, MadeArchive, MadeMember, World

CUT_BYTES = 300_000
BLOCK_BYTES = 250_000
LARGEST_MEMBER_BYTES = 150_000
# A row is known this far behind its member at the latest.
ROW_LAG_BYTES = 300 << 10
# Looked at to enter a cut, or to find the border of the next one.
ENTRY_BYTES = 300_000


def media_archive(seed: int, *, subset: str = "aa", num_members: int = 16, odd: bool = True) -> MadeArchive:
    """Make an archive of 1 to 2 MB: members that hardly shrink, of 10 to 150 kB, and some of all else there can be.

    Args:
        seed: Of names, sizes and kinds.
        subset: Where it lies.
        num_members: In all.
        odd: Whether there is anything but sound clips of different names.
    """
    draw = random.Random(f"archive {seed}")
    numbers = draw.sample(range(40), min(40, num_members))
    members: list[MadeMember] = []
    for place in range(num_members):
        number, size_bytes = numbers[place % len(numbers)], draw.choice([10_000, 60_000, 100_000, LARGEST_MEMBER_BYTES])
        kind = draw.choice(["clip"] * 12 + ["undecodable", "link", "link", "unreferenced", "folder", "twice"])
        if not odd or kind == "clip":
            members.append(MadeMember("clip", number, size_bytes))
        elif kind == "link":
            before = [member.number for member in members if member.kind == "clip"]
            target = draw.choice(before) if before and draw.random() < 0.8 else None
            members.append(MadeMember("link", number, 0, target))
        elif kind == "twice" and members:
            members.append(MadeMember("clip", draw.choice(members).number, size_bytes))
        elif kind != "twice":
            members.append(MadeMember(kind, number, size_bytes if kind != "folder" else 0))  # type: ignore[arg-type]
    return MadeArchive(subset, tuple(members))


@dataclass(frozen=True)
class Met:
    """A member as a reader meets it."""

    clip: int
    """Of the catalog."""
    holder: MadeMember | None
    """Whose bytes it has; None where it has none."""


class Verified(LearnNothing):
    """Notes which archives were found true, and what came of their spans."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.results: list[SpanResult] = []

    def finished(self, result: SpanResult) -> None:
        """Take what came of a span."""
        self.results.append(result)

    def verified(self, archive: Archive, reports: Sequence[object], sha256: str | None) -> None:
        """An archive is true."""
        self.paths.append(archive.path)


@dataclass
class SpanWorld(World):
    """A repository whose archives are dealt to lanes as spans of one kind; `lanes` only groups the archives."""

    kind: SpanKind = SpanKind.CUT
    num_wanted_lanes: int = 3
    cut_bytes: int = CUT_BYTES
    block_bytes: int = BLOCK_BYTES
    archives: list[Archive] = field(init=False)

    def __post_init__(self) -> None:
        self.data, self.archives, self._made = {}, [], {}
        for made in (archive for lane in self.lanes for archive in lane):
            path = f"{made.subset}/{made.subset}_videos_{len(self.data)}.tar.gz"
            self.data[path] = data = made.packed()
            file = RepositoryFile(path=path, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
            self.archives.append(Archive(subset=made.subset, file=file))
            self._made[path] = made
        spans = order_spans(self._published(), seed=self.seed, epoch=2)
        num_lanes = min(self.num_wanted_lanes, len(spans))
        self.spans = deal_to_lanes(spans, num_lanes, lambda span: span.size_bytes)

    def _published(self) -> list[Span]:
        if self.kind is SpanKind.ARCHIVE:
            return archive_spans(self.archives)
        if self.kind is SpanKind.CUT:
            return cut_spans(self.archives, self.cut_bytes)
        return [
            block
            for archive in self.archives
            for block in block_spans(archive, self._known_members(archive), self.block_bytes)
        ]

    @property
    def span_settings(self) -> SpanSettings:
        """As the planner would choose them."""
        is_cut, is_block = self.kind is SpanKind.CUT, self.kind is SpanKind.BLOCK
        return SpanSettings(
            kind=self.kind,
            cut_bytes=self.cut_bytes if is_cut else None,
            block_bytes=self.block_bytes if is_block else None,
            known="made" if is_block else None,
        )

    @property
    def plan(self) -> EpochPlan:
        """What the lanes read, and what they must know."""
        cuts: dict[str, list[int]] = {}
        if self.kind is SpanKind.CUT:
            for span in sorted((span for lane in self.spans for span in lane), key=lambda span: span.first_byte):
                cuts.setdefault(span.archive.path, []).append(span.first_byte)
        known = {archive.path: self.index(archive) for archive in self.archives} if self.is_known else {}
        return EpochPlan(lanes=self.spans, cuts=cuts, known=known, mean_clip_bytes=dict.fromkeys(SUBSETS, 80_000.0))

    @property
    def is_known(self) -> bool:
        """Whether the lanes know their members beforehand."""
        return self.kind is SpanKind.BLOCK

    def start(self, budget_bytes: int | None = None) -> EpochState:
        """Before the first sample; the lengths of known lanes are known."""
        state = super().start(budget_bytes)
        if self.limit is not None and self.is_known:
            state.lengths = [sum(len(span.clips) for span in lane) for lane in self.spans]
            lengths = {lane: length for lane, length in enumerate(state.lengths) if length is not None}
            state.quotas = lane_quotas(self.limit, self.num_lanes, lengths)
        return state

    # ------------------------------------------------------------------ the model

    def case(self) -> Case:
        """The lanes as the schedule sees them."""
        return dataclasses.replace(super().case(), lengths_are_known=self.is_known)

    def index(self, archive: Archive) -> ArchiveIndex:
        """The index of an archive as it was packed."""
        return _index_of(self._made[archive.path].packed(), archive.path)

    def clips_of(self, lane: int) -> list[MadeClip]:
        """The clips of a lane as it meets them."""
        return [clip for span in self.spans[lane] for clip in self.clips_in(span)]

    def clips_in(self, span: Span) -> list[MadeClip]:
        """The clips of a span as a reader meets them."""
        return [self._made_clip(span, met) for met in self._met_in(span)]

    def _made_clip(self, span: Span, met: Met) -> MadeClip:
        found = self.catalog.clip(met.clip)
        if met.holder is None:
            return MadeClip(met.clip, found.num_samples, 0, "on arrival", found.path, found.subset)
        bad = "when decoded" if met.holder.kind == "undecodable" or met.holder.size_bytes < 16 else None
        size_bytes = allocated_bytes(met.holder.size_bytes)
        return MadeClip(met.clip, found.num_samples, size_bytes, bad, found.path, span.archive.subset)  # type: ignore[arg-type]

    def _met_in(self, span: Span) -> Iterator[Met]:
        by_name: dict[str, MadeMember | None] = {}
        wanted = set(span.clips)
        for made in self._members_of(span):
            holder: MadeMember | None = None
            if made.kind == "link":
                holder = by_name.get(f"source/{made.target}.mp4")
            elif made.kind != "folder":
                holder = made
            if made.kind != "folder":
                by_name[made.name] = holder
            clip = self.catalog.find(span.archive.subset, made.name)
            if clip is None or made.kind == "folder":
                continue
            if self.is_known:
                # Of several members of one name the first that has bytes is in the blocks.
                if clip not in wanted or holder is None:
                    continue
                wanted.discard(clip)
            yield Met(clip, holder)

    def _members_of(self, span: Span) -> Sequence[MadeMember]:
        made = self._made[span.archive.path]
        if span.kind is SpanKind.CUT:
            starts = tuple(byte for byte in self.plan.cuts[span.archive.path] if byte > span.first_byte)
            offsets = _offsets_in_cut(made.packed(), span.first_byte, starts)
            names = [member.name for member in made.members if member.kind != "folder"]
            first = _offset_of_first(made.packed(), offsets) if offsets else 0
            assert [name for name, _ in offsets] == names[first : first + len(offsets)]
            solid = [member for member in made.members if member.kind != "folder"]
            return solid[first : first + len(offsets)]
        return made.members

    # ------------------------------------------------------------------ what it costs

    def most_bytes_from(self, state: EpochState) -> int:
        """The most bytes that an epoch may fetch from a state on, with nothing else at hand: of what lies behind the
        beginnings of the lanes' windows each once; and for each lane one entry, and the clips between where a row is
        known and its member.
        """
        slack_bytes = ENTRY_BYTES + ROW_LAG_BYTES + 2 * LARGEST_MEMBER_BYTES
        most_bytes = 0
        for lane, spans in zip(state.lanes, self.spans, strict=True):
            if lane.span == len(spans):
                continue
            most_bytes += slack_bytes
            for ordinal, span in enumerate(spans[lane.span :], lane.span):
                member = lane.member if ordinal == lane.span else 0
                most_bytes += self._bytes_behind(span, member)
                if member and any(made.kind == "link" for made in self._members_of(span)):
                    # What they link to may lie before the window, and is nowhere at hand.
                    most_bytes += span.size_bytes
        return most_bytes

    def _bytes_behind(self, span: Span, num_clips: int) -> int:
        """Compressed bytes of a span behind some of its clips, and what reading it by itself costs beyond that."""
        met = self._rows_in(span)[num_clips:]
        links = sum(row.range_bytes for row, is_link in met if is_link)
        if span.kind is SpanKind.BLOCK:
            # Each by itself at the worst.
            return sum(row.range_bytes for row, _ in met)
        begin = next((row.first_byte for row, is_link in met if not is_link), span.end_byte)
        border_bytes = ENTRY_BYTES + LARGEST_MEMBER_BYTES if span.kind is SpanKind.CUT else 0
        return max(0, span.end_byte - begin) + links + border_bytes

    def _rows_in(self, span: Span) -> list[tuple[IndexRow, bool]]:
        """The row of each clip in a span that holds its bytes, and whether it is another's."""
        index = self.index(span.archive)
        if span.kind is SpanKind.BLOCK:
            held = [index.holding(number) for number in span.rows]
            return [
                (index.row(held_by), held_by != number)
                for number, held_by in zip(span.rows, held, strict=True)
                if held_by is not None
            ]
        made, solid = (
            self._members_of(span),
            [member for member in self._made[span.archive.path].members if member.kind != "folder"],
        )
        first = (
            next((place for place in range(len(solid)) if solid[place : place + len(made)] == list(made)), 0)
            if span.kind is SpanKind.CUT
            else 0
        )
        rows = []
        for number in range(first, first + len([member for member in made if member.kind != "folder"])):
            if self.catalog.find(span.archive.subset, index.row(number).name) is None:
                continue
            holding = index.holding(number)
            rows.append((index.row(number if holding is None else holding), holding != number))
        return rows

    def _known_members(self, archive: Archive) -> list[KnownMember]:
        index, members, met = self.index(archive), [], set()
        for number, row in enumerate(index):
            clip, holding = self.catalog.find(archive.subset, row.name), index.holding(number)
            if clip is None or clip in met or holding is None:
                continue
            met.add(clip)
            size_bytes = index.row(holding).size_bytes
            members.append(
                KnownMember(
                    row=number, clip=clip, first_offset=row.header_offset, end_offset=row.data_offset + size_bytes
                )
            )
        return members


@functools.lru_cache(maxsize=64)
def _index_of(packed: bytes, path: str) -> ArchiveIndex:
    reading = IndexingPass(iter([packed]), path, sha256=hashlib.sha256(packed).hexdigest())
    for _ in reading.members():
        pass
    assert not reading.problem
    return reading.index()


@functools.lru_cache(maxsize=256)
def _offsets_in_cut(packed: bytes, first_byte: int, later: tuple[int, ...]) -> tuple[tuple[str, bytes], ...]:
    """Names and digests of a cut's members."""
    end, *rest = *later, len(packed)
    return tuple(
        (member.name, _digest(member)) for member in read_cut(BytesSource(packed), first_byte, end, later_cuts=rest)
    )


@functools.lru_cache(maxsize=64)
def _all_members(packed: bytes) -> tuple[tuple[str, bytes], ...]:
    return _offsets_in_cut(packed, 0, ())


def _offset_of_first(packed: bytes, part: tuple[tuple[str, bytes], ...]) -> int:
    """Return where a cut's members begin among all of its archive's."""
    everything = _all_members(packed)
    places = [place for place in range(len(everything)) if everything[place : place + len(part)] == part]
    assert len(places) == 1, "no one place fits: make the archive's members less alike"
    return places[0]


def _digest(member: Member) -> bytes:
    digest = hashlib.sha256()
    for chunk in member.chunks():
        digest.update(chunk)
    return digest.digest()
