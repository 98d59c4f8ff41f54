from __future__ import annotations

import math

import pytest

from reelstream.train.agreement import BatchVote, StepVote, Turn, summed


@pytest.mark.parametrize(
    "vote",
    [
        BatchVote(turn=Turn.BATCH, num_labelled=123_456),
        BatchVote(turn=Turn.EPOCH_END),
        BatchVote(turn=Turn.STOP, stop_reason="SIGTERM"),
        BatchVote(turn=Turn.FAILED, can_save=False),
    ],
)
def test_a_vote_on_a_batch_arrives_as_it_was_sent(vote: BatchVote) -> None:
    assert BatchVote.unpack(vote.pack()) == vote


def test_all_votes_are_of_one_length_whatever_the_reason() -> None:
    votes = [BatchVote(turn=Turn.STOP, stop_reason="é" * length) for length in (0, 3, 400)]
    assert len({len(vote.pack()) for vote in votes}) == 1
    assert BatchVote.unpack(votes[2].pack()).stop_reason == "é" * 16


def test_a_reason_that_is_cut_within_a_letter_is_still_read() -> None:
    vote = StepVote(loss_sum=1.0, num_losses=2, num_samples=3, stop_reason="a" + "é" * 40)
    assert StepVote.unpack(vote.pack()).stop_reason == "a" + "é" * 15


def test_the_step_of_all_is_the_sum_and_the_first_wish_to_stop() -> None:
    votes = [
        StepVote(loss_sum=1.5, num_losses=3, num_samples=2),
        StepVote(loss_sum=0.5, num_losses=1, num_samples=2, stop_reason="SIGTERM"),
        StepVote(loss_sum=0.0, num_losses=0, num_samples=1, stop_reason="max_time"),
    ]
    assert summed(votes) == StepVote(loss_sum=2.0, num_losses=4, num_samples=5, stop_reason="SIGTERM")


@pytest.mark.parametrize("losses", [[1.0, math.nan], [math.inf, -math.inf], [math.inf, 1.0]])
def test_a_loss_that_is_no_number_on_one_rank_is_none_for_all(losses: list[float]) -> None:
    votes = [StepVote(loss_sum=loss, num_losses=1, num_samples=1) for loss in losses]
    assert not math.isfinite(summed([StepVote.unpack(vote.pack()) for vote in votes]).loss_sum)
