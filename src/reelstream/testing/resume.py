"""Checks, of any dataset, that a run which is interrupted and resumed serves the order of a quiet one."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from reelstream.errors import ConfigError
from reelstream.testing.order import SeenSample, compare_orders
from reelstream.testing.reading import MakeDataset, Quiet, Trial
from reelstream.testing.ways import Way, problem_of, run_way
from reelstream.units import count

ALL_WAYS = tuple(Way)
"""Each way to be interrupted and resumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactnessReport:
    """What was compared; that there is a report says that all of it was the same."""

    order: Sequence[SeenSample]
    """Of the quiet run."""
    resumed: Mapping[Way, Sequence[int]] = field(default_factory=dict)
    """After how many samples runs were interrupted, by the way in which they were resumed."""
    left_out: Mapping[Way, str] = field(default_factory=dict)
    """Ways that could not be checked here, and why."""

    def __str__(self) -> str:
        num_resumes = sum(map(len, self.resumed.values()))
        lines = [f"{count(num_resumes, 'resumed run')} served the {count(len(self.order), 'sample')} of the quiet one"]
        return "\n".join([*lines, *(f"not checked: {way}, since {why}" for way, why in self.left_out.items())])


def check_exact_resume(
    make_dataset: MakeDataset,
    *,
    stops: int | Sequence[int] | Literal["all"] = 3,
    epochs: int = 2,
    num_samples: int | None = None,
    ways: Collection[Way | str] = ALL_WAYS,
    seed: int = 0,
    batch_size: int = 4,
    folder: Path | None = None,
) -> ExactnessReport:
    """Check that a run which is interrupted, and resumed from its `state_dict`, serves what a quiet run serves.

    Compared are the samples' positions, clips, ids, and digests of all that they hold. Each way of being resumed is
    tried at each stop, with datasets of their own in cache folders of their own. Nothing is killed here; what the disk
    looks like after a kill is the business of tests with processes.

    ```python
    def make_dataset(cache_dir):
        return StreamingVideoDataset("me/videos", "shorts", cache_dir=cache_dir, seed=7)

    check_exact_resume(make_dataset, num_samples=500)
    ```

    Args:
        make_dataset: Gives a new dataset that keeps its files in the folder it is given: always the same configuration.
            The folder may not exist, and may hold what an earlier dataset has left there. A dataset of blocks needs
            the archives' indexes in it, so `make_dataset` puts them there.
        stops: After how many samples of the whole run it is interrupted: these, all, or so many drawn by `seed`, the
            end of the first epoch among them where the run goes beyond it.
        epochs: Epochs of the quiet run.
        num_samples: Ends the run earlier; None runs the epochs to their end.
        ways: Ways of being resumed; see `Way`.
        seed: Of the stops that are drawn.
        batch_size: Of data loaders. Under one a run is interrupted at the first end of a batch at or after a stop.
        folder: Where cache folders are made; None takes a temporary one. They are deleted one by one.

    Returns:
        What was compared.

    Raises:
        ExactnessError: At the first difference, with the way, the stop and both samples.
        ConfigError: Where an argument is wrong.
    """
    chosen = [Way(way) for way in ways]
    if epochs < 1 or batch_size < 1:
        raise ConfigError(f"epochs and batch_size must be at least 1, not {epochs} and {batch_size}")
    with tempfile.TemporaryDirectory(prefix="reelstream-check-", dir=folder) as parent:
        trial = Trial(make_dataset, parent=Path(parent), batch_size=batch_size)
        quiet = trial.quiet(epochs=epochs, num_samples=num_samples)
        places = plan_stops(stops, quiet.num_samples, quiet.epoch_ends, seed)
        left_out = {way: problem for way in chosen if (problem := problem_of(way))}
        resumed = {way: _check_way(way, trial, places, quiet) for way in chosen if way not in left_out}
    return ExactnessReport(order=quiet.order, resumed=resumed, left_out=left_out)


def _check_way(way: Way, trial: Trial, stops: Sequence[int], quiet: Quiet) -> list[int]:
    """Compare what each run of a way serves; return after how many samples they were interrupted."""
    stopped = []
    for found in run_way(way, trial, stops):
        end = quiet.num_samples if found.whole else quiet.end_of_epoch(found.num_before)
        compare_orders(found.order, quiet.order[:end], told=f"resumed by way of '{way}' after {found.stopped}")
        stopped.append(found.num_before)
    return stopped


def plan_stops(
    stops: int | Sequence[int] | Literal["all"], num_samples: int, epoch_ends: Sequence[int], seed: int
) -> tuple[int, ...]:
    """Return after how many samples to interrupt, ascending.

    Args:
        stops: As of `check_exact_resume`.
        num_samples: Of the quiet run.
        epoch_ends: How many of them are served at the end of each epoch but the last one.
        seed: Of those that are drawn.

    Raises:
        ConfigError: Where a stop lies outside the run, or none is left.
    """
    if stops == "all":
        return tuple(range(num_samples + 1))
    if isinstance(stops, int):
        if stops < 1:
            raise ConfigError(f"stops must be at least 1, not {stops}")
        within = [number for number in range(1, num_samples) if number not in epoch_ends]
        drawn = random.Random(seed).sample(within, min(len(within), stops - len(epoch_ends[:1])))
        return tuple(sorted({*drawn, *epoch_ends[:1]}))
    if not stops or min(stops) < 0 or max(stops) > num_samples:
        raise ConfigError(f"stops must be some of 0 to {num_samples}, the samples of the run, not {list(stops)}")
    return tuple(sorted(set(stops)))
