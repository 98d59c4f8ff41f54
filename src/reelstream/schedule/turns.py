"""Whose turn it is: sample k of an epoch comes from lane k mod L, lanes that have ended being passed over."""

from __future__ import annotations

from collections.abc import Sequence


def next_turn(turn: int, ended: Sequence[bool]) -> int | None:
    """Return the first lane from `turn` on, going round, that has not ended; None when all have."""
    num_lanes = len(ended)
    for step in range(num_lanes):
        lane = (turn + step) % num_lanes
        if not ended[lane]:
            return lane
    return None
