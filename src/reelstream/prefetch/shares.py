"""One rank's part of an epoch's state, and the whole that all ranks' parts make."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from reelstream.errors import StateError
from reelstream.prefetch.state import Books, EpochState
from reelstream.schedule import RankShare, world_sizes_for

_MERGE_HINT = "save all ranks' states at the same step, and merge those"


def merge_shares(states: Sequence[EpochState]) -> EpochState:
    """Return the state of all lanes.

    Args:
        states: Of all ranks, in any order, each after the same number of samples.

    Raises:
        StateError: Where they are not that.
    """
    ordered = sorted(states, key=lambda state: state.share.rank)
    first = ordered[0]
    world_size = first.share.world_size
    if [state.share for state in ordered] != _all_shares(world_size):
        ranks = ", ".join(f"{state.share.rank} of {state.share.world_size}" for state in ordered)
        raise StateError(f"these are no states of all ranks of one run: {ranks}", _MERGE_HINT)
    for state in ordered[1:]:
        state.check(first.settings)
        if state.num_consumed != first.num_consumed:
            raise StateError(
                f"rank 0 has consumed {first.num_consumed} samples and rank {state.share.rank} {state.num_consumed}",
                _MERGE_HINT,
            )
    num_lanes = first.settings.num_lanes
    num_consumed = first.num_consumed * world_size
    merged = dataclasses.replace(
        first.copy(),
        share=RankShare(),
        num_consumed=num_consumed,
        lanes=[ordered[lane % world_size].lanes[lane] for lane in range(num_lanes)],
        # Alone, a rank may pass over lanes that have ended; together they go round.
        turn=first.turn if first.share.is_whole else num_consumed % num_lanes,
        lengths=[ordered[lane % world_size].lengths[lane] for lane in range(num_lanes)],
        seen=np.logical_or.reduce([state.seen for state in ordered]),
        books=_merged_books([state.books for state in ordered]),
    )
    for state in ordered[1:]:
        for path, reports in state.reports.items():
            for report in reports:
                merged.add_report(path, report)
    return merged


def _all_shares(world_size: int) -> list[RankShare]:
    return [RankShare(rank=rank, world_size=world_size) for rank in range(world_size)]


def _merged_books(books: Sequence[Books]) -> Books:
    quarantined: dict[str, tuple[int, str]] = {}
    for of_rank in books:
        for name, (num_samples, reason) in of_rank.quarantined_clips.items():
            most, _ = quarantined.get(name, (0, ""))
            quarantined[name] = (max(most, num_samples), reason)
    return Books(
        delivered=sum(of_rank.delivered for of_rank in books),
        repeated=sum(of_rank.repeated for of_rank in books),
        quarantined_clips=quarantined,
    )


def share_of(state: EpochState, share: RankShare) -> EpochState:
    """Return a rank's part of a state: of the state of all lanes, or of its own.

    The first rank takes over the books.

    Raises:
        StateError: Where so many ranks cannot go on from it, or it is another rank's.
    """
    if state.share == share:
        return state.copy()
    if not state.share.is_whole:
        raise StateError(
            f"the saved data state is rank {state.share.rank}'s of {state.share.world_size}, and this is rank "
            f"{share.rank} of {share.world_size}",
            "load the state of all ranks, which merge_states makes of theirs",
        )
    settings = state.settings
    if settings.num_lanes % share.world_size:
        sizes = ", ".join(map(str, world_sizes_for(settings.num_lanes)))
        raise StateError(
            f"the saved data state has {settings.num_lanes} lanes, which {share.world_size} ranks cannot share",
            f"resume on {sizes} ranks, or begin anew with lanes set to a multiple of {share.world_size}",
        )
    if settings.tail == "skip":
        raise StateError(
            f"the saved data state passes over lanes that have ended (tail skip), which {share.world_size} ranks "
            "cannot do in step",
            "resume on 1 rank, or begin anew with tail set to repeat or drop, also on 1 rank",
        )
    if state.num_consumed % share.world_size:
        raise StateError(
            f"{state.num_consumed} samples are consumed, which is no multiple of {share.world_size} ranks",
            "save after whole global batches, of a size that each number of ranks divides",
        )
    return dataclasses.replace(
        state.copy(),
        share=share,
        num_consumed=state.num_consumed // share.world_size,
        turn=(state.num_consumed + share.rank) % settings.num_lanes,
        books=state.books.copy() if share.rank == 0 else Books(),
    )
