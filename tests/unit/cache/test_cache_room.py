"""The policy of the clip budget, under any sizes and any progress of the lanes."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reelstream.cache import Room
from reelstream.schedule import WindowFormer, WindowLimits

BLOCK = 4096


@dataclass
class Simulation:
    """Lanes that write clips into windows as a room lets them, and a consumer that uses windows up."""

    room: Room
    limits: WindowLimits
    sizes: list[list[int]]
    written: list[int] = field(init=False)
    formers: list[WindowFormer] = field(init=False)
    forming: list[list[int]] = field(init=False)
    closed: list[deque[tuple[int, list[int]]]] = field(init=False)
    reading: list[bool] = field(init=False)

    def __post_init__(self) -> None:
        num_lanes = len(self.sizes)
        self.written = [0] * num_lanes
        self.formers = [WindowFormer(lane=lane, num_lanes=num_lanes, limits=self.limits) for lane in range(num_lanes)]
        self.forming = [[] for _ in range(num_lanes)]
        self.closed = [deque() for _ in range(num_lanes)]
        self.reading = [True] * num_lanes

    def can_write(self, lane: int) -> bool:
        """Close the window where the next clip falls in another; return whether that clip may be written."""
        if not self.reading[lane]:
            return False
        size_bytes = self.sizes[lane][self.written[lane]]
        if self.formers[lane].closes_before(size_bytes):
            self._close(lane)
        return self.room.may_admit(lane, self.formers[lane].window, size_bytes)

    def write(self, lane: int) -> None:
        """Write the next clip of a lane."""
        size_bytes = self.sizes[lane][self.written[lane]]
        self.room.announce(lane, self.room.next_range_bytes(lane, self.formers[lane].window))
        self.room.admit(lane, self.formers[lane].window, size_bytes)
        self.room.announce(lane, 0)
        self.forming[lane].append(size_bytes)
        self.written[lane] += 1
        if self.formers[lane].add(size_bytes):
            self._close(lane)
        self.end_where_nothing_follows(lane)

    def end_where_nothing_follows(self, lane: int) -> None:
        """Let a lane whose clips are all written end."""
        if self.reading[lane] and self.written[lane] == len(self.sizes[lane]):
            self._close(lane)
            self.reading[lane] = False
            self.room.finish_reading(lane)

    def use(self, lane: int) -> None:
        """Use up a clip of a lane's oldest window."""
        window, clips = self.closed[lane][0]
        self.room.free(lane, window, clips.pop())
        if not clips:
            self.closed[lane].popleft()
            self.room.finish_window(lane, window)

    def _close(self, lane: int) -> None:
        if self.forming[lane]:
            self.closed[lane].append((self.formers[lane].window, self.forming[lane]))
            self.forming[lane] = []
            self.formers[lane].close()


@st.composite
def simulations(draw: st.DrawFn, *, ahead: bool) -> Simulation:
    num_lanes = draw(st.integers(1, 9))
    budget_bytes = draw(st.integers(256, 4000)) * BLOCK
    limits = WindowLimits.of(cache_size=draw(st.integers(1, 60)), num_lanes=num_lanes, clip_budget_bytes=budget_bytes)
    room = Room(clip_budget_bytes=budget_bytes, num_lanes=num_lanes, window_bytes=limits.size_bytes, ahead=ahead)
    largest = room.largest_clip_bytes // BLOCK
    draws = random.Random(draw(st.integers(0, 2**32)))
    sizes = [
        [draws.choice([largest, draws.randint(0, largest), 1]) * BLOCK for _ in range(draws.choice([0, 1, 5, 40]))]
        for _ in range(num_lanes)
    ]
    return Simulation(room, limits, sizes)


def run(simulation: Simulation, draws: random.Random, *, ahead: bool) -> None:
    """Go on in any order until all is used up, checking at each step that it can go on."""
    lanes = range(len(simulation.sizes))
    room = simulation.room
    for lane in lanes:
        simulation.end_where_nothing_follows(lane)
    while any(simulation.reading) or any(simulation.closed):
        writable = [lane for lane in lanes if simulation.can_write(lane)]
        usable = [lane for lane in lanes if simulation.closed[lane]]
        for lane in lanes:
            if simulation.reading[lane] and not simulation.closed[lane]:
                # The consumer may wait for this very lane.
                assert lane in writable
                assert room.next_range_bytes(lane, simulation.formers[lane].window) > 0
            if not ahead:
                assert len(simulation.closed[lane]) + bool(simulation.forming[lane]) <= 1
                if simulation.closed[lane] and simulation.reading[lane]:
                    assert lane not in writable
                    assert room.next_range_bytes(lane, simulation.formers[lane].window) == 0
        if writable and (not usable or draws.random() < 0.7):
            simulation.write(draws.choice(writable))
        else:
            simulation.use(draws.choice(usable))
        held = sum(map(sum, simulation.forming)) + sum(sum(clips) for lane in simulation.closed for _, clips in lane)
        assert room.held_bytes == held <= room.clip_budget_bytes
    assert room.held_bytes == 0


@settings(max_examples=300, deadline=None)
@given(simulations(ahead=True), st.integers(0, 2**32))
def test_whatever_the_sizes_the_budget_holds_and_every_lane_can_go_on(simulation: Simulation, seed: int) -> None:
    run(simulation, random.Random(seed), ahead=True)


@settings(max_examples=100, deadline=None)
@given(simulations(ahead=False), st.integers(0, 2**32))
def test_without_prefetching_only_the_windows_in_use_are_on_disk(simulation: Simulation, seed: int) -> None:
    run(simulation, random.Random(seed), ahead=False)


def make_room(
    num_lanes: int, *, ahead: bool = True, budget_bytes: int = 1200 * BLOCK, moving_bytes: int | None = None
) -> Room:
    limits = WindowLimits.of(cache_size=100, num_lanes=num_lanes, clip_budget_bytes=budget_bytes)
    return Room(
        clip_budget_bytes=budget_bytes,
        num_lanes=num_lanes,
        window_bytes=limits.size_bytes,
        ahead=ahead,
        moving_bytes=moving_bytes,
    )


def fill(room: Room, lane: int, window: int, size_bytes: int) -> int:
    """Write clips of a size as long as they are admitted; return how many."""
    number = 0
    while room.may_admit(lane, window, size_bytes):
        room.admit(lane, window, size_bytes)
        number += 1
    return number


def test_windows_ahead_leave_each_reading_lane_its_share() -> None:
    room = make_room(4)
    room.admit(0, 0, BLOCK)
    # Its own share, and the third of the budget that is beside the shares.
    assert fill(room, 0, 1, 10 * BLOCK) == (200 + 400) // 10 - 1
    for lane in (1, 2, 3):
        assert room.may_admit(lane, 0, room.largest_clip_bytes)


def test_the_share_of_a_lane_that_reads_no_more_is_free_for_the_others() -> None:
    room = make_room(4)
    room.admit(0, 0, BLOCK)
    for lane in (1, 2, 3):
        room.finish_reading(lane)
    assert fill(room, 0, 1, 10 * BLOCK) == 1200 // 10 - 1


def test_a_lane_that_reads_on_has_its_share_again() -> None:
    room = make_room(2)
    for lane in (0, 1):
        room.finish_reading(lane)
        room.resume_reading(lane)
    room.admit(0, 0, BLOCK)
    # All but the other lane's share.
    assert fill(room, 0, 1, 10 * BLOCK) == (1200 - 400) // 10 - 1


def test_a_window_that_was_ahead_becomes_the_front_one_when_that_is_used_up() -> None:
    room = make_room(1, ahead=False)
    room.admit(0, 0, BLOCK)
    assert not room.may_admit(0, 1, BLOCK)
    room.free(0, 0, BLOCK)
    assert not room.may_admit(0, 1, BLOCK)
    room.finish_window(0, 0)
    assert room.may_admit(0, 1, BLOCK)


def test_ranges_of_other_lanes_under_way_count_as_taken() -> None:
    room = make_room(2)
    room.admit(0, 0, BLOCK)
    before = room.next_range_bytes(0, 1)
    assert before == room.range_bytes
    room.announce(1, 1200 * BLOCK)
    assert room.next_range_bytes(0, 1) == 0
    assert room.next_range_bytes(0, 0) > 0
    room.announce(1, 0)
    assert room.next_range_bytes(0, 1) == before


@pytest.mark.parametrize("num_lanes", [1, 2, 3, 4, 8, 32])
def test_the_smallest_budget_for_a_clip_works_with_that_clip(num_lanes: int) -> None:
    clip_bytes = 12_345 * BLOCK
    smallest = make_room(num_lanes).smallest_budget_for(clip_bytes)
    assert make_room(num_lanes, budget_bytes=smallest).largest_clip_bytes >= clip_bytes
    assert make_room(num_lanes, budget_bytes=smallest - 1).largest_clip_bytes < clip_bytes


def test_windows_ahead_fill_no_more_than_what_is_left_beside_the_kept() -> None:
    room = make_room(4, moving_bytes=400 * BLOCK)
    room.admit(0, 0, BLOCK)
    # Its own share of what moves, an eighth, and the half that is for all.
    assert fill(room, 0, 1, 10 * BLOCK) == (50 + 200) // 10 - 1
    for lane in (1, 2, 3):
        room.admit(lane, 0, BLOCK)
        assert fill(room, lane, 1, 49 * BLOCK) == 1, "the rest of its share"
    assert room.held_bytes <= 400 * BLOCK


def test_a_front_window_is_filled_whatever_is_kept() -> None:
    room = make_room(4, moving_bytes=0)
    for lane in range(4):
        room.admit(lane, 0, BLOCK)
        assert not room.may_admit(lane, 1, BLOCK)
        assert room.next_range_bytes(lane, 1) == 0
        assert room.may_admit(lane, 0, room.largest_clip_bytes)
        assert room.next_range_bytes(lane, 0) == room.range_bytes // 2


def test_kept_clips_are_used_ahead_where_those_that_move_find_no_room() -> None:
    room = make_room(2, moving_bytes=8 * BLOCK)
    room.admit(0, 0, 5 * BLOCK)
    assert not room.may_admit(0, 1, 2 * BLOCK)
    assert room.may_admit(0, 1, 2 * BLOCK, in_place=True)
    room.admit(0, 1, 2 * BLOCK, in_place=True)
    # They cannot be given up while they are used: so they leave the other lane its share.
    while room.may_admit(0, 1, 100 * BLOCK, in_place=True):
        room.admit(0, 1, 100 * BLOCK, in_place=True)
    assert room.held_bytes == (5 + 2 + 700) * BLOCK
    assert room.may_admit(1, 0, 300 * BLOCK)
    room.free(0, 0, 5 * BLOCK)
    room.finish_window(0, 0)
    room.free(0, 1, 702 * BLOCK, in_place=True)
    room.finish_window(0, 1)
    assert room.held_bytes == 0


def test_kept_clips_are_given_up_for_front_windows_only_and_no_more_than_is_missing() -> None:
    room = make_room(2, moving_bytes=200 * BLOCK)
    room.admit(0, 0, 100 * BLOCK)
    kept_bytes = 1000 * BLOCK
    assert room.shortage_bytes(0, 0, 100 * BLOCK, kept_bytes) == 0
    assert room.shortage_bytes(0, 0, 101 * BLOCK, kept_bytes) == BLOCK
    assert room.shortage_bytes(1, 0, 101 * BLOCK, kept_bytes) == BLOCK
    assert room.shortage_bytes(0, 1, 101 * BLOCK, kept_bytes) == 0
    # A clip that is used in place is one of the kept.
    room.admit(0, 0, 50 * BLOCK, in_place=True)
    assert room.shortage_bytes(0, 0, 100 * BLOCK, kept_bytes) == 0


def test_a_window_whose_clips_come_and_go_in_any_order_stays_the_front_one_until_it_is_finished() -> None:
    room = make_room(1, ahead=False)
    room.admit(0, 0, BLOCK)
    room.free(0, 0, BLOCK)
    assert room.held_bytes == 0
    assert room.may_admit(0, 0, BLOCK)
    assert not room.may_admit(0, 1, BLOCK)
    room.finish_window(0, 0)
    room.finish_window(0, 1)
    assert room.may_admit(0, 2, BLOCK), "a window of no clips at all has passed"


def test_ranged_reads_are_small_where_little_moves_and_as_before_where_nothing_is_kept() -> None:
    budget_bytes = 10**9
    assert make_room(4, budget_bytes=budget_bytes).range_bytes == 32_000_000
    assert make_room(4, budget_bytes=budget_bytes, moving_bytes=10**8).range_bytes == 10**8 // 16
    assert make_room(4, budget_bytes=budget_bytes, moving_bytes=0).range_bytes == 1 << 19
