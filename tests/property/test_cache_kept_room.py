"""Kept clips and the room policy together: any sizes, any order of arrival, any progress, over several epochs.

The owner of room and kept clips is played here as `prefetch` plays it: kept clips are used in place, others are
written; at its last use a clip is offered, and deleted where it does not stay; a deleted clip may linger while it is
read.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from reelstream.cache import ClipFile, KeptClips, Room
from reelstream.schedule import WindowFormer, WindowLimits

BLOCK = 4096


@dataclass(frozen=True)
class Dataset:
    """Clips by number, and what they may take."""

    sizes: tuple[int, ...]
    """On disk."""
    num_lanes: int
    limits: WindowLimits
    clip_budget_bytes: int
    moving_bytes: int | None

    @property
    def kept_bytes(self) -> int:
        return self.clip_budget_bytes - (self.moving_bytes or 0)

    def room(self, *, ahead: bool = True) -> Room:
        return Room(
            clip_budget_bytes=self.clip_budget_bytes,
            num_lanes=self.num_lanes,
            window_bytes=self.limits.size_bytes,
            ahead=ahead,
            moving_bytes=self.moving_bytes,
        )

    def windows(self, draws: random.Random, lane: int, numbers: Sequence[int]) -> Iterator[Window]:
        """Cut a lane's clips into windows, each in a random order of arrival."""
        former = WindowFormer(lane=lane, num_lanes=self.num_lanes, limits=self.limits)
        forming: list[int] = []
        closed = []
        for number in numbers:
            if former.closes_before(self.sizes[number]):
                closed.append(forming)
                forming = []
                former.close()
            forming.append(number)
            if former.add(self.sizes[number]):
                closed.append(forming)
                forming = []
                former.close()
        for number, clips in enumerate([*closed, *([forming] if forming else [])]):
            yield Window(number, draws.sample(clips, len(clips)))


@dataclass
class Window:
    number: int
    coming: list[int]
    """Clips that have not arrived; the last one arrives next."""
    arrived: list[tuple[int, ClipFile, bool]] = field(default_factory=list)
    """Clip, file, whether it is used in place."""


class Epoch:
    """One epoch's lanes in motion."""

    def __init__(self, dataset: Dataset, kept: KeptClips, lanes: Sequence[Sequence[Window]], *, ahead: bool) -> None:
        self.dataset = dataset
        self.kept = kept
        self.room = dataset.room(ahead=ahead)
        self.unread = [list(reversed(windows)) for windows in lanes]
        self.open: list[list[Window]] = [[] for _ in lanes]
        self.written: set[ClipFile] = set()
        self.lingering: list[ClipFile] = []
        self.num_given_up = 0
        self.visited: Counter[int] = Counter()
        self.num_written = 0
        for lane in range(len(lanes)):
            self._read_on(lane)

    @property
    def over(self) -> bool:
        return not any(self.open)

    @property
    def disk_bytes(self) -> int:
        return self.kept.used_bytes + sum(file.reserved_bytes for file in [*self.written, *self.lingering])

    def reading(self, lane: int) -> Window | None:
        """Return the window that a lane's next clip falls in."""
        window = self.open[lane][-1] if self.open[lane] else None
        return window if window is not None and window.coming else None

    def may_arrive(self, lane: int) -> bool:
        """Whether a lane's next clip may be used in place, or written once all that is deleted is gone."""
        window = self.reading(lane)
        if window is None:
            return False
        number = window.coming[-1]
        size_bytes = self.dataset.sizes[number]
        in_place = number in self.kept
        if not self.room.may_admit(lane, window.number, size_bytes, in_place=in_place):
            return False
        if in_place:
            return True
        shortage_bytes = self.room.shortage_bytes(lane, window.number, size_bytes, self.kept.used_bytes)
        if self._is_front(lane, window):
            assert shortage_bytes <= self.kept.idle_bytes, "a front window cannot go on, whatever is given up"
        else:
            assert shortage_bytes == 0, "something kept would be given up for a window ahead"
        gone_bytes = sum(file.reserved_bytes for file in self.lingering)
        return self.disk_bytes - gone_bytes - shortage_bytes + size_bytes <= self.room.clip_budget_bytes

    def arrive(self, lane: int) -> None:
        """Let a lane's next clip arrive, in place or on disk."""
        window = self.reading(lane)
        assert window is not None
        number = window.coming[-1]
        size_bytes = self.dataset.sizes[number]
        file = self.kept.take(number)
        in_place = file is not None
        if file is None:
            shortage_bytes = self.room.shortage_bytes(lane, window.number, size_bytes, self.kept.used_bytes)
            for given_up in self.kept.give_up(shortage_bytes):
                self.num_given_up += 1
                self.lingering.append(given_up)
            self._let_readers_end()
            file = ClipFile(Path(f"clip-{number}"), size_bytes, size_bytes)
            self.written.add(file)
            self.num_written += 1
        self.room.admit(lane, window.number, size_bytes, in_place=in_place)
        assert self.disk_bytes <= self.room.clip_budget_bytes
        window.coming.pop()
        window.arrived.append((number, file, in_place))
        self._read_on(lane)

    def use(self, lane: int, draws: random.Random, *, bad: bool) -> None:
        """Use one of the clips of a lane's front window for the last time."""
        window = self.open[lane][0]
        number, file, in_place = window.arrived.pop(draws.randrange(len(window.arrived)))
        self.visited[number] += 1
        stays = self.kept.discard(number, file) if bad else self.kept.offer(number, file)
        self.written.discard(file)
        if not stays:
            self.lingering.append(file)
            if draws.random() < 0.7:
                self._let_readers_end()
        self.room.free(lane, window.number, self.dataset.sizes[number], in_place=in_place)
        if not window.arrived and not window.coming:
            self.open[lane].pop(0)
            self.room.finish_window(lane, window.number)

    def _let_readers_end(self) -> None:
        self.lingering.clear()

    def _is_front(self, lane: int, window: Window) -> bool:
        return self.open[lane][0] is window

    def _read_on(self, lane: int) -> None:
        """Begin the lane's next window once the one before has arrived whole."""
        if self.reading(lane) is not None:
            return
        if self.unread[lane]:
            self.open[lane].append(self.unread[lane].pop())
        else:
            self.room.finish_reading(lane)


def run(epoch: Epoch, draws: random.Random, *, share_bad: float = 0.0) -> None:
    """Go on in any order until all is used, checking at each step that every lane can."""
    lanes = range(epoch.dataset.num_lanes)
    eager = draws.choice([0.2, 0.7, 1.0])
    while not epoch.over:
        ready = [lane for lane in lanes if epoch.may_arrive(lane)]
        usable = [lane for lane in lanes if epoch.open[lane] and epoch.open[lane][0].arrived]
        for lane in lanes:
            if epoch.open[lane] and epoch.open[lane][0].coming:
                # The consumer may wait for this very lane.
                assert lane in ready
                assert epoch.room.next_range_bytes(lane, epoch.open[lane][0].number) > 0
        assert ready or usable, "nothing can go on"
        if ready and (not usable or draws.random() < eager):
            epoch.arrive(draws.choice(ready))
        else:
            epoch.use(draws.choice(usable), draws, bad=draws.random() < share_bad)
        assert epoch.kept.idle_bytes + sum(
            file.reserved_bytes for file in {file for _, file, in_place in _arrived(epoch) if in_place}
        ) == (epoch.kept.used_bytes)
    assert epoch.room.held_bytes == 0
    assert not epoch.written
    assert epoch.kept.idle_bytes == epoch.kept.used_bytes <= epoch.dataset.kept_bytes


def _arrived(epoch: Epoch) -> Iterator[tuple[int, ClipFile, bool]]:
    for windows in epoch.open:
        for window in windows:
            yield from window.arrived


def deal(dataset: Dataset, draws: random.Random, *, num_twice: int = 0) -> list[list[Window]]:
    """Deal all clips to lanes in a new order, some of them twice."""
    numbers = list(range(len(dataset.sizes)))
    numbers += draws.sample(numbers, min(num_twice, len(numbers)))
    draws.shuffle(numbers)
    lanes = [numbers[lane :: dataset.num_lanes] for lane in range(dataset.num_lanes)]
    if draws.random() < 0.3:
        # Lanes need not be alike.
        lanes[0], lanes[-1] = lanes[0] + lanes[-1], []
        if dataset.num_lanes == 1:
            lanes = [numbers]
    return [list(dataset.windows(draws, lane, clips)) for lane, clips in enumerate(lanes)]


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    num_lanes = draw(st.integers(1, 6))
    budget_bytes = draw(st.integers(64, 2000)) * BLOCK
    limits = WindowLimits.of(cache_size=draw(st.integers(1, 40)), num_lanes=num_lanes, clip_budget_bytes=budget_bytes)
    largest = budget_bytes // (num_lanes + 2) // BLOCK
    usual = draw(st.integers(1, max(1, largest // 4)))
    draws = random.Random(draw(st.integers(0, 2**32)))
    weights = draw(st.sampled_from([(1, 0, 0), (8, 1, 1), (1, 1, 0), (1, 1, 1)]))
    sizes = tuple(
        BLOCK * draws.choices([draws.randint(1, usual), draws.randint(0, largest), largest], weights)[0]
        for _ in range(draw(st.integers(1, 80)))
    )
    share = draw(st.sampled_from([None, 0.0, 0.05, 0.2, 0.5, 0.9, 1.0]))
    moving_bytes = None if share is None else int(share * budget_bytes)
    return Dataset(sizes, num_lanes, limits, budget_bytes, moving_bytes)


SEEDS = st.integers(0, 2**32)


@settings(max_examples=200, deadline=None)
@given(datasets(), SEEDS, st.integers(0, 10), st.sampled_from([0.0, 0.0, 0.1]), st.booleans())
def test_whatever_is_kept_the_budget_holds_and_every_lane_can_go_on(
    dataset: Dataset, seed: int, num_twice: int, share_bad: float, ahead: bool
) -> None:
    draws = random.Random(seed)
    kept = KeptClips(dataset.kept_bytes)
    for _ in range(3):
        epoch = Epoch(dataset, kept, deal(dataset, draws, num_twice=num_twice), ahead=ahead)
        run(epoch, draws, share_bad=share_bad)
        assert set(epoch.visited) == set(range(len(dataset.sizes)))
        kept.end_visits()


@settings(max_examples=200, deadline=None)
@given(datasets(), SEEDS)
def test_nothing_kept_is_given_up_as_long_as_windows_are_no_larger_than_their_part_of_what_moves(
    dataset: Dataset, seed: int
) -> None:
    if dataset.moving_bytes is None:
        return
    share_bytes = dataset.moving_bytes // (2 * dataset.num_lanes)
    smaller = Dataset(
        tuple(min(size_bytes, share_bytes) for size_bytes in dataset.sizes),
        dataset.num_lanes,
        WindowLimits(clips=dataset.limits.clips, size_bytes=max(1, min(dataset.limits.size_bytes, share_bytes))),
        dataset.clip_budget_bytes,
        dataset.moving_bytes,
    )
    draws = random.Random(seed)
    kept = KeptClips(smaller.kept_bytes)
    before: set[ClipFile] = set()
    for _ in range(3):
        num_kept = len(kept)
        epoch = Epoch(smaller, kept, deal(smaller, draws), ahead=True)
        run(epoch, draws)
        assert epoch.num_given_up == 0
        assert before <= set(kept.files), "what was kept once stays"
        assert epoch.num_written == len(smaller.sizes) - num_kept, "what is kept is not fetched again"
        before = set(kept.files)


@settings(max_examples=100, deadline=None)
@given(datasets(), SEEDS)
def test_where_all_fits_the_second_epoch_writes_nothing(dataset: Dataset, seed: int) -> None:
    num_fitting = sum(total <= dataset.clip_budget_bytes for total in itertools.accumulate(dataset.sizes))
    sizes = dataset.sizes[:num_fitting]
    if not sizes:
        return
    fitting = Dataset(sizes, dataset.num_lanes, dataset.limits, dataset.clip_budget_bytes, None)
    draws = random.Random(seed)
    kept = KeptClips(fitting.kept_bytes)
    written = []
    for _ in range(2):
        epoch = Epoch(fitting, kept, deal(fitting, draws), ahead=True)
        run(epoch, draws)
        written.append(epoch.num_written)
    # Files of no bytes are never kept.
    assert written == [len(sizes), sum(size == 0 for size in sizes)]


@settings(max_examples=100, deadline=None)
@given(datasets(), SEEDS)
def test_survivors_beyond_the_limit_are_used_once_and_never_in_the_way(dataset: Dataset, seed: int) -> None:
    draws = random.Random(seed)
    kept = KeptClips(dataset.kept_bytes)
    for number in draws.sample(range(len(dataset.sizes)), len(dataset.sizes)):
        size_bytes = dataset.sizes[number]
        if kept.used_bytes + size_bytes <= dataset.clip_budget_bytes:
            kept.restore(number, ClipFile(Path(f"clip-{number}"), size_bytes, size_bytes))
    num_restored = len(kept)
    epoch = Epoch(dataset, kept, deal(dataset, draws), ahead=True)
    run(epoch, draws)
    assert epoch.num_written <= len(dataset.sizes) - num_restored + epoch.num_given_up
