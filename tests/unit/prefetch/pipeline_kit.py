"""Archives made in memory, a source that hands them out in odd pieces, a decoder of made clips, and whole epochs."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import random
import tarfile
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from catalog_kit import MadeRepository, record
from reelstream.archive import IndexRow
from reelstream.archive.cuts.bookmark import Bookmark
from reelstream.archive.cuts.report import CutReport
from reelstream.cache import ClipCache, DiskBudget, KeptClips, Room, allocated_bytes
from reelstream.cancel import Cancellation
from reelstream.catalog import Catalog
from reelstream.errors import DecodeError
from reelstream.prefetch.lanes.host import SpanResult
from reelstream.prefetch.lanes.known_part import KnownPart
from reelstream.prefetch.pipeline import EpochPipeline
from reelstream.prefetch.plan import EpochPlan, Learned
from reelstream.prefetch.state import EpochSettings, EpochState, Mark, SpanSettings
from reelstream.prefetch.together import Together
from reelstream.prefetch.values import Decode, PipelineOptions, ReadySample
from reelstream.ranks import OneRank
from reelstream.schedule import WindowLimits, archive_spans, lane_quotas
from reelstream.telemetry import Sink, Telemetry
from reelstream.testing import Recorder
from reelstream.types import Archive, DecodedClip, FrameSampling, Position, RepositoryFile, Span, SpanKind
from unit.prefetch.board_kit import Case, MadeClip, Served, expected_order

FRAMES = FrameSampling(fps=1, max_frames=2, size=2)
CLIP_FRAMES_BYTES = FRAMES.largest_size_bytes
SUBSETS = ("aa", "bb")
CLIPS_IN_SUBSET = 40
SAMPLES = [1 + number * 7 % 5 for number in range(CLIPS_IN_SUBSET)]

Kind = Literal["clip", "undecodable", "link", "unreferenced", "folder"]


@dataclass(frozen=True)
class MadeMember:
    """A member of an archive."""

    kind: Kind
    number: int
    """Of the clip in its subset; of unreferenced members any."""
    size_bytes: int = 100
    target: int | None = None
    """Of a hard link: the number of the clip that it links to; None for one to nothing."""

    @property
    def name(self) -> str:
        """Its path."""
        return f"{'elsewhere' if self.kind == 'unreferenced' else 'source'}/{self.number}.mp4"

    @functools.cached_property
    def content(self) -> bytes:
        """Bytes that tell whose they are, and whether they are whole."""
        body = random.Random(self.number).randbytes(max(0, self.size_bytes - 16))
        start = b"BAD!" if self.kind == "undecodable" else hashlib.sha256(body).digest()[:4]
        return (start + f"{self.number:012}".encode() + body)[: self.size_bytes]


@dataclass(frozen=True)
class MadeArchive:
    """A container of a subset."""

    subset: str
    members: tuple[MadeMember, ...]

    @functools.lru_cache(maxsize=64)  # noqa: B019 - few and small
    def packed(self) -> bytes:
        """As tar.gz."""
        buffer = io.BytesIO()
        with (
            gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, compresslevel=1) as zipped,
            tarfile.open(fileobj=zipped, mode="w") as tar,
        ):
            for member in self.members:
                tar.addfile(*_tar_entry(member))
        return buffer.getvalue()


def _tar_entry(member: MadeMember) -> tuple[tarfile.TarInfo, io.BytesIO | None]:
    info = tarfile.TarInfo(member.name)
    if member.kind == "folder":
        info.type = tarfile.DIRTYPE
    elif member.kind == "link":
        info.type = tarfile.LNKTYPE
        info.linkname = "source/other.mp4" if member.target is None else f"source/{member.target}.mp4"
    else:
        info.size = member.size_bytes
        return info, io.BytesIO(member.content)
    return info, None


_catalogs: list[Catalog] = []


def made_catalog() -> Catalog:
    """The catalog of two subsets, built once."""
    if not _catalogs:
        rows = [
            record(video=f"source/{number}.mp4", id=str(number))
            for number, num_samples in enumerate(SAMPLES)
            for _ in range(num_samples)
        ]
        repository = MadeRepository({f"{subset}/{subset}_oe.json": rows for subset in SUBSETS})
        folder = tempfile.TemporaryDirectory()
        catalog = repository.prepare(Path(folder.name), *SUBSETS)
        # Mapped files need no name.
        folder.cleanup()
        _catalogs.append(catalog)
    return _catalogs[0]


class MadeSource:
    """Hands out archives in pieces of drawn sizes, and counts.

    Args:
        data: Bytes by path.
        seed: Of the sizes.
        on_chunk: Called before each piece, with the path and what calls the reading off.
    """

    def __init__(
        self,
        data: dict[str, bytes],
        seed: int = 0,
        on_chunk: Callable[[str, Cancellation], None] = lambda path, cancellation: None,
    ) -> None:
        self.data = data
        self.on_chunk = on_chunk
        self.fetched: Counter[str] = Counter()
        """Bytes that were taken, by path."""
        self.twice: list[str] = []
        self._seed = seed
        self._ends: dict[str, int] = {}
        self._lock = threading.Lock()

    def read(self, archive: Archive, first_byte: int, end_byte: int, cancellation: Cancellation) -> Iterator[bytes]:
        """As an `ArchiveSource`."""
        path = archive.path
        assert 0 <= first_byte < end_byte <= len(self.data[path])
        with self._lock:
            if first_byte < self._ends.get(path, 0):
                self.twice.append(path)
        draw = random.Random(f"{self._seed} {path} {first_byte}")
        while first_byte < end_byte:
            cancellation.raise_if_cancelled()
            self.on_chunk(path, cancellation)
            size_bytes = min(end_byte - first_byte, draw.choice([1, 37, 1000, 100_000]))
            yield self.data[path][first_byte : first_byte + size_bytes]
            first_byte += size_bytes
            with self._lock:
                self.fetched[path] += size_bytes
                self._ends[path] = first_byte


def decode_made(path: Path, sampling: FrameSampling) -> DecodedClip:
    """Decode what `MadeMember.content` made, and make sure that it is whole."""
    data = path.read_bytes()
    if data[:4] == b"BAD!" or len(data) < 16:
        raise DecodeError("made to be bad")
    assert hashlib.sha256(data[16:]).digest()[:4] == data[:4]
    return DecodedClip(
        frames=np.full((sampling.max_frames, 3, 2, 2), int(data[4:16]) % 256, np.uint8),
        timestamps=np.arange(sampling.max_frames, dtype=np.float64),
        frame_indices=np.arange(sampling.max_frames, dtype=np.int64),
        fps=1.0,
        duration=float(sampling.max_frames),
        truncated=False,
    )


@dataclass
class World:
    """A repository, and how its archives are dealt to lanes."""

    lanes: list[list[MadeArchive]]
    cache_size: int = 8
    limit: int | None = None
    seed: int = 0
    budget_factor: float = 1.0
    """Times the smallest clip budget that works."""
    data: dict[str, bytes] = field(init=False)
    spans: list[list[Span]] = field(init=False)

    def __post_init__(self) -> None:
        self.data, self.spans = {}, []
        for lane in self.lanes:
            spans = []
            for archive in lane:
                path = f"{archive.subset}/{archive.subset}_videos_{len(self.data)}.tar.gz"
                self.data[path] = archive.packed()
                file = RepositoryFile(path=path, size_bytes=len(self.data[path]), sha256=None)
                spans += archive_spans([Archive(subset=archive.subset, file=file)])
            self.spans.append(spans)

    @property
    def plan(self) -> EpochPlan:
        """What the lanes read."""
        return EpochPlan(lanes=self.spans)

    @property
    def span_settings(self) -> SpanSettings:
        """What is fixed of that."""
        return SpanSettings(kind=SpanKind.ARCHIVE)

    @property
    def num_lanes(self) -> int:
        """Of the epoch."""
        return len(self.spans)

    @property
    def catalog(self) -> Catalog:
        """All clips."""
        return made_catalog()

    @property
    def largest_clip_bytes(self) -> int:
        """On disk."""
        sizes = [
            member.size_bytes
            for lane in self.lanes
            for archive in lane
            for member in archive.members
            if member.kind in {"clip", "undecodable"}
        ]
        return allocated_bytes(max(sizes, default=1))

    @property
    def smallest_budget_bytes(self) -> int:
        """For clips."""
        return max(4096, self.largest_clip_bytes) * (self.num_lanes + 2)

    @property
    def budget_bytes(self) -> int:
        """For clips."""
        return int(self.smallest_budget_bytes * self.budget_factor)

    def limits(self, budget_bytes: int | None = None) -> WindowLimits:
        """Of windows."""
        return WindowLimits.of(
            cache_size=self.cache_size,
            num_lanes=self.num_lanes,
            clip_budget_bytes=budget_bytes or self.budget_bytes,
        )

    def start(self, budget_bytes: int | None = None) -> EpochState:
        """Before the first sample."""
        limits = self.limits(budget_bytes)
        settings = EpochSettings(
            catalog=self.catalog.fingerprint,
            seed=self.seed,
            epoch=2,
            shuffle=True,
            limit=self.limit,
            spans=self.span_settings,
            tail="skip",
            num_lanes=self.num_lanes,
            window_clips=limits.clips,
            window_bytes=limits.size_bytes,
        )
        quotas = None if self.limit is None else lane_quotas(self.limit, self.num_lanes, {})
        return EpochState.at_start(settings, self.catalog.num_clips, quotas)

    def case(self) -> Case:
        """The lanes as the schedule sees them."""
        limits = self.limits()
        return Case(
            lanes=[self.clips_of(lane) for lane in range(self.num_lanes)],
            window_clips=limits.clips,
            window_bytes=limits.size_bytes,
            limit=self.limit,
            seed=self.seed,
        )

    def expected(self) -> tuple[list[tuple[Position, int]], str]:
        """The epoch's samples in order, as (position, row of the catalog), and its digest."""
        order, digest = expected_order(self.case())
        return [(sample.position, self.row(sample)) for sample in order], digest

    def num_samples(self, *numbers: int, subset: str = "aa") -> int:
        """Samples of clips, by their members' numbers."""
        clips = [self.catalog.find(subset, MadeMember("clip", number).name) for number in numbers]
        return sum(self.catalog.num_samples_of(clip) for clip in clips if clip is not None)

    def row(self, sample: Served) -> int:
        """Row of the catalog."""
        return self.catalog.samples_of(sample.clip)[sample.sample]

    def clips_of(self, lane: int) -> list[MadeClip]:
        """The clips of a lane as it meets them."""
        clips = []
        for archive in self.lanes[lane]:
            for member in archive.members:
                number = self.catalog.find(archive.subset, member.name)
                if number is None or member.kind == "folder":
                    continue
                found = self.catalog.clip(number)
                bad = "on arrival" if member.kind == "link" else None
                if member.kind == "undecodable" or (bad is None and member.size_bytes < 16):
                    bad = "when decoded"
                size_bytes = 0 if member.kind == "link" else allocated_bytes(member.size_bytes)
                clips.append(MadeClip(number, found.num_samples, size_bytes, bad, found.path, found.subset))  # type: ignore[arg-type]
        return clips


class LearnNothing:
    """Keeps nothing of what readers learn."""

    def known_part(self, span: Span, mark: Mark | None) -> KnownPart | None:
        """Return nothing."""
        return None

    def learned(self, span: Span, rows: Sequence[IndexRow], bookmark: Bookmark | None) -> None:
        """Forget it."""

    def finished(self, result: SpanResult) -> None:
        """Forget it."""

    def verified(self, archive: Archive, reports: Sequence[CutReport], sha256: str | None) -> None:
        """Forget it."""


@dataclass
class Running:
    """A pipeline and what is around it."""

    world: World
    pipeline: EpochPipeline
    source: MadeSource
    cache: ClipCache
    budget: DiskBudget
    folder: Path
    recorder: Recorder
    order: list[tuple[Position, int]] = field(default_factory=list)

    def serve(self, most: int | None = None) -> list[tuple[Position, int]]:
        """Serve samples, all or some; return those."""
        begin = len(self.order)
        while most is None or len(self.order) < begin + most:
            ready = self.pipeline.next_sample()
            if ready is None:
                break
            self.check_frames(ready)
            self.order.append((ready.served.position, ready.served.row))
        return self.order[begin:]

    def check_frames(self, ready: ReadySample) -> None:
        """Make sure that the frames are the clip's, or those of what it is a link to."""
        members = [member for lane in self.world.lanes for archive in lane for member in archive.members]
        links = [(member.number, member.target) for member in members if member.target is not None]
        numbers = {int(Path(ready.served.clip.record.path).stem)}
        for _ in links:
            numbers |= {target for number, target in links if number in numbers}
        assert ready.decoded.frames.flat[0] in numbers

    def check_disk(self) -> None:
        """Make sure that what lies on disk is inside the budget."""
        while True:
            # What goes and comes while we look would be counted together.
            before, size_bytes = set(self.folder.iterdir()), 0
            for path in before:
                with suppress(FileNotFoundError):
                    size_bytes += path.stat().st_blocks * 512
            if before == set(self.folder.iterdir()):
                assert size_bytes <= self.budget.total_bytes
                return

    def assert_nothing_left(self, kept: KeptClips, *, is_alone: bool = True) -> None:
        """Make sure that no file, no byte in the books and no thread is left, but for what is kept.

        Args:
            kept: Clips that stay.
            is_alone: Whether no other pipeline may have threads.
        """
        assert set(self.folder.iterdir()) == {file.path for file in kept.files}
        assert self.cache.check() == []
        assert self.cache.used_bytes == kept.used_bytes == kept.idle_bytes <= kept.limit_bytes
        names = [thread.name for thread in threading.enumerate()]
        lanes = {f"reelstream-lane-{lane.number}" for lane in self.pipeline._board.own}
        assert [name for name in names if name in lanes or (is_alone and name.startswith("reelstream-"))] == []


@contextmanager
def running(
    world: World,
    folder: Path,
    *,
    state: EpochState | None = None,
    budget_bytes: int | None = None,
    connections: int = 8,
    decode_threads: int = 2,
    decoded_memory_bytes: int = 1 << 20,
    prefetch: bool = True,
    max_bad_share: float = 1.0,
    stop_on_bad_archive: bool = True,
    keep_until_window_end: bool = False,
    decode: Decode = decode_made,
    source: MadeSource | None = None,
    kept: KeptClips | None = None,
    cache: ClipCache | None = None,
    budget: DiskBudget | None = None,
    learned: Learned | None = None,
    seed: int = 0,
    sinks: Sequence[Sink] = (),
    together: Together | None = None,
) -> Iterator[Running]:
    """Run an epoch in `folder`; when the block ends, nothing of it may be left."""
    state = state or world.start()
    # A state brings its own windows; the room must hold them.
    budget_bytes = budget_bytes or world.budget_bytes
    folder.mkdir(exist_ok=True)
    budget = budget or DiskBudget(budget_bytes)
    cache = cache or ClipCache(folder, budget.account("clips"))
    kept = KeptClips(0) if kept is None else kept
    recorder = Recorder()
    source = source or MadeSource(world.data, seed)
    parts: list[Running] = []

    def decode_and_check(path: Path, sampling: FrameSampling) -> DecodedClip:
        parts[0].check_disk()
        return decode(path, sampling)

    pipeline = EpochPipeline(
        plan=world.plan,
        state=state,
        catalog=world.catalog,
        source=source,
        learned=learned or LearnNothing(),
        cache=cache,
        kept=kept,
        room=Room(
            clip_budget_bytes=budget_bytes,
            num_lanes=len(state.share.lanes(world.num_lanes)),
            window_bytes=state.settings.window_bytes,
            ahead=prefetch,
            moving_bytes=budget_bytes - kept.limit_bytes if kept.limit_bytes else None,
        ),
        disk_budget_bytes=budget_bytes,
        together=together or Together(OneRank()),
        name="pass",
        options=PipelineOptions(
            frames=FRAMES,
            decode_threads=decode_threads,
            decoded_memory_bytes=decoded_memory_bytes,
            connections=connections,
            max_bad_share=max_bad_share,
            stop_on_bad_archive=stop_on_bad_archive,
            keep_until_window_end=keep_until_window_end,
        ),
        telemetry=Telemetry(recorder, *sinks),
        decode=decode_and_check,
    )
    made = Running(world, pipeline, source, cache, budget, folder, recorder)
    parts.append(made)
    try:
        with pipeline:
            yield made
    finally:
        made.assert_nothing_left(kept, is_alone=together is None)
