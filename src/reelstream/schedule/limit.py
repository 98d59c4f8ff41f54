"""How many clips each lane gives to the first N of a round-robin over the lanes."""

from __future__ import annotations

from collections.abc import Mapping


def lane_quotas(limit: int, num_lanes: int, lengths: Mapping[int, int]) -> list[int]:
    """Return each lane's share of the first `limit` clips of a round-robin over the lanes.

    Args:
        limit: Number of clips wanted in all.
        num_lanes: Number of lanes.
        lengths: Number of clips of the lanes that are known to end, by lane; the others are taken as endless. A lane
            found shorter later only ever raises the quotas of the others.
    """
    quotas = [0] * num_lanes
    left = limit
    growing = set(range(num_lanes))
    while left and growing:
        # Whole rounds at once, up to where the next lane ends; then single turns.
        ends = [lengths[lane] - quotas[lane] for lane in growing if lane in lengths]
        rounds = min([left // len(growing), *ends])
        if rounds > 0:
            for lane in growing:
                quotas[lane] += rounds
            left -= rounds * len(growing)
        growing = {lane for lane in growing if lengths.get(lane, quotas[lane] + 1) > quotas[lane]}
        if growing and left < len(growing):
            for lane in sorted(growing)[:left]:
                quotas[lane] += 1
            left = 0
    return quotas
