"""Which of the run's processes this one is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reelstream.errors import ConfigError

_HINT = "the launcher sets RANK and WORLD_SIZE (torchrun, accelerate launch); without one, unset them"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankPlace:
    """The number of this process among all of the run, and among those of its node.

    Raises:
        ConfigError: Where the numbers contradict one another.
    """

    rank: int
    """From 0 to `world_size` - 1."""
    world_size: int
    """Processes of the run."""
    local_rank: int
    """From 0 to `local_world_size` - 1."""
    local_world_size: int
    """Processes of the run on this node: those that share its disk budget."""

    def __post_init__(self) -> None:
        for name, number, of, size in (
            ("rank", self.rank, "world size", self.world_size),
            ("local rank", self.local_rank, "local world size", self.local_world_size),
        ):
            if size < 1:
                raise ConfigError(f"a {of} must be at least 1, not {size}", _HINT)
            if not 0 <= number < size:
                raise ConfigError(f"{name} {number} does not go with a {of} of {size}", _HINT)
        if self.local_world_size > self.world_size:
            raise ConfigError(
                f"a node cannot have {self.local_world_size} of the run's {self.world_size} processes", _HINT
            )

    @property
    def is_first_on_node(self) -> bool:
        """Whether this rank does for its node what is done once a node."""
        return self.local_rank == 0

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.world_size}"


ALONE = RankPlace(rank=0, world_size=1, local_rank=0, local_world_size=1)
"""The place of a process that trains by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedPlace:
    """What a launcher has said of this process; the numbers on the node may be left open."""

    rank: int
    world_size: int
    local_rank: int | None = None
    local_world_size: int | None = None

    def placed(self) -> RankPlace | None:
        """Return the whole place, or None where the launcher left the node's numbers open.

        Raises:
            ConfigError: Where the numbers contradict one another.
        """
        if self.world_size == 1:
            # Also where a launcher counts processes of the node that are none of this run.
            return RankPlace(rank=self.rank, world_size=1, local_rank=0, local_world_size=1)
        if self.local_rank is None or self.local_world_size is None:
            RankPlace(rank=self.rank, world_size=self.world_size, local_rank=0, local_world_size=1)
            return None
        return RankPlace(
            rank=self.rank,
            world_size=self.world_size,
            local_rank=self.local_rank,
            local_world_size=self.local_world_size,
        )


def stated_place(environment: Mapping[str, str]) -> StatedPlace | None:
    """Return the place that RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE name; None where none is named.

    LOCAL_RANK without LOCAL_WORLD_SIZE, as some launchers have it, leaves the node's numbers open.

    Raises:
        ConfigError: Where RANK or WORLD_SIZE stands without the other, or they do not go together, or one is no number.
    """
    rank, world_size, local_rank, local_world_size = (
        _number(environment, name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    )
    if rank is None and world_size is None:
        return None
    if rank is None or world_size is None:
        there, missing = ("RANK", "WORLD_SIZE") if world_size is None else ("WORLD_SIZE", "RANK")
        raise ConfigError(f"the environment has {there}={environment[there]} without {missing}", _HINT)
    # Before anybody is waited for: the others would never come.
    RankPlace(rank=rank, world_size=world_size, local_rank=0, local_world_size=1)
    if local_rank is None or local_world_size is None:
        local_rank = local_world_size = None
    return StatedPlace(rank=rank, world_size=world_size, local_rank=local_rank, local_world_size=local_world_size)


def place_on_node(hosts: list[str], rank: int) -> RankPlace:
    """Return the place of `rank`, given the host of each rank by rank."""
    together = [other for other, host in enumerate(hosts) if host == hosts[rank]]
    return RankPlace(rank=rank, world_size=len(hosts), local_rank=together.index(rank), local_world_size=len(together))


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "").strip()
    if not text:
        return None
    if not text.isdecimal():
        raise ConfigError(f"the environment has {name}={text!r}, which is no number", _HINT)
    return int(text)
