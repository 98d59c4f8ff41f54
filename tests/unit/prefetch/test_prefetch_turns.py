from __future__ import annotations

import pickle

import pytest

from reelstream.cache import Room
from reelstream.prefetch.badness import BadClips
from reelstream.prefetch.turns import RangeTurns


def make_room(num_lanes: int = 4, *, ahead: bool = True) -> Room:
    return Room(clip_budget_bytes=12_000_000, num_lanes=num_lanes, window_bytes=2_000_000, ahead=ahead)


def test_the_lane_whose_samples_run_out_first_reads_first() -> None:
    turns, room = RangeTurns(1), make_room()
    for lane in range(3):
        turns.want(lane, 0)
    assert turns.grant(room, [5, 0, 3, 0])
    assert [turns.take(lane) > 0 for lane in range(3)] == [False, True, False]
    assert not turns.grant(room, [5, 0, 3, 0])
    turns.end(1, room)
    assert turns.grant(room, [5, 0, 3, 0])
    assert turns.take(2) > 0


def test_all_free_connections_are_given_at_once() -> None:
    turns, room = RangeTurns(3), make_room()
    for lane in range(4):
        turns.want(lane, 0)
    turns.grant(room, [0] * 4)
    assert [turns.take(lane) > 0 for lane in range(4)] == [True, True, True, False]
    assert turns.num_open == 3


def test_what_is_granted_is_taken_once() -> None:
    turns, room = RangeTurns(1), make_room()
    turns.want(0, 0)
    turns.grant(room, [0] * 4)
    assert turns.take(0) == room.range_bytes
    assert turns.take(0) == 0


def test_a_lane_that_has_no_room_keeps_no_other_from_reading() -> None:
    turns, room = RangeTurns(1), make_room(ahead=False)
    room.admit(0, 0, 1000)
    turns.want(0, 1)
    turns.want(1, 0)
    turns.grant(room, [0] * 4)
    assert turns.take(0) == 0
    assert turns.take(1) > 0


def test_a_pausing_lane_gives_its_connection_away_and_has_the_next_one_that_is_free() -> None:
    turns, room = RangeTurns(1), make_room()
    for lane in (0, 1, 2):
        turns.want(lane, 0)
    turns.grant(room, [0, 1, 2, 3])
    turns.pause(0)
    turns.grant(room, [0, 1, 2, 3])
    assert turns.take(1) > 0
    turns.come_back(0)
    assert not turns.grant(room, [0, 1, 2, 3])
    assert turns.is_paused(0)
    turns.end(1, room)
    turns.grant(room, [9, 1, 2, 3])
    assert not turns.is_paused(0)
    assert turns.take(2) == 0


def test_a_lane_that_pauses_outside_of_a_read_goes_on_at_once() -> None:
    turns = RangeTurns(1)
    turns.pause(0)
    turns.come_back(0)
    assert not turns.is_paused(0)


def test_a_read_that_ends_while_it_pauses_is_gone() -> None:
    turns, room = RangeTurns(1), make_room()
    turns.want(0, 0)
    turns.grant(room, [0] * 4)
    turns.pause(0)
    turns.end(0, room)
    assert not turns.is_paused(0)
    assert turns.num_open == 0


def test_too_many_bad_clips_are_judged_of_a_hundred_at_least() -> None:
    few = BadClips(0.02)
    few.meet()
    assert few.add("s/a", "torn") is None
    assert few.add("s/b", "torn") is None
    error = few.add("s/c", "empty")
    assert error is not None
    assert "s/a: torn" in error.fact
    assert "s/c: empty" in error.fact
    assert pickle.loads(pickle.dumps(error)).fact == error.fact
    many = BadClips(0.02)
    for _ in range(1000):
        many.meet()
    assert all(many.add("s/x", "torn") is None for _ in range(20))
    assert many.add("s/x", "torn") is not None


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_all_or_none(share: float) -> None:
    clips = BadClips(share)
    errors = []
    for number in range(150):
        clips.meet()
        errors.append(clips.add(str(number), "bad"))
    assert (errors[0] is None) == (share == 1.0)
    assert (errors[-1] is None) == (share == 1.0)
