"""The ways in which a run is interrupted and resumed: each gives the joined order of what came before and after."""

from __future__ import annotations

import copy
import enum
import importlib.util
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from reelstream.indexes import INDEX_FOLDER
from reelstream.testing.order import SeenSample, see_batch
from reelstream.testing.reading import Reader, ResumableDataset, Trial
from reelstream.types import SpanKind
from reelstream.units import count

_LAG_SAMPLES = 9
"""What a trainer may have been handed beyond what it has consumed: two batches and a bit."""


class Way(enum.StrEnum):
    """How a run is interrupted and resumed."""

    SAME_OBJECT = "same object"
    """The dataset takes its own state, without a detour."""
    SAME_MACHINE = "same machine"
    """Another dataset in the same cache folder, the state through `json`."""
    EMPTY_MACHINE = "empty machine"
    """Another dataset in a cache folder that holds the archives' indexes only, which a checkpoint keeps beside it."""
    BARE_MACHINE = "bare machine"
    """Another dataset that has nothing but the state. Compared to the end of the epoch, since what the next one is
    divided into depends on the indexes that are known when it begins; an epoch of blocks, which needs them, is passed
    over."""
    SEVERAL_TIMES = "several times"
    """One run is interrupted at each stop in turn, and at each once more before anything is served."""
    LAGGING = "lagging"
    """The state is of a sample before the last one that was handed out, as with batches that wait to be used, and as
    far as the end of the epoch."""
    SET_EPOCH = "set_epoch"
    """`set_epoch` is called before each epoch, and once more for the epoch that runs, or was resumed."""
    LOADER = "loader"
    """Under a `DataLoader` without workers."""
    LOADER_WORKERS = "loader, 2 workers"
    """Resumed under a `DataLoader` with two workers."""
    STATEFUL_LOADER = "stateful loader"
    """Under torchdata's `StatefulDataLoader` without workers, by its own state."""
    STATEFUL_LOADER_WORKERS = "stateful loader, 2 workers"
    """Under torchdata's `StatefulDataLoader` with two workers, by its own state."""


@dataclass(frozen=True, slots=True)
class Joined:
    """What a run served before and after its interruptions."""

    order: list[SeenSample]
    num_before: int
    """Samples before the last interruption."""
    whole: bool = True
    """Whether the order goes to the end of the quiet run; else to where it ends by itself."""

    @property
    def stopped(self) -> str:
        """Where it was interrupted."""
        return count(self.num_before, "sample")


def problem_of(way: Way) -> str:
    """Return why a way cannot be checked on this machine; empty where it can."""
    stateful = way in {Way.STATEFUL_LOADER, Way.STATEFUL_LOADER_WORKERS}
    return "torchdata is not installed" if stateful and importlib.util.find_spec("torchdata") is None else ""


def run_way(way: Way, trial: Trial, stops: Sequence[int]) -> Iterator[Joined]:
    """Yield what runs serve that are interrupted at the stops, each by itself, or all in one where the way says so."""
    if way is Way.SEVERAL_TIMES:
        yield _several_times(trial, stops)
        return
    for stop in stops:
        with warnings.catch_warnings():
            # That one of the workers streams for all is known here, and torchdata speaks of torch's own affairs.
            warnings.filterwarnings("ignore", message=".*(workers|set_vital)", category=UserWarning)
            joined = _RUNS[way](trial, stop)
        if joined is not None:
            yield joined


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state as a file gives it back."""
    again: dict[str, Any] = json.loads(json.dumps(state))
    return again


# ---------------------------------------------------------------------- without a loader


def _same_object(trial: Trial, stop: int) -> Joined:
    with trial.folder() as folder, trial.dataset(folder) as dataset:
        begun = Reader(dataset).take(stop)
        dataset.load_state_dict(dataset.state_dict())
        return Joined(begun + Reader(dataset).take(trial.num_samples - stop), stop)


def _same_machine(trial: Trial, stop: int) -> Joined:
    with trial.folder() as folder:
        with trial.dataset(folder) as dataset:
            begun = Reader(dataset).take(stop)
            state = through_json(dataset.state_dict())
        return _resumed(trial, folder, state, begun)


def _empty_machine(trial: Trial, stop: int) -> Joined:
    with trial.folder() as folder, trial.folder() as other:
        with trial.dataset(folder) as dataset:
            begun = Reader(dataset).take(stop)
            state = through_json(dataset.state_dict())
        if (folder / INDEX_FOLDER).is_dir():
            shutil.copytree(folder / INDEX_FOLDER, other / INDEX_FOLDER)
        return _resumed(trial, other, state, begun)


def _bare_machine(trial: Trial, stop: int) -> Joined | None:
    with trial.folder() as folder, trial.dataset(folder) as dataset:
        begun = Reader(dataset).take(stop)
        state = through_json(dataset.state_dict())
    if (state.get("epoch_state") or {}).get("spans", {}).get("kind") == SpanKind.BLOCK:
        return None
    with trial.folder() as other, trial.dataset(other) as dataset:
        dataset.load_state_dict(state)
        rest = Reader(dataset).take_epoch(trial.num_samples - stop)
    return Joined(begun + rest, stop, whole=False)


def _several_times(trial: Trial, stops: Sequence[int]) -> Joined:
    begun: list[SeenSample] = []
    state: dict[str, Any] | None = None
    with trial.folder() as folder:
        # Each stop twice: the second time the run is interrupted before it has served anything.
        for stop in sorted([*stops, *stops]):
            with trial.dataset(folder) as dataset:
                if state is not None:
                    dataset.load_state_dict(state)
                reader = Reader(dataset)
                while len(begun) < stop and (more := reader.take(min(7, stop - len(begun)))):
                    begun += more
                    # Asking disturbs nothing; the last one counts.
                    state = through_json(dataset.state_dict())
                state = through_json(dataset.state_dict())
        assert state is not None
        return _resumed(trial, folder, state, begun)


def _lagging(trial: Trial, stop: int) -> Joined:
    with trial.folder() as folder:
        with trial.dataset(folder) as dataset:
            reader = Reader(dataset)
            state = None if stop else through_json(dataset.state_dict())
            begun = reader.take(stop)
            reader.take_epoch(_LAG_SAMPLES)
            if state is None:
                state = through_json(dataset.state_dict(after=begun[-1].position))
        return _resumed(trial, folder, state, begun)


def _set_epoch(trial: Trial, stop: int) -> Joined:
    with trial.folder() as folder:
        with trial.dataset(folder) as dataset:
            reader = Reader(dataset, epoch=0)
            begun = reader.take(stop // 2)
            if begun:
                dataset.set_epoch(begun[-1].position.epoch)
            begun += reader.take(stop - len(begun))
            state = through_json(dataset.state_dict())
        with trial.dataset(folder) as dataset:
            dataset.load_state_dict(state)
            epoch = begun[-1].position.epoch if begun else 0
            return Joined(begun + Reader(dataset, epoch=epoch).take(trial.num_samples - len(begun)), stop)


def _resumed(trial: Trial, folder: Path, state: dict[str, Any], begun: list[SeenSample]) -> Joined:
    with trial.dataset(folder) as dataset:
        dataset.load_state_dict(state)
        return Joined(begun + Reader(dataset).take(trial.num_samples - len(begun)), len(begun))


# ---------------------------------------------------------------------- under a loader


def _loader(trial: Trial, stop: int) -> Joined:
    with trial.folder() as folder:
        with trial.dataset(folder) as dataset:
            state = through_json(dataset.state_dict())
            begun = []
            for batch in _batches(dataset, _plain(dataset, trial, 0), 0, stop):
                begun += batch
                state = through_json(dataset.state_dict(after=batch[-1].position))
        return _resumed_by_loader(trial, folder, state, begun, 0)


def _loader_workers(trial: Trial, stop: int) -> Joined:
    with trial.folder() as folder:
        # The state lives in the worker's process, so it is one without workers that gives it.
        with trial.dataset(folder) as dataset:
            begun = Reader(dataset).take(stop)
            state = through_json(dataset.state_dict())
        return _resumed_by_loader(trial, folder, state, begun, 2)


def _resumed_by_loader(
    trial: Trial, folder: Path, state: dict[str, Any], begun: list[SeenSample], num_workers: int
) -> Joined:
    with trial.dataset(folder) as dataset:
        dataset.load_state_dict(state)
        left = trial.num_samples - len(begun)
        # A loader whose last batch is short has met the epoch's end: the state is then the next one's beginning.
        epoch = state.get("epoch", begun[-1].position.epoch if begun else 0)
        rest = list(chain.from_iterable(_batches(dataset, _plain(dataset, trial, num_workers), epoch, left)))
    return _joined_batches(trial, begun, rest)


def _joined_batches(trial: Trial, begun: list[SeenSample], rest: list[SeenSample]) -> Joined:
    """A batch may reach beyond the end of a quiet run that was ended early."""
    return Joined((begun + rest)[: trial.num_samples], min(len(begun), trial.num_samples))


def _stateful(num_workers: int) -> Callable[[Trial, int], Joined]:
    def run(trial: Trial, stop: int) -> Joined:
        with trial.folder() as folder:
            with trial.dataset(folder) as dataset:
                loader = _stateful_loader(dataset, trial, num_workers)
                begun, state = [], copy.deepcopy(loader.state_dict())
                for batch in _batches(dataset, loader, 0, stop):
                    begun += batch
                    state = copy.deepcopy(loader.state_dict())
            with trial.dataset(folder) as dataset:
                loader = _stateful_loader(dataset, trial, num_workers)
                loader.load_state_dict(state)
                epoch = begun[-1].position.epoch if begun else 0
                left = trial.num_samples - len(begun)
                rest = list(chain.from_iterable(_batches(dataset, loader, epoch, left)))
        return _joined_batches(trial, begun, rest)

    return run


def _plain(dataset: ResumableDataset, trial: Trial, num_workers: int) -> Any:
    return DataLoader(
        dataset,  # type: ignore[arg-type]  # whatever it is, a loader takes it or says why not
        batch_size=trial.batch_size,
        num_workers=num_workers,
        collate_fn=see_batch,
    )


def _stateful_loader(dataset: ResumableDataset, trial: Trial, num_workers: int) -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader  # noqa: PLC0415 - an optional dependency

    return StatefulDataLoader(dataset, batch_size=trial.batch_size, num_workers=num_workers, collate_fn=see_batch)


def _batches(dataset: ResumableDataset, loader: Any, epoch: int, num_samples: int) -> Iterator[list[SeenSample]]:
    """Yield batches over the ends of epochs until so many samples have come, or two iterations in a row give none."""
    num_left, num_empty = num_samples, 0
    while num_left > 0 and num_empty < 2:
        dataset.set_epoch(epoch)
        epoch, num_empty = epoch + 1, num_empty + 1
        for batch in loader:
            num_left, num_empty = num_left - len(batch), 0
            yield batch
            if num_left <= 0:
                return


_RUNS: dict[Way, Callable[[Trial, int], Joined | None]] = {
    Way.SAME_OBJECT: _same_object,
    Way.SAME_MACHINE: _same_machine,
    Way.EMPTY_MACHINE: _empty_machine,
    Way.BARE_MACHINE: _bare_machine,
    Way.LAGGING: _lagging,
    Way.SET_EPOCH: _set_epoch,
    Way.LOADER: _loader,
    Way.LOADER_WORKERS: _loader_workers,
    Way.STATEFUL_LOADER: _stateful(0),
    Way.STATEFUL_LOADER_WORKERS: _stateful(2),
}
