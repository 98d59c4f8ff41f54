"""Checks, of any dataset, that several ranks serve together what one serves, and resume what other ranks have left."""

from __future__ import annotations

import concurrent.futures
import contextlib
import math
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from reelstream.errors import ConfigError, RankLostError
from reelstream.hubserver import HubProcess
from reelstream.ranks import Ranks
from reelstream.ranks.threads import ranks_in_threads
from reelstream.testing.order import ExactnessError, SeenSample, compare_orders
from reelstream.testing.reading import Reader, ResumableDataset
from reelstream.testing.wire import archive_ranges, overlapping_bytes
from reelstream.types import Position
from reelstream.units import count, format_bytes


class SharedDataset(ResumableDataset, Protocol):
    """A dataset of which each rank of a run has its share."""

    def gather_state(self, after: Position | None = None) -> dict[str, Any]:
        """Return the state of all ranks together; all of them ask for it at the same step."""
        ...

    def close(self) -> None:
        """Stop all work."""
        ...


MakeRank = Callable[[Path, Ranks], SharedDataset]
"""Makes one rank's dataset, which keeps its files in a folder that the node's ranks share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RanksReport:
    """What was compared; that there is a report says that all of it was the same."""

    order: Sequence[SeenSample]
    """Of the first number of ranks, joined."""
    resumed: Sequence[tuple[int, int, int]] = ()
    """Samples that were served, on how many ranks, and on how many ranks the rest of the run was."""
    sent_bytes: Mapping[int, int] = field(default_factory=dict)
    """Of archives, as the Hub counts them, by the number of ranks of an undisturbed run."""
    twice_bytes: Mapping[int, int] = field(default_factory=dict)
    """How many of them were sent before."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What the ranks of one run have served together, and their state at its end."""

    order: list[SeenSample]
    state: dict[str, Any] | None


def check_ranks(
    make_rank: MakeRank,
    *,
    world_sizes: Sequence[int] = (1, 2, 4),
    epochs: int = 1,
    num_resumes: int = 3,
    seed: int = 0,
    hub: HubProcess | None = None,
    most_twice_bytes: int = 0,
    folder: Path | None = None,
) -> RanksReport:
    """Check that any number of ranks serve together the order of the first, and go on where other ranks have stopped.

    The ranks are threads of this process, and share the machine's cache folder as those of a node do. Joined, sample k
    of an epoch is the next one of rank k mod R.

    ```python
    def make_rank(cache_dir, ranks):
        options = StreamOptions(repo_id="me/videos", subsets=("shorts",), cache_dir=cache_dir, tail="repeat")
        return StreamingVideoDataset.from_options(options, telemetry=Telemetry(), ranks=ranks)

    check_ranks(make_rank)
    ```

    Args:
        make_rank: Gives the dataset of one rank: always the same configuration, with a `tail` that is named (`auto` is
            another one on one rank than on several), and a kind of `spans` too where there is a second epoch.
        world_sizes: Numbers of ranks; each divides the number of lanes.
        epochs: Epochs of an undisturbed run.
        num_resumes: How many runs are stopped, at drawn places, and resumed on another number of ranks.
        seed: Of these places.
        hub: The Hub that serves the dataset and nothing else meanwhile; where given, bytes are counted at it, which
            says something over one epoch only.
        most_twice_bytes: The most bytes of archives that an undisturbed run may fetch more than once: the price of the
            borders where archives are cut.
        folder: Where cache folders are made; None takes a temporary one.

    Returns:
        What was compared, and counted.

    Raises:
        ExactnessError: At the first difference, or where ranks serve different numbers of samples, or more bytes twice.
        ConfigError: Where an argument is wrong.
    """
    if not world_sizes or min(world_sizes) < 1 or epochs < 1:
        raise ConfigError("world_sizes names numbers of ranks, at least one, and epochs is at least 1")
    if hub is not None and epochs > 1:
        raise ConfigError("a later epoch fetches anew what the first one has fetched", "count bytes with epochs=1")
    sent, twice = {}, {}
    with tempfile.TemporaryDirectory(prefix="reelstream-check-", dir=folder) as parent:
        machines = (Path(parent) / f"machine-{number}" for number in range(1 << 30))
        orders = {}
        for world_size in world_sizes:
            if hub is not None:
                hub.reset_stats()
            orders[world_size] = _run(make_rank, next(machines), world_size, epochs=epochs).order
            if hub is not None:
                sent[world_size], twice[world_size] = _count(hub, world_size, most_twice_bytes)
        first = orders[world_sizes[0]]
        for world_size, order in orders.items():
            compare_orders(order, first, told=f"{count(world_size, 'rank')} together")
        resumes = plan_resumes(world_sizes, len(first), num_resumes, seed)
        for stop, before, after in resumes:
            machine = next(machines)
            begun = _run(make_rank, machine, before, num_samples=stop)
            rest = _run(make_rank, machine, after, num_samples=len(first) - stop, state=begun.state)
            told = f"resumed on {count(after, 'rank')} what {count(before, 'rank')} left after {stop} samples"
            compare_orders(begun.order + rest.order, first, told=told)
    return RanksReport(order=first, resumed=resumes, sent_bytes=sent, twice_bytes=twice)


def plan_resumes(
    world_sizes: Sequence[int], num_samples: int, num_resumes: int, seed: int
) -> list[tuple[int, int, int]]:
    """Return where to stop, on how many ranks, and on how many to go on; each number of ranks takes its turns."""
    draw = random.Random(seed)
    step = math.lcm(*world_sizes)
    pairs = [(one, other) for one in world_sizes for other in world_sizes if one != other] or [(1, 1)]
    return [
        (step * draw.randrange(1, max(2, num_samples // step)), *pairs[number % len(pairs)])
        for number in range(num_resumes)
    ]


def _run(
    make_rank: MakeRank,
    folder: Path,
    world_size: int,
    *,
    epochs: int | None = None,
    num_samples: int | None = None,
    state: dict[str, Any] | None = None,
) -> _Part:
    """Let so many ranks serve epochs, or a number of samples together, from a state on."""

    def serve(ranks: Ranks) -> _Part:
        try:
            with contextlib.closing(make_rank(folder, ranks)) as dataset:
                if state is not None:
                    dataset.load_state_dict(state)
                reader = Reader(dataset)
                if num_samples is None:
                    return _Part([seen for _ in range(epochs or 1) for seen in reader.take_epoch()], None)
                seen = reader.take(num_samples // world_size)
                return _Part(seen, dataset.gather_state(after=seen[-1].position if seen else None))
        except BaseException as error:
            ranks.leave(f"it raised {type(error).__name__}")
            raise

    with (
        ranks_in_threads(world_size) as all_ranks,
        concurrent.futures.ThreadPoolExecutor(world_size, thread_name_prefix="check-rank") as threads,
    ):
        futures = [threads.submit(serve, ranks) for ranks in all_ranks]
        errors = [error for future in futures if (error := future.exception()) is not None]
        if errors:
            # What one rank met, before what the others made of its end.
            raise next((error for error in errors if not isinstance(error, RankLostError)), errors[0])
        parts = [future.result() for future in futures]
    return _Part(join_ranks([part.order for part in parts]), parts[0].state)


def join_ranks(orders: Sequence[Sequence[SeenSample]]) -> list[SeenSample]:
    """Return what ranks have served together: sample k is the next one of rank k mod R.

    Raises:
        ExactnessError: Where one has served more than another.
    """
    numbers = [len(order) for order in orders]
    if len(set(numbers)) > 1:
        raise ExactnessError(f"the ranks served different numbers of samples: {numbers}, by rank")
    return [seen for together in zip(*orders, strict=True) for seen in together]


def _count(hub: HubProcess, world_size: int, most_twice_bytes: int) -> tuple[int, int]:
    ranges = archive_ranges(hub.stats())
    twice = {path: overlapping_bytes(each) for path, each in ranges.items()}
    if sum(twice.values()) > most_twice_bytes:
        worst = max(twice, key=lambda path: twice[path])
        found = f"{count(world_size, 'rank')} fetched {format_bytes(sum(twice.values()))} more than once"
        raise ExactnessError(f"{found}, most of it of {worst}", f"{format_bytes(most_twice_bytes)} were allowed for")
    return sum(end - first for each in ranges.values() for first, end in each), sum(twice.values())
