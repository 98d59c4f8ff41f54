"""Which lanes are whose: rank r of R serves the lanes l with l mod R = r."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RankShare:
    """A rank's share of an epoch's lanes; the whole of them for one rank of one."""

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank {self.rank} of {self.world_size}")

    @property
    def is_whole(self) -> bool:
        """Whether there is nobody to share with."""
        return self.world_size == 1

    def lanes(self, num_lanes: int) -> range:
        """Return the numbers of the rank's lanes."""
        return range(self.rank, num_lanes, self.world_size)


def lanes_for(wanted: int, world_size: int) -> int:
    """Return how many lanes an epoch has by default: the least multiple of the ranks from `wanted` on."""
    return -(-wanted // world_size) * world_size


def world_sizes_for(num_lanes: int) -> list[int]:
    """Return the numbers of ranks that can share so many lanes."""
    return [size for size in range(1, num_lanes + 1) if num_lanes % size == 0]
