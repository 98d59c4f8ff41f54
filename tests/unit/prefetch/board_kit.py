"""Made lanes, an order computed the plain way, and readers that feed a board: for the tests of the schedule in use."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from reelstream.prefetch.board import Board
from reelstream.prefetch.shares import merge_shares, share_of
from reelstream.prefetch.state import EpochSettings, EpochState, SpanSettings, Tail
from reelstream.prefetch.windows import ResidentClip, Window
from reelstream.schedule import (
    OrderDigest,
    RankShare,
    WindowFormer,
    WindowLimits,
    combine_digests,
    lane_quotas,
    sample_order,
)
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
    again: bool = field(default=False, compare=False)
    """Whether its lane has ended, and serves its last window once more."""
    is_echo: bool = field(default=False, compare=False)
    """Whether that window has no good sample, so that it is what was served before it."""


@dataclass
class Case:
    """An epoch's lanes and settings."""

    lanes: list[list[MadeClip]]
    window_clips: int = 3
    window_bytes: int = 1 << 40
    limit: int | None = None
    seed: int = 0
    shuffle: bool = True
    tail: Tail = "skip"
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
            tail=self.tail,
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


class NothingToServeError(Exception):
    """A rank has nothing at all while others have."""


def expected_order(case: Case, world_size: int = 1) -> tuple[list[Served], str]:
    """Return the samples of the whole epoch, in order, and its digest.

    The number of ranks matters only where a lane has nothing at all to serve: then one of the same rank serves twice.

    Raises:
        NothingToServeError: Where a rank has nothing while others have.
    """
    lengths = {lane: len(clips) for lane, clips in enumerate(case.lanes)} if case.lengths_are_known else {}
    lanes = [_ExpectedLane(case, number) for number in range(len(case.lanes))]
    order: list[Served] = []
    turn = 0
    while True:
        quotas = None if case.limit is None else lane_quotas(case.limit, len(lanes), lengths)
        for lane in lanes:
            lane.give(None if quotas is None else quotas[lane.number])
            # A lane whose last window is told looks for another clip before it takes its quota for met.
            most_known = None if quotas is None else quotas[lane.number] - (case.tail != "repeat")
            if most_known is not None and lane.taken == len(lane.clips) <= most_known:
                lengths[lane.number] = len(lane.clips)
        match case.tail:
            case "skip":
                turn = _serve_skipping(lanes, order, turn)
            case "drop":
                while all(lane.queue for lane in lanes):
                    order += [lane.queue.popleft() for lane in lanes]
                return order, _digest(case, order)
            case "repeat":
                _serve_repeating(lanes, order, world_size)
        if quotas is None or lane_quotas(case.limit or 0, len(lanes), lengths) == quotas:
            return order, _digest(case, order)


class _ExpectedLane:
    """One lane's samples, computed the plain way."""

    def __init__(self, case: Case, number: int) -> None:
        self.case = case
        self.number = number
        self.clips = case.lanes[number]
        self.former = case.former(number)
        self.taken = 0
        self.slot = 0
        self.queue: deque[Served] = deque()
        self.last: list[Served] = []
        """The good samples of the last window."""
        self.num_again = 0
        self.final: Served | None = None
        """What was served last, but for repeats."""

    def give(self, quota: int | None) -> None:
        """Queue the samples of the clips up to a quota."""
        end = len(self.clips) if quota is None else min(len(self.clips), quota)
        for visits, window in _windows(self.former, self.clips, self.taken, end):
            self.last, self.num_again = [], 0
            drawn = sample_order(
                [self.clips[visit].num_samples for visit in visits],
                seed=self.case.seed,
                epoch=2,
                lane=self.number,
                window=window,
                shuffle=self.case.shuffle,
            )
            for place, sample in drawn:
                clip = self.clips[visits[place]]
                if clip.bad is None:
                    position = Position(2, self.number, self.slot)
                    self.last.append(Served(position, clip.number, sample, (self.number, visits[place])))
                self.slot += 1
            self.queue.extend(self.last)
        self.taken = end

    def serve(self) -> Served:
        """Serve the next sample, or the last window once more."""
        if self.queue:
            self.final = self.queue.popleft()
            return self.final
        if not self.last:
            assert self.final is not None
            self.slot += 1
            return dataclasses.replace(
                self.final, position=Position(2, self.number, self.slot - 1), again=True, is_echo=True
            )
        was = self.last[self.num_again % len(self.last)]
        self.num_again += 1
        self.slot += 1
        return dataclasses.replace(was, position=Position(2, self.number, self.slot - 1), again=True)


def _serve_skipping(lanes: Sequence[_ExpectedLane], order: list[Served], turn: int) -> int:
    while any(lane.queue for lane in lanes):
        number = next(number % len(lanes) for number in itertools.count(turn) if lanes[number % len(lanes)].queue)
        order.append(lanes[number].serve())
        turn = number + 1
    return turn


def _serve_repeating(lanes: Sequence[_ExpectedLane], order: list[Served], world_size: int) -> None:
    while any(lane.queue for lane in lanes):
        for turn in range(len(lanes)):
            own = (lanes[number % len(lanes)] for number in range(turn, turn + len(lanes) * world_size, world_size))
            lane = next((lane for lane in own if lane.queue or lane.last or lane.final), None)
            if lane is None:
                raise NothingToServeError
            order.append(lane.serve())


def _digest(case: Case, order: Sequence[Served]) -> str:
    digests = [OrderDigest() for _ in case.lanes]
    for sample in order:
        lane = sample.position.lane
        digests[lane].add(sample.position.slot, f"{case.lanes[lane][sample.visit[1]].name}#{sample.sample}")
    return combine_digests(digest.value for digest in digests)


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
        served[owner == sample.visit and not sample.again] += 1
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
        return [lane.number for lane in self.board.own if not (lane.ended or self._waits(lane.number))]

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

    def _read(self, number: int) -> Iterator[None]:  # noqa: C901 - one reader's life, step by step
        """Do as a lane's reader does; each window is a step."""
        clips, lane, begin = self.case.lanes[number], self.board.lanes[number], self.state.lanes[number]
        former = self.case.former(number, begin.window)
        forming: Window | None = None
        is_full = False
        tells_last = self.case.tail == "repeat"
        taken = begin.clips
        while True:
            if tells_last and taken == len(clips):
                break
            quotas = self.board.quotas
            if quotas is not None and taken >= quotas[number]:
                if forming is not None:
                    forming.is_last = True
                    self._close(number, former, forming)
                    forming, is_full = None, False
                lane.paused = True
                while lane.paused:
                    yield
                continue
            if taken == len(clips):
                break
            made = clips[taken]
            if forming is not None and (is_full or former.closes_before(made.size_bytes)):
                self._close(number, former, forming)
                forming = None
                yield
            if forming is None:
                forming = Window(number=former.window, span=0, member=taken, clips_before=taken)
            forming.clips.append(self._met(number, forming, made, taken))
            taken += 1
            forming.end_span, forming.end_member = 0, taken
            is_full = former.add(made.size_bytes)
            if is_full and not tells_last:
                self._close(number, former, forming)
                forming = None
                yield
        if forming is not None:
            forming.is_last = True
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
            decoded_before=made.bad is None,
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


@dataclass
class RankedFeeders:
    """The boards of several ranks, which agree before each round as their pipelines do."""

    case: Case
    state: EpochState
    world_size: int
    feeders: list[Feeder] = field(init=False)
    served: list[list[Served]] = field(init=False)

    def __post_init__(self) -> None:
        shares = [RankShare(rank=rank, world_size=self.world_size) for rank in range(self.world_size)]
        self.feeders = [Feeder(self.case, share_of(self.state, share)) for share in shares]
        self.served = [[] for _ in shares]
        self._agreed = [-1] * self.world_size
        self._votes: dict[int, bool] = {}

    def run(self, draw: random.Random, *, most: int | None = None) -> list[Served]:
        """Do what can be done, in a drawn order, until each rank has served `most` or the epoch is over; join it."""
        while True:
            busy = [
                rank
                for rank in range(self.world_size)
                if rank not in self._votes and (most is None or len(self.served[rank]) < most)
            ]
            if not busy:
                break
            self._act(draw.choice(busy), draw)
            if len(self._votes) == self.world_size and not self._agree():
                break
        return [sample for row in zip(*self.served, strict=True) for sample in row]

    def merged(self) -> EpochState:
        """The state of all ranks, once all have served the same number."""
        return merge_shares([through_json(feeder.board.state_after(None)) for feeder in self.feeders])

    def _act(self, rank: int, draw: random.Random) -> None:
        feeder = self.feeders[rank]
        actions = ["serve", *(["advance"] if feeder.readable() else []), *(["discover"] if feeder.undiscovered else [])]
        match draw.choice(actions):
            case "advance":
                feeder.advance(draw.choice(feeder.readable()))
            case "discover":
                feeder.discover(draw.choice(list(feeder.undiscovered)))
            case _ if feeder.board.at_border and self._agreed[rank] != feeder.board.num_served:
                self._vote(rank)
            case _:
                served = feeder.serve()
                if served is not None:
                    self.served[rank].append(served)

    def _vote(self, rank: int) -> None:
        board = self.feeders[rank].board
        outlooks = [board.outlook(lane) for lane in board.own]
        settling = "none" if self.case.tail == "drop" else "more"
        if settling in outlooks:
            self._votes[rank] = settling == "more"
        elif "unknown" not in outlooks:
            self._votes[rank] = settling == "none"

    def _agree(self) -> bool:
        """Count the votes; return whether the epoch goes on."""
        goes_on = (all if self.case.tail == "drop" else any)(self._votes.values())
        self._votes = {}
        boards = [feeder.board for feeder in self.feeders]
        assert len({board.num_served for board in boards}) == 1
        if goes_on:
            self._agreed = [board.num_served for board in boards]
            return True
        lengths = {lane: length for board in boards for lane, length in board.lengths.items()}
        rounds = {board.next_round(lengths).goes_on for board in boards}
        assert len(rounds) == 1
        if rounds == {True}:
            return True
        for feeder in self.feeders:
            feeder.board.end()
            feeder._collect()
        return False


def through_json(state: EpochState) -> EpochState:
    """A state as it comes back from a checkpoint."""
    import json

    return EpochState.from_json(json.loads(json.dumps(state.to_json())), len(state.seen))
