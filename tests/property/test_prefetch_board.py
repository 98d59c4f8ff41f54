"""The board against an order computed the plain way: whatever the timing, and however often it is resumed."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from unit.prefetch.board_kit import Case, Feeder, MadeClip, expected_books, expected_order, through_json


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Lanes of different lengths, some empty, with bad clips, and clips that lie in several places."""
    num_lanes = draw(st.integers(1, 5))
    lengths = [draw(st.integers(0, 9)) for _ in range(num_lanes)]
    copies = draw(st.booleans())
    num_clips = max(1, sum(lengths) * (2 if copies else 3) // 3)
    samples = [draw(st.integers(1, 5)) for _ in range(sum(lengths) + 1)]
    lanes, met = [], 0
    for length in lengths:
        lane = []
        for _ in range(length):
            number = draw(st.integers(0, num_clips - 1)) if copies else met
            bad = draw(st.sampled_from([None, None, None, "on arrival", "when decoded"]))
            lane.append(MadeClip(number, samples[number], draw(st.integers(1, 10)), bad))  # type: ignore[arg-type]
            met += 1
        lanes.append(lane)
    return Case(
        lanes=lanes,
        window_clips=draw(st.integers(1, 6)),
        window_bytes=draw(st.sampled_from([5, 15, 1000])),
        limit=draw(st.none() | st.integers(1, sum(lengths) + 2)),
        seed=draw(st.integers(0, 3)),
        shuffle=draw(st.booleans()),
    )


@st.composite
def limited_cases(draw: st.DrawFn) -> Case:
    """Lanes of very different lengths, so that a limit takes several rounds."""
    lengths = draw(st.lists(st.sampled_from([0, 1, 3, 8, 14]), min_size=2, max_size=4))
    total = sum(lengths)
    numbers = iter(range(total))
    badness: st.SearchStrategy[Any] = st.sampled_from([None, None, None, None, "on arrival", "when decoded"])
    return Case(
        lanes=[
            [MadeClip(next(numbers), draw(st.integers(1, 3)), 1, draw(badness)) for _ in range(length)]
            for length in lengths
        ],
        window_clips=draw(st.integers(2, 9)),
        limit=draw(st.integers(max(1, total // 2), total + 2)),
        seed=draw(st.integers(0, 3)),
    )


SEEDS = st.integers(0, 2**32)
MANY = settings(max_examples=400, deadline=None)


@MANY
@given(cases() | limited_cases(), SEEDS)
def test_any_interleaving_serves_the_one_order_and_books_it(case: Case, seed: int) -> None:
    order, digest = expected_order(case)
    feeder = Feeder(case, case.start())
    assert feeder.run(random.Random(seed)) == order
    state = feeder.board.state_after(None)
    assert state.order_digest == digest
    taken = [lane.num_clips for lane in feeder.board.lanes]
    delivered, repeated, lost = expected_books(case, order, taken)
    assert (state.books.delivered, state.books.repeated) == (delivered, repeated)
    assert {name: number for name, (number, _) in state.books.quarantined_clips.items()} == {
        f"subset/{clip}": number for clip, number in lost.items()
    }
    assert sum(taken) == min(case.limit or 1000, sum(map(len, case.lanes)))


@MANY
@given(cases(), SEEDS)
def test_each_window_is_finished_once_and_nothing_is_left(case: Case, seed: int) -> None:
    feeder = Feeder(case, case.start())
    feeder.run(random.Random(seed))
    assert len(set(feeder.finished)) == len(feeder.finished)
    for lane in feeder.board.lanes:
        numbers = [number for finished, number in feeder.finished if finished == lane.number]
        assert numbers == list(range(len(numbers)))
        assert not lane.windows
        assert lane.ready == 0


@MANY
@given(cases() | limited_cases(), SEEDS, st.lists(st.integers(0, 100), min_size=1, max_size=3).map(sorted))
def test_a_state_goes_on_exactly_through_json_and_again(case: Case, seed: int, cuts: list[int]) -> None:
    order, digest = expected_order(case)
    draw = random.Random(seed)
    done, state = 0, case.start()
    for percent in cuts:
        num_consumed, num_ahead = percent * len(order) // 100 - done, draw.randrange(12)
        feeder = Feeder(case, state)
        # What was handed out beyond the consumed position, and not trained on, comes again.
        served = feeder.run(draw, most=num_consumed + num_ahead)
        assert served == order[done : done + len(served)]
        if not served[:num_consumed]:
            continue
        consumed = served[:num_consumed]
        state = through_json(feeder.board.state_after(consumed[-1].position))
        done += len(consumed)
        assert state.num_consumed == done
    last = Feeder(case, state)
    assert last.run(draw) == order[done:]
    final = last.board.state_after(None)
    assert final.order_digest == digest
    books = final.books
    delivered, repeated, lost = expected_books(case, order, [lane.num_clips for lane in last.board.lanes])
    assert (books.delivered, books.repeated, books.quarantined) == (delivered, repeated, lost.total())


@settings(max_examples=200, deadline=None)
@given(cases(), SEEDS)
def test_what_is_coming_is_told_in_order_of_need(case: Case, seed: int) -> None:
    order, _ = expected_order(case)
    draw = random.Random(seed)
    feeder = Feeder(case, case.start())
    done = 0
    while True:
        feeder.board.lay_out()
        coming = [clip.file for clip in feeder.board.coming_clips()]
        if not feeder.undiscovered:
            # Bad clips that nobody knows of yet stand in the look-ahead too.
            visits: dict[Any, None] = dict.fromkeys(sample.visit for sample in order[done:])
            assert coming == list(visits)[: len(coming)]
        assert len(set(coming)) == len(coming)
        served = feeder.run(draw, most=1)
        if not served:
            return
        done += 1


@settings(max_examples=100, deadline=None)
@given(cases(), SEEDS, SEEDS)
def test_two_runs_of_different_timing_leave_equal_states_at_their_ends(case: Case, one: int, other: int) -> None:
    ends = []
    for seed in (one, other):
        feeder = Feeder(case, case.start())
        feeder.run(random.Random(seed))
        ends.append(feeder.board.state_after(None))
    books = [(end.books.delivered, end.books.repeated, end.books.quarantined_clips) for end in ends]
    assert books[0] == books[1]
    assert [(lane.slot, lane.digest) for lane in ends[0].lanes] == [(lane.slot, lane.digest) for lane in ends[1].lanes]
    assert (ends[0].seen == ends[1].seen).all()
