"""The boards of several ranks against one order computed the plain way, resumed on any other number of ranks."""

from __future__ import annotations

import dataclasses
import random
from typing import Literal

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from unit.prefetch.board_kit import (
    Case,
    MadeClip,
    NothingToServeError,
    RankedFeeders,
    Served,
    expected_books,
    expected_order,
)

WORLD_SIZES = (1, 2, 4)
SEEDS = st.integers(0, 2**32)
MANY = settings(max_examples=100, deadline=None)


@st.composite
def cases(draw: st.DrawFn, *, tail: Literal["repeat", "drop"], num_lanes: int = 4) -> Case:
    """Lanes of different lengths, some empty, with bad clips."""
    lengths = [draw(st.integers(0, 9)) for _ in range(num_lanes)]
    badness = st.sampled_from([None, None, None, "on arrival", "when decoded"])
    numbers = iter(range(sum(lengths)))
    return Case(
        lanes=[
            [
                MadeClip(next(numbers), draw(st.integers(1, 4)), draw(st.integers(1, 10)), draw(badness))  # type: ignore[arg-type]
                for _ in range(length)
            ]
            for length in lengths
        ],
        window_clips=draw(st.integers(1, 6)),
        window_bytes=draw(st.sampled_from([5, 15, 1000])),
        limit=draw(st.none() | st.integers(4, sum(lengths) + 4)),
        seed=draw(st.integers(0, 3)),
        tail=tail,
    )


def expected(case: Case, world_size: int) -> list[Served]:
    try:
        return expected_order(case, world_size)[0]
    except NothingToServeError:
        assume(False)
        raise


@MANY
@given(cases(tail="repeat") | cases(tail="drop"), SEEDS, st.sampled_from(WORLD_SIZES))
def test_all_ranks_serve_the_one_order_in_step_whatever_the_timing(case: Case, seed: int, world_size: int) -> None:
    order = expected(case, world_size)
    ranks = RankedFeeders(case, case.start(), world_size)
    assert ranks.run(random.Random(seed)) == order
    merged = ranks.merged()
    assert merged.num_consumed == len(order)
    assert merged.order_digest == expected_order(case, world_size)[1]
    if case.tail == "repeat":
        taken = [ranks.feeders[lane % world_size].board.lanes[lane].num_clips for lane in range(4)]
        delivered, repeated, lost = expected_books(case, order, taken)
        assert (merged.books.delivered, merged.books.repeated) == (delivered, repeated)
        assert merged.books.quarantined == lost.total()
        assert sum(taken) == min(case.limit or 1000, sum(map(len, case.lanes)))


@MANY
@given(cases(tail="repeat"), SEEDS)
def test_each_window_is_let_go_of_once_and_nothing_is_left(case: Case, seed: int) -> None:
    expected(case, 2)
    ranks = RankedFeeders(case, case.start(), 2)
    ranks.run(random.Random(seed))
    for feeder in ranks.feeders:
        assert len(set(feeder.finished)) == len(feeder.finished)
        for lane in feeder.board.own:
            numbers = [number for finished, number in feeder.finished if finished == lane.number]
            assert numbers == list(range(len(numbers)))
            assert not lane.windows


@MANY
@given(
    cases(tail="repeat") | cases(tail="drop"),
    SEEDS,
    st.lists(st.tuples(st.integers(0, 100), st.sampled_from(WORLD_SIZES)), min_size=1, max_size=4),
)
def test_a_state_goes_on_exactly_on_another_number_of_ranks(case: Case, seed: int, cuts: list[tuple[int, int]]) -> None:
    order = expected(case, 1)
    # With a lane that has nothing at all to serve, who serves in its place depends on the number of ranks.
    assume(all(expected(case, world_size) == order for world_size in WORLD_SIZES))
    # And what a lane served last is in no state.
    assume(not any(sample.is_echo for sample in order))
    draw = random.Random(seed)
    state, done = case.start(), 0
    for percent, world_size in sorted(cuts):
        # A step of a global batch of four.
        most = (percent * len(order) // 100 - done) // 4 * 4
        ranks = RankedFeeders(case, state, world_size)
        served = ranks.run(draw, most=most // world_size)
        assert served == order[done : done + most]
        done += most
        state = ranks.merged()
        assert state.num_consumed == done
    last = RankedFeeders(case, state, 2)
    assert last.run(draw) == order[done:]
    assert last.merged().order_digest == expected_order(case)[1]


def test_lanes_that_give_nothing_have_others_of_their_rank_serve_twice() -> None:
    clips = [MadeClip(number, 2) for number in range(4)]
    case = Case([clips[:2], [], clips[2:], [dataclasses.replace(clips[3], bad="on arrival")]], tail="repeat")
    order = expected(case, 1)
    assert {sample.position.lane for sample in order} == {0, 2}
    assert RankedFeeders(case, case.start(), 1).run(random.Random(0)) == order
