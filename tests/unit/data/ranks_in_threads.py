"""Several ranks in the threads of one process: each has its own dataset, all meet in one store in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reelstream.data import StreamingVideoDataset
from reelstream.prefetch.options import StreamOptions
from reelstream.ranks import MemoryStore, RankPlace, StoreRanks
from reelstream.telemetry import Telemetry
from reelstream.testing import Recorder
from reelstream.types import FrameSampling
from unit.data.data_kit import Served

MakeOptions = Callable[..., Callable[[int], StreamOptions]]
"""Gives the options of each rank, for a served dataset."""


@dataclass
class Outcome:
    """What one rank saw."""

    keys: list[tuple[Any, ...]] = field(default_factory=list)
    state: dict[str, Any] | None = None
    recorder: Recorder = field(default_factory=Recorder)
    error: BaseException | None = None


def place(rank: int, world_size: int, nodes: int = 1) -> RankPlace:
    """A rank's place, the ranks being dealt to nodes of the same size."""
    on_node = world_size // nodes
    return RankPlace(rank=rank, world_size=world_size, local_rank=rank % on_node, local_world_size=on_node)


def run_ranks(
    world_size: int,
    work: Callable[[StreamingVideoDataset, Outcome], None],
    make_options: Callable[[int], Any],
    *,
    nodes: int = 1,
) -> list[Outcome]:
    """Have each rank work on its dataset in a thread of its own; return what they saw, by rank.

    Args:
        world_size: Number of ranks.
        work: What a rank does.
        make_options: Gives a rank's `StreamOptions`.
        nodes: How many machines they pretend to be on.
    """
    store = MemoryStore()
    outcomes = [Outcome() for _ in range(world_size)]

    def run(rank: int) -> None:
        outcome = outcomes[rank]
        ranks = StoreRanks(place(rank, world_size, nodes), store)
        try:
            with (
                ranks,
                StreamingVideoDataset.from_options(
                    make_options(rank), telemetry=Telemetry(outcome.recorder), ranks=ranks
                ) as dataset,
            ):
                work(dataset, outcome)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            outcome.error = error

    threads = [threading.Thread(target=run, args=(rank,), name=f"rank-{rank}") for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def joined(outcomes: list[Outcome]) -> list[tuple[Any, ...]]:
    """The order of the whole: sample k is rank (k mod R)'s."""
    counts = {len(outcome.keys) for outcome in outcomes}
    assert len(counts) == 1, f"the ranks served {[len(outcome.keys) for outcome in outcomes]} samples"
    return [outcome.keys[row] for row in range(counts.pop()) for outcome in outcomes]


def without_error(outcomes: list[Outcome]) -> list[Outcome]:
    """Return the outcomes, once none of them is an error."""
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return outcomes


def small_stream(served: Served, cache_dir: Path, **changes: Any) -> Callable[[int], StreamOptions]:
    """Options of a small stream in four lanes, the same for each rank."""
    options = StreamOptions(
        **{
            "repo_id": served.repo_id,
            "subsets": tuple(served.subsets),
            "endpoint": served.endpoint,
            "cache_dir": cache_dir,
            "disk_budget": 8_000_000,
            "cache_size": 8,
            "frames": FrameSampling(fps=1.0, max_frames=2, size=32),
            "decode_threads": 1,
            "lanes": 4,
            "tail": "repeat",
            **changes,
        }
    )
    return lambda rank: options
