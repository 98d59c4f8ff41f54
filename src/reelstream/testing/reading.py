"""Datasets opened for a check, and read over the ends of epochs."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from reelstream.testing.order import SeenSample
from reelstream.types import Position


class ResumableDataset(Protocol):
    """What the checks ask of a dataset; `StreamingVideoDataset` has it, and more.

    A protocol so that other datasets, wrapped ones above all, are checked by the same means. Where it has `close`, that
    is called.
    """

    def __iter__(self) -> Iterator[Any]:
        """Yield what is left of the epoch; then the next iteration is of the next epoch."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; the epoch that is running goes on where it is."""
        ...

    def state_dict(self, after: Position | None = None) -> dict[str, Any]:
        """Return the state in which a sample and all before it are consumed; None is the last that was yielded."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the sample that a state was taken at."""
        ...


MakeDataset = Callable[[Path], ResumableDataset]
"""Makes a dataset that keeps its files in a folder."""


class Reader:
    """Reads a dataset sample by sample, over the ends of epochs, so that its state can be asked for in between."""

    def __init__(self, dataset: ResumableDataset, *, epoch: int | None = None) -> None:
        """Begin nothing yet.

        Args:
            dataset: What is read.
            epoch: Where given, `set_epoch` is called before each epoch, beginning with this one, as trainers do.
        """
        self._dataset = dataset
        self._epoch = epoch
        self._iterator: Iterator[Any] | None = None
        self.epoch_ends: list[int] = []
        """How many samples were served at each end of an epoch that was reached."""
        self.num_served = 0

    def take(self, num_samples: int) -> list[SeenSample]:
        """Serve so many samples; fewer where two iterations in a row give none."""
        seen: list[SeenSample] = []
        num_empty = 0
        while len(seen) < num_samples and num_empty < 2:
            sample = self._next()
            if sample is None:
                num_empty += 1
            else:
                seen.append(sample)
                num_empty = 0
        return seen

    def take_epoch(self, most: int | None = None) -> list[SeenSample]:
        """Serve the rest of the epoch, or its first samples."""
        seen: list[SeenSample] = []
        while (most is None or len(seen) < most) and (sample := self._next()) is not None:
            seen.append(sample)
        return seen

    def _next(self) -> SeenSample | None:
        """Return the next sample of the iteration, which begins where none runs; None at its end."""
        if self._iterator is None:
            if self._epoch is not None:
                self._dataset.set_epoch(self._epoch)
            self._iterator = iter(self._dataset)
        sample = next(self._iterator, None)
        if sample is None:
            self._iterator = None
            self.epoch_ends.append(self.num_served)
            self._epoch = None if self._epoch is None else self._epoch + 1
            return None
        self.num_served += 1
        return SeenSample.of(sample)


@dataclass(frozen=True, slots=True)
class Quiet:
    """What a run serves that nobody disturbs."""

    order: list[SeenSample]
    epoch_ends: list[int]
    """Samples served at the end of each epoch that is followed by another."""

    @property
    def num_samples(self) -> int:
        """Of the whole run."""
        return len(self.order)

    def end_of_epoch(self, num_consumed: int) -> int:
        """Return how many samples are served at the end of the epoch that runs when so many are consumed.

        The last sample of an epoch is consumed within it.
        """
        return next((end for end in self.epoch_ends if end >= num_consumed), self.num_samples)


class Trial:
    """Makes the datasets of one check, each in a cache folder that is its own until it is deleted."""

    def __init__(self, make_dataset: MakeDataset, *, parent: Path, batch_size: int) -> None:
        self._make_dataset = make_dataset
        self._parent = parent
        self._num_folders = 0
        self.batch_size = batch_size
        self.num_samples = 0
        """Of the quiet run."""

    def quiet(self, *, epochs: int, num_samples: int | None) -> Quiet:
        """Run epochs to their end, or up to so many samples."""
        order: list[SeenSample] = []
        with self.folder() as folder, self.dataset(folder) as dataset:
            reader = Reader(dataset)
            for _ in range(epochs):
                order += reader.take_epoch(None if num_samples is None else num_samples - len(order))
        self.num_samples = len(order)
        return Quiet(order=order, epoch_ends=[end for end in reader.epoch_ends if 0 < end < len(order)])

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """Give a cache folder of which nothing is there yet, for as long as the block runs."""
        self._num_folders += 1
        folder = self._parent / f"machine-{self._num_folders}"
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def dataset(self, folder: Path) -> Iterator[ResumableDataset]:
        """Give a new dataset in a folder, and close it."""
        dataset = self._make_dataset(folder)
        try:
            yield dataset
        finally:
            close = getattr(dataset, "close", None)
            if close is not None:
                close()
