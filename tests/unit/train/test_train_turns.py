from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from reelstream.clock import SystemClock
from reelstream.errors import DecodeError, NetworkError, RankLostError, ReelstreamError, StateError
from reelstream.ranks import OneRank
from reelstream.train.agreement import BatchVote, Turn
from reelstream.train.feeder import Batch, EpochEnd
from reelstream.train.parallel import Team
from reelstream.train.stop import StopRequest, StopWaiting
from reelstream.train.turns import BatchTurns, DataFailed
from reelstream.types import Position

BATCH = Batch(
    tensors={"labels": torch.zeros(1, 2)},
    num_samples=1,
    num_labelled=0,
    last=Position(0, 0, 0),
    data_state={},
    stream_wait_s=0.0,
)


class TwoRanks(Team):
    """This rank and one that votes as a test says."""

    def __init__(self, other: BatchVote, reason: bytes = b"") -> None:
        super().__init__(OneRank())
        self.other = other
        self.reason = reason
        self.num_votes = 0

    def gather(self, record: bytes) -> list[bytes]:
        self.num_votes += 1
        return [record, self.other.pack()]

    def exchange(self, topic: str, value: bytes, cancellation: Any = None) -> list[bytes]:
        return [value, self.reason]


class Feeder:
    def __init__(self, give: Callable[[], Batch | EpochEnd]) -> None:
        self.next = give


def raising(error: Exception) -> Callable[[], Batch | EpochEnd]:
    def give() -> Batch | EpochEnd:
        raise error

    return give


def take(team: Team, give: Callable[[], Batch | EpochEnd], stop: StopRequest | None = None) -> Any:
    feeder: Any = Feeder(give)
    return BatchTurns(team, feeder, stop or StopRequest(), SystemClock()).take()


def test_a_batch_is_taken_once_all_have_one() -> None:
    taken = take(TwoRanks(BatchVote(turn=Turn.BATCH, num_labelled=3)), lambda: BATCH)
    assert taken.item is BATCH
    assert taken.any_labelled, "for the other rank's sake"
    assert not take(TwoRanks(BatchVote(turn=Turn.BATCH)), lambda: BATCH).any_labelled


def test_an_epoch_ends_for_all_together() -> None:
    taken = take(TwoRanks(BatchVote(turn=Turn.EPOCH_END)), lambda: EpochEnd(epoch=0))
    assert isinstance(taken.item, EpochEnd)


@pytest.mark.parametrize(("own", "other"), [(BATCH, Turn.EPOCH_END), (EpochEnd(epoch=0), Turn.BATCH)])
def test_ranks_whose_epochs_differ_in_length_end_with_an_error_and_not_by_waiting(own: Any, other: Turn) -> None:
    with pytest.raises(StateError, match="equally many"):
        take(TwoRanks(BatchVote(turn=other)), lambda: own)


def test_a_stop_on_another_rank_is_a_stop_here() -> None:
    stop = StopRequest()
    with pytest.raises(StopWaiting):
        take(TwoRanks(BatchVote(turn=Turn.STOP, stop_reason="SIGTERM")), lambda: BATCH, stop)
    assert stop.reason == "SIGTERM"


def test_a_wish_here_is_told_to_the_others_before_this_rank_stops() -> None:
    stop = StopRequest()
    stop.request("max_time")
    team = TwoRanks(BatchVote(turn=Turn.BATCH))
    with pytest.raises(StopWaiting):
        take(team, lambda: BATCH, stop)
    assert team.num_votes == 1


@pytest.mark.parametrize(("error", "can_save"), [(NetworkError("gone"), True), (DecodeError("odd"), False)])
def test_data_that_fail_here_are_told_to_the_others(error: ReelstreamError, can_save: bool) -> None:
    team = TwoRanks(BatchVote(turn=Turn.BATCH))
    with pytest.raises(DataFailed) as caught:
        take(team, raising(error))
    assert caught.value.error is error
    assert caught.value.can_save is can_save
    assert team.num_votes == 1


def test_data_that_fail_on_another_rank_are_told_by_its_reason() -> None:
    with pytest.raises(DataFailed) as caught:
        take(TwoRanks(BatchVote(turn=Turn.FAILED, can_save=True), b"no such host"), lambda: BATCH)
    assert isinstance(caught.value.error, RankLostError)
    assert "rank 1 of 2 has stopped: no such host" in str(caught.value.error)
    assert caught.value.can_save


def test_with_a_lost_rank_nothing_is_voted_on() -> None:
    team = TwoRanks(BatchVote(turn=Turn.BATCH))
    with pytest.raises(RankLostError):
        take(team, raising(RankLostError("rank 1 is gone")))
    assert team.num_votes == 0


@pytest.mark.parametrize("asked", ["gather", "exchange"])
def test_what_failed_here_is_told_though_the_others_have_left_for_it(
    asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left(*_: Any) -> list[bytes]:
        raise RankLostError("rank 1 of 2 has left: rank 0 of 2 has left", "")

    team = TwoRanks(BatchVote(turn=Turn.BATCH))
    monkeypatch.setattr(team, asked, left)
    with pytest.raises(NetworkError, match="no answer"):
        take(team, raising(NetworkError("no answer", "")))
    with pytest.raises(RankLostError):
        take(team, raising(RankLostError("rank 1 of 2 has died", "")))
