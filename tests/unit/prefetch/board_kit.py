"""Made lanes, an order computed the plain way, and readers that feed a board: for the tests of the schedule in use."""

from __future__ import annotations

import itertools
import random
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from reelstream.prefetch.board import Board
from reelstream.prefetch.state import EpochSettings, EpochState, SpanSettings
from reelstream.prefetch.windows import ResidentClip, Window
from reelstream.schedule import OrderDigest, WindowFormer, WindowLimits, combine_digests, lane_quotas, sample_order
from reelstream.types import ClipRecord, Position, SpanKind

Badness = Literal["on arrival", "when decoded"] | None


@dataclass(frozen=True)
class MadeClip:
    """A clip as a lane meets it."""

    number: int
    """In the catalog; two visits may be of the same clip."""
    num_samples: int
    size_bytes: int = 1
    bad: Badness = None
    path: str = ""
    subset: str = "subset"

    @property
    def name(self) -> str:
        """As digests know it."""
        return f"{self.subset}/{self.path or self.number}"


@dataclass(frozen=True)
class Served:
    """One sample of the expected order."""

    position: Position
    clip: int
    sample: int
    visit: tuple[int, int]
    """Lane, and place of the clip in the lane."""


@dataclass
class Case:
    """An epoch's lanes and settings."""

    lanes: list[list[MadeClip]]
    window_clips: int = 3
    window_bytes: int = 1 << 40
    limit: int | None = None
    seed: int = 0
    shuffle: bool = True
    lengths_are_known: bool = False
    """Whether the quotas of a limited epoch are set for what the lanes have, from its beginning on."""

    @property
    def num_clips(self) -> int:
        """Clips of the catalog."""
        return 1 + max((clip.number for lane in self.lanes for clip in lane), default=0)

    @property
    def settings(self) -> EpochSettings:
        """As an epoch fixes them."""
        return EpochSettings(
            catalog="made",
            seed=self.seed,
            epoch=2,
            shuffle=self.shuffle,
            limit=self.limit,
            spans=SpanSettings(kind=SpanKind.ARCHIVE),
            tail="skip",
            num_lanes=len(self.lanes),
            window_clips=self.window_clips,
            window_bytes=self.window_bytes,
        )

    @property
    def limits(self) -> WindowLimits:
        """Of windows."""
        return WindowLimits(clips=self.window_clips, size_bytes=self.window_bytes)

    def start(self) -> EpochState:
        """Before the first sample."""
        quotas = None if self.limit is None else lane_quotas(self.limit, len(self.lanes), {})
        return EpochState.at_start(self.settings, self.num_clips, quotas)

    def former(self, lane: int, window: int = 0) -> WindowFormer:
        """Says where a lane's windows end."""
        return WindowFormer(lane=lane, num_lanes=len(self.lanes), limits=self.limits, window=window)


# ---------------------------------------------------------------------- the order, computed the plain way


def expected_order(case: Case) -> tuple[list[Served], str]:
    """Return the samples of the whole epoch, in order, and its digest."""
    num_lanes = len(case.lanes)
    taken = [0] * num_lanes
    formers = [case.former(lane) for lane in range(num_lanes)]
    slots = [0] * num_lanes
    digests = [OrderDigest() for _ in range(num_lanes)]
    lengths = {lane: len(clips) for lane, clips in enumerate(case.lanes)} if case.lengths_are_known else {}
    order: list[Served] = []
    turn = 0
    while True:
        quotas = None if case.limit is None else lane_quotas(case.limit, num_lanes, lengths)
        queues: list[deque[Served]] = []
        for lane, clips in enumerate(case.lanes):
            end = len(clips) if quotas is None else min(len(clips), quotas[lane])
            queue: deque[Served] = deque()
            for visits, window in _windows(formers[lane], clips, taken[lane], end):
                drawn = sample_order(
                    [clips[visit].num_samples for visit in visits],
                    seed=case.seed,
                    epoch=2,
                    lane=lane,
                    window=window,
                    shuffle=case.shuffle,
                )
                for place, sample in drawn:
                    clip = clips[visits[place]]
                    if clip.bad is None:
                        position = Position(2, lane, slots[lane])
                        queue.append(Served(position, clip.number, sample, (lane, visits[place])))
                        digests[lane].add(slots[lane], f"{clip.name}#{sample}")
                    slots[lane] += 1
            queues.append(queue)
            if quotas is not None and end == len(clips) < quotas[lane]:
                lengths[lane] = len(clips)
            taken[lane] = end
        while any(queues):
            lane = next(lane % num_lanes for lane in itertools.count(turn) if queues[lane % num_lanes])
            order.append(queues[lane].popleft())
            turn = lane + 1
        if quotas is None or lane_quotas(case.limit or 0, num_lanes, lengths) == quotas:
            return order, combine_digests(digest.value for digest in digests)


def _windows(former: WindowFormer, clips: Sequence[MadeClip], begin: int, end: int) -> Iterator[tuple[list[int], int]]:
    visits: list[int] = []
    for visit in range(begin, end):
        size_bytes = clips[visit].size_bytes
        if former.closes_before(size_bytes):
            yield visits, former.window
            visits = []
            former.close()
        visits.append(visit)
        if former.add(size_bytes):
            yield visits, former.window
            visits = []
            former.close()
    if visits:
        yield visits, former.window
        former.close()


def expected_books(case: Case, order: Sequence[Served], taken: Sequence[int]) -> tuple[int, int, Counter[int]]:
    """Return samples delivered, samples repeated, and samples lost by clip; of the clips that the lanes have given."""
    owners: dict[int, tuple[int, int]] = {}
    served: Counter[bool] = Counter()
    for sample in order:
        owner = owners.setdefault(sample.clip, sample.visit)
        served[owner == sample.visit] += 1
    lost: Counter[int] = Counter()
    for lane, number in zip(case.lanes, taken, strict=True):
        for clip in lane[:number]:
            if clip.bad is not None and clip.number not in owners:
                lost[clip.number] = clip.num_samples
    return served[True], served[False], lost


# ---------------------------------------------------------------------- a board that is fed


@dataclass
class Feeder:
    """Feeds a board as the lanes' readers do, one window at a time, and serves from it."""

    case: Case
    state: EpochState
    board: Board = field(init=False)
    undiscovered: dict[ResidentClip, None] = field(init=False, default_factory=dict)
    """Clips that are bad and not known to be, in closed windows."""
    finished: list[tuple[int, int]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.board = Board(self.state)
        self._readers = [self._read(lane) for lane in range(len(self.case.lanes))]

    def readable(self) -> list[int]:
        """Lanes that can close another window, or come to their end."""
        return [lane.number for lane in self.board.lanes if not (lane.ended or self._waits(lane.number))]

    def advance(self, lane: int) -> None:
        """Let a lane close its next window, pause or end."""
        next(self._readers[lane], None)
        self._collect()

    def discover(self, clip: ResidentClip) -> None:
        """Let a clip be found bad."""
        del self.undiscovered[clip]
        self.board.quarantine(clip, "bad")
        self._collect()

    def serve(self) -> Served | None:
        """Serve the head; None where there is none, or it turned out bad."""
        entry = self.board.head()
        if entry is None:
            return None
        if entry.clip in self.undiscovered:
            self.discover(entry.clip)
            return None
        served = self.board.serve()
        self._collect()
        visit = served.clip.file
        assert isinstance(visit, tuple)
        return Served(served.position, served.clip.record.clip, served.row - served.clip.rows[0], visit)

    def next_round(self) -> bool:
        """Ask the lanes for more; return whether any gives more."""
        return bool(self.board.next_round().lanes)

    def run(self, draw: random.Random, *, most: int | None = None) -> list[Served]:
        """Do what can be done, in a drawn order, until `most` samples are served or the epoch is over."""
        order: list[Served] = []
        while most is None or len(order) < most:
            actions = ["serve", *(["advance"] if self.readable() else []), *(["discover"] if self.undiscovered else [])]
            match draw.choice(actions):
                case "advance":
                    self.advance(draw.choice(self.readable()))
                case "discover":
                    self.discover(draw.choice(list(self.undiscovered)))
                case _:
                    served = self.serve()
                    if served is not None:
                        order.append(served)
                    elif self.board.all_lanes_done() and not self.next_round():
                        return order
        return order

    def _waits(self, lane: int) -> bool:
        return self.board.lanes[lane].paused

    def _collect(self) -> None:
        self.finished += [(lane, window.number) for lane, window in self.board.take_finished()]
        self.undiscovered = {
            clip: None
            for clip in self.undiscovered
            if any(clip in w.clips for w in self.board.lanes[clip.lane].windows)
        }

    def _read(self, number: int) -> Iterator[None]:
        """Do as a lane's reader does; each window is a step."""
        clips, lane, begin = self.case.lanes[number], self.board.lanes[number], self.state.lanes[number]
        former = self.case.former(number, begin.window)
        forming: Window | None = None
        taken = begin.clips
        while True:
            quotas = self.board.quotas
            if quotas is not None and taken >= quotas[number]:
                if forming is not None:
                    self._close(number, former, forming)
                    forming = None
                lane.paused = True
                while lane.paused:
                    yield
                continue
            if taken == len(clips):
                break
            made = clips[taken]
            if former.closes_before(made.size_bytes) and forming is not None:
                self._close(number, former, forming)
                forming = None
                yield
            if forming is None:
                forming = Window(number=former.window, span=0, member=taken, clips_before=taken)
            forming.clips.append(self._met(number, forming, made, taken))
            taken += 1
            forming.end_span, forming.end_member = 0, taken
            if former.add(made.size_bytes):
                self._close(number, former, forming)
                forming = None
                yield
        if forming is not None:
            self._close(number, former, forming)
        lane.ended = True
        yield

    def _met(self, lane: int, window: Window, made: MadeClip, place: int) -> ResidentClip:
        clip = ResidentClip(
            lane=lane,
            window=window.number,
            record=ClipRecord(clip=made.number, subset="subset", path=str(made.number), num_samples=made.num_samples),
            rows=range(100 * made.number, 100 * made.number + made.num_samples),
            size_bytes=made.size_bytes,
            # The board never looks at files; the tests want to know which visit was served.
            file=(lane, place),  # type: ignore[arg-type]
        )
        self.board.lanes[lane].num_clips += 1
        if made.bad == "on arrival":
            self.board.quarantine(clip, "bad")
        return clip

    def _close(self, lane: int, former: WindowFormer, window: Window) -> None:
        former.close()
        self.board.order_samples(lane, window)
        unused = self.board.close_window(lane, window)
        for clip in window.clips:
            made = self.case.lanes[lane][clip.file[1]]  # type: ignore[index]
            if made.bad == "when decoded" and clip not in unused:
                self.undiscovered[clip] = None


def through_json(state: EpochState) -> EpochState:
    """A state as it comes back from a checkpoint."""
    import json

    return EpochState.from_json(json.loads(json.dumps(state.to_json())), len(state.seen))
