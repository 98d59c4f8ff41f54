"""The board and the state at their edges; see tests/property/test_prefetch_board.py for all the rest."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from typing import Any

import pytest

from reelstream.errors import StateError
from reelstream.prefetch import board as board_module
from reelstream.prefetch import journal as journal_module
from reelstream.prefetch.board import Round
from reelstream.prefetch.state import EpochState
from reelstream.types import Position
from unit.prefetch.board_kit import Case, Feeder, MadeClip, expected_order, through_json


def make_case(*lengths: int, **settings: Any) -> Case:
    first = 0
    lanes = []
    for length in lengths:
        lanes.append([MadeClip(number, 2) for number in range(first, first + length)])
        first += length
    return Case(lanes, **settings)


def test_the_order_is_pinned() -> None:
    # Golden: a change here changes every order, and needs a line in the changelog.
    order, digest = expected_order(make_case(5, 3, window_clips=3, seed=7))
    assert [(sample.position.lane, sample.clip, sample.sample) for sample in order[:9]] == [
        (0, 0, 0),
        (1, 5, 0),
        (0, 0, 1),
        (1, 5, 1),
        (0, 2, 1),
        (1, 6, 1),
        (0, 1, 1),
        (1, 7, 1),
        (0, 2, 0),
    ]
    assert digest == "cf2de8593f957d90e123d8a2e5d781678b72ab7d81115f821713ca140cceda37"


def test_a_state_can_be_asked_for_again_but_not_for_an_earlier_one() -> None:
    case = make_case(4)
    feeder = Feeder(case, case.start())
    first, second, third = feeder.run(random.Random(0), most=3)
    state = feeder.board.state_after(second.position)
    assert feeder.board.state_after(second.position).to_json() == state.to_json()
    assert feeder.board.state_after(None).num_consumed == 3
    with pytest.raises(StateError, match="awaits its consumption"):
        feeder.board.state_after(first.position)
    assert feeder.board.state_after(third.position).num_consumed == 3
    with pytest.raises(StateError, match="awaits its consumption"):
        feeder.board.state_after(Position(2, 0, 7))


def test_a_state_does_not_change_as_the_epoch_goes_on() -> None:
    case = make_case(4, 4)
    feeder = Feeder(case, case.start())
    served = feeder.run(random.Random(0), most=3)
    state = feeder.board.state_after(served[-1].position)
    before = state.to_json()
    feeder.run(random.Random(0))
    feeder.board.state_after(None)
    assert state.to_json() == before


def test_what_nobody_tells_of_is_taken_as_consumed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_LONGEST_JOURNAL", 4)
    case = make_case(9)
    feeder = Feeder(case, case.start())
    served = feeder.run(random.Random(0), most=10)
    assert len(feeder.board._journal._steps) <= 4
    with pytest.raises(StateError):
        feeder.board.state_after(served[2].position)
    assert feeder.board.state_after(served[7].position).num_consumed == 8


def test_a_long_look_ahead_is_laid_out_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_module, "_LONGEST_LOOK_AHEAD", 6)
    case = make_case(9, 9, 2)
    order, digest = expected_order(case)
    feeder = Feeder(case, case.start())
    assert feeder.run(random.Random(3)) == order
    assert feeder.board.state_after(None).order_digest == digest


def test_lanes_known_to_have_ended_are_not_asked_again_after_a_resume() -> None:
    case = make_case(2, 9, 9, limit=18, window_clips=4)
    order, _ = expected_order(case)
    feeder = Feeder(case, case.start())
    first_round = 2 * (2 + 6 + 6)
    served = feeder.run(random.Random(0), most=first_round + 1)
    state = through_json(feeder.board.state_after(served[-1].position))
    assert state.lengths == [2, None, None]
    resumed = Feeder(case, state)
    rounds: list[list[int]] = []
    next_round = resumed.board.next_round

    def note(lengths: Mapping[int, int] | None = None) -> Round:
        made = next_round(lengths)
        rounds.append(made.lanes)
        return made

    resumed.board.next_round = note  # type: ignore[method-assign]
    assert resumed.run(random.Random(1)) == order[first_round + 1 :]
    assert rounds == [[]]


def test_a_good_copy_of_a_bad_clip_makes_good_for_it_whichever_comes_first() -> None:
    for lanes in (
        [[MadeClip(0, 3, bad="when decoded"), MadeClip(0, 3)]],
        [[MadeClip(0, 3), MadeClip(0, 3, bad="when decoded")]],
        [[MadeClip(0, 3, bad="on arrival")], [MadeClip(0, 3)]],
    ):
        case = Case(lanes, window_clips=1)
        feeder = Feeder(case, case.start())
        feeder.run(random.Random(0))
        books = feeder.board.state_after(None).books
        assert (books.delivered, books.repeated, books.quarantined) == (3, 0, 0)


def test_two_bad_copies_of_a_clip_are_one_loss() -> None:
    case = Case([[MadeClip(0, 3, bad="when decoded")], [MadeClip(0, 3, bad="on arrival")]])
    feeder = Feeder(case, case.start())
    feeder.run(random.Random(0))
    assert feeder.board.state_after(None).books.quarantined == 3


# ---------------------------------------------------------------------- the state


def consumed_state(case: Case, number: int) -> EpochState:
    feeder = Feeder(case, case.start())
    return feeder.board.state_after(feeder.run(random.Random(0), most=number)[-1].position)


def test_a_state_is_small() -> None:
    case = make_case(*[2500] * 8, window_clips=12)
    state = consumed_state(case, 1000)
    import json

    assert len(json.dumps(state.to_json())) < 5_000


def test_a_state_comes_back_from_json_as_it_was() -> None:
    lanes = [[MadeClip(0, 3), MadeClip(1, 2, bad="on arrival")], [MadeClip(0, 3), MadeClip(2, 1)]]
    state = consumed_state(Case(lanes, limit=4, window_clips=2), 4)
    again = through_json(state)
    for field in dataclasses.fields(EpochState):
        if field.name != "seen":
            assert getattr(again, field.name) == getattr(state, field.name)
    assert (again.seen == state.seen).all()


def test_a_state_of_another_version_is_refused() -> None:
    values = make_case(2).start().to_json()
    with pytest.raises(StateError, match="version 99"):
        EpochState.from_json({**values, "version": 99}, 2)


@pytest.mark.parametrize(
    "damage",
    [
        {"lanes": []},
        {"lanes": [{}]},
        {"turn": 2},
        {"turn": None},
        {"seen": "!"},
        {"seen": "AAAA"},
        {"quotas": [1]},
        {"lengths": []},
        {"lengths": None},
        {"books": {}},
        {"books": None},
        {"spans": {"kind": "half"}},
    ],
)
def test_a_damaged_state_is_refused_with_a_sentence(damage: dict[str, Any]) -> None:
    values = make_case(2, 2).start().to_json()
    with pytest.raises(StateError, match="damaged"):
        EpochState.from_json({**values, **damage}, 4)


@pytest.mark.parametrize("change", [{"cursor": -1}, {"digest": "zz"}, {"repeats": 3}, {"slot": "x"}, {"other": 1}])
def test_a_damaged_lane_is_refused_with_a_sentence(change: dict[str, Any]) -> None:
    values = make_case(2).start().to_json()
    values["lanes"] = [{**values["lanes"][0], **change}]
    with pytest.raises(StateError):
        EpochState.from_json(values, 2)


def test_a_state_that_stands_beyond_its_window_is_refused_when_that_is_met() -> None:
    case = make_case(4, window_clips=2)
    state = case.start()
    state.lanes[0] = dataclasses.replace(state.lanes[0], cursor=2)
    feeder = Feeder(case, state)
    with pytest.raises(StateError, match="2 samples into window 0"):
        feeder.run(random.Random(0))


@pytest.mark.parametrize(
    ("field", "value"), [("seed", 1), ("limit", 3), ("shuffle", False), ("epoch", 5), ("window_clips", 9)]
)
def test_other_settings_are_refused_by_name(field: str, value: Any) -> None:
    case = make_case(2)
    other = dataclasses.replace(case.settings, **{field: value})
    with pytest.raises(StateError, match=rf"{field} = .*, this run has {value}"):
        case.start().check(other)
    case.start().check(case.settings)
