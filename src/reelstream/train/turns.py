"""Batches that all ranks take together: nobody starts on one before all have theirs, or know that there is none."""

from __future__ import annotations

from dataclasses import dataclass

from reelstream.clock import Clock
from reelstream.errors import (
    ArchiveError,
    BudgetTooSmallError,
    HubError,
    RankLostError,
    RanksApartError,
    ReelstreamError,
    StateError,
    TooManyBadClipsError,
)
from reelstream.train.agreement import BatchVote, Turn
from reelstream.train.feeder import Batch, BatchFeeder, EpochEnd
from reelstream.train.parallel import Team
from reelstream.train.stop import StopRequest, StopWaiting

# What a resume may find mended, or be given another setting for.
# The last one follows from what another rank's data failed with, which that rank judges.
_MENDABLE = (HubError, ArchiveError, BudgetTooSmallError, TooManyBadClipsError, RanksApartError)


class DataFailed(Exception):  # noqa: N818 - carries the error, and is none of its own
    """The data failed on some rank; raised on all of them."""

    def __init__(self, error: ReelstreamError, *, can_save: bool) -> None:
        super().__init__(error, can_save)
        self.error = error
        """What this rank's data failed with; elsewhere, which rank's failed and why."""
        self.can_save = can_save
        """Whether a resume may find it mended, so that what was trained is worth a checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """This rank's share of what all ranks do next."""

    item: Batch | EpochEnd
    any_labelled: bool
    """Whether any rank's batch has a token to train on: only then is there something to compute."""
    wait_s: float
    """Seconds that this rank waited for its own batch."""
    ranks_wait_s: float
    """Seconds that it then waited for the others."""


class BatchTurns:
    """Takes batches in step with the other ranks.

    Args:
        team: The ranks.
        feeder: Makes this rank's batches; running.
        stop: This rank's signals and wishes.
        clock: For the figures.
    """

    def __init__(self, team: Team, feeder: BatchFeeder, stop: StopRequest, clock: Clock) -> None:
        self._team = team
        self._feeder = feeder
        self._stop = stop
        self._clock = clock

    def take(self) -> Taken:
        """Return this rank's batch once all have theirs, or the epoch's end once all are there.

        Raises:
            StopWaiting: On all ranks, where one was told to stop while it waited.
            DataFailed: On all ranks, where the data of one failed.
            RankLostError: Where a rank is gone.
            StateError: Where the epoch has ended for some ranks only.
        """
        asked_s = self._clock.monotonic()
        item: Batch | EpochEnd | None = None
        failure: ReelstreamError | None = None
        try:
            with self._stop.waiting():
                item = self._feeder.next()
        except StopWaiting:
            vote = BatchVote(turn=Turn.STOP, stop_reason=self._stop.reason or "")
        except RankLostError:
            # There is nobody left to agree with.
            raise
        except ReelstreamError as error:
            failure, vote = error, BatchVote(turn=Turn.FAILED, can_save=isinstance(error, _MENDABLE))
        else:
            vote = _vote_on(item)
        got_s = self._clock.monotonic()
        try:
            votes = [BatchVote.unpack(record) for record in self._team.gather(vote.pack())]
            self._obey(votes, failure)
        except RankLostError:
            if failure is None:
                raise
            # The others have heard of it from the dataset, and have left: what went wrong first is what is told.
            raise failure from failure.__cause__
        assert item is not None, "whoever has none stops all"
        return Taken(
            item=item,
            any_labelled=any(vote.num_labelled for vote in votes),
            wait_s=got_s - asked_s,
            ranks_wait_s=self._clock.monotonic() - got_s,
        )

    def _obey(self, votes: list[BatchVote], failure: ReelstreamError | None) -> None:
        """Raise what the ranks together do instead of taking a batch."""
        turn = max(vote.turn for vote in votes)
        if turn is Turn.FAILED:
            raise DataFailed(self._failure_of_all(failure), can_save=all(vote.can_save for vote in votes)) from failure
        if turn is Turn.STOP:
            self._stop.request(next(vote.stop_reason for vote in votes if vote.turn is Turn.STOP))
            raise StopWaiting
        ended = [rank for rank, vote in enumerate(votes) if vote.turn is Turn.EPOCH_END]
        if ended and len(ended) < len(votes):
            raise StateError(
                f"the epoch has ended for rank {ended[0]}, and others have samples left: ranks must have equally many",
                "set data.tail to repeat or drop",
            )

    def _failure_of_all(self, failure: ReelstreamError | None) -> ReelstreamError:
        reasons = self._team.exchange("failure of the data", b"" if failure is None else failure.fact.encode())
        if failure is not None:
            return failure
        rank = next(rank for rank, reason in enumerate(reasons) if reason)
        return RankLostError(
            f"rank {rank} of {len(reasons)} has stopped: {reasons[rank].decode()}",
            "see its own message; resume with all ranks once that is mended",
        )


def _vote_on(item: Batch | EpochEnd) -> BatchVote:
    if isinstance(item, EpochEnd):
        return BatchVote(turn=Turn.EPOCH_END)
    return BatchVote(turn=Turn.BATCH, num_labelled=item.num_labelled)
