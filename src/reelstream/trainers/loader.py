"""Batches of a streamed dataset for a trainer: whole optimizer steps, and a state that counts what was consumed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from reelstream.data import Sample, StreamingVideoDataset
from reelstream.errors import ConfigError
from reelstream.trainers.groups import deal, num_steps
from reelstream.types import Position
from reelstream.units import count

BatchT = TypeVar("BatchT")


class StreamLoader(Generic[BatchT]):
    """Iterates over a dataset in batches, an epoch at a time.

    It is no `torch.utils.data.DataLoader`, on purpose: `accelerator.prepare` returns it as it is, whereas it shards and
    dispatches a `DataLoader` of an iterable dataset, whose ranks fetch their own samples already. It runs no workers,
    since the dataset prefetches in the background by itself. Batches are on the CPU.

    An epoch has a whole number of optimizer steps: what is left at its end is dealt evenly to the batches of one last
    step, so that a trainer that accumulates gradients never carries half a step into the next epoch. Fewer samples than
    batches in a step cannot be dealt; they are left out, and said to be.

    ```python
    loader = StreamLoader(dataset, batch_size=4, collate=collate)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    accelerator.register_for_checkpointing(loader)
    for batch in loader:
        ...
    ```

    Args:
        dataset: What to stream.
        batch_size: Samples of a batch, on each rank.
        collate: Makes a batch of a list of samples.
        accumulate: Batches of one optimizer step.
        drop_last: Whether an epoch's last samples are left out where they don't fill a step.

    Raises:
        ConfigError: Where a number is below 1.
    """

    def __init__(
        self,
        dataset: StreamingVideoDataset,
        *,
        batch_size: int,
        collate: Callable[[list[Sample]], BatchT],
        accumulate: int = 1,
        drop_last: bool = False,
    ) -> None:
        for name, number in (("batch_size", batch_size), ("accumulate", accumulate)):
            if number < 1:
                raise ConfigError(f"{name} must be at least 1, not {number}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.drop_last = drop_last
        self._collate = collate
        self._samples: Iterator[Sample] | None = None
        self._ahead: list[Sample] = []
        self._last: Position | None = None
        self._consumed: Position | None = None

    def __len__(self) -> int:
        """Batches of an epoch on this rank, as far as they are known before it has ended: a multiple of `accumulate`.

        See `len` of the dataset, which says when it is an estimate.
        """
        return self.accumulate * max(
            1,
            num_steps(
                len(self.dataset),
                batch_size=self.batch_size,
                accumulate=self.accumulate,
                drop_last=self.drop_last,
            ),
        )

    def __iter__(self) -> Iterator[BatchT]:
        """Yield what is left of the epoch; after its end the next iteration serves the next one."""
        self._samples = iter(self.dataset)
        self._ahead = []
        for samples in self._steps():
            for batch in deal(samples, self.accumulate):
                collated = self._collate(list(batch))
                self._last = batch[-1]["position"]
                yield collated

    def has_more(self) -> bool:
        """Return whether the running epoch has another step, waiting for its first samples where need be."""
        assert self._samples is not None, "nothing is iterated"
        least = self.batch_size * self.accumulate if self.drop_last else self.accumulate
        return len(self._read(least)) >= least

    def _steps(self) -> Iterator[Sequence[Sample]]:
        full = self.batch_size * self.accumulate
        while len(samples := self._read(full)) == full:
            self._ahead = []
            yield samples
        self._ahead = []
        if samples and (self.drop_last or len(samples) < self.accumulate):
            self._tell_left_out(len(samples))
        elif samples:
            yield samples

    def _read(self, num_samples: int) -> list[Sample]:
        """Read until so many samples are ahead, or the epoch is over; return them without consuming them."""
        assert self._samples is not None
        while len(self._ahead) < num_samples and (sample := next(self._samples, None)) is not None:
            self._ahead.append(sample)
        return self._ahead

    def _tell_left_out(self, num_samples: int) -> None:
        if self.drop_last:
            return
        warnings.warn(
            f"{count(num_samples, 'sample')} at the end of epoch {self.dataset.epoch} cannot be dealt to "
            f"{self.accumulate} batches of one step, and will not be trained on in this epoch",
            UserWarning,
            stacklevel=2,
        )

    # ------------------------------------------------------------------ the state

    def mark_consumed(self) -> None:
        """Count all batches that were yielded as consumed: what `state_dict` then tells is the place behind them.

        For trainers that take batches ahead of the step they belong to; without it each batch is consumed as soon as
        it is yielded.
        """
        self._consumed = self._last

    @property
    def consumed(self) -> Position | None:
        """The last sample that counts as consumed; None before the first."""
        return self._consumed or self._last

    def state_dict(self) -> dict[str, Any]:
        """Return the state of all ranks, as JSON values, in which all that is consumed is behind.

        All ranks must ask for it at the same step.
        """
        return self.dataset.gather_state(after=self.consumed)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on where the state was taken, on any number of ranks that divides its lanes.

        Raises:
            StateError: Where it is of another dataset or seed.
        """
        self._samples, self._ahead = None, []
        self._last = self._consumed = None
        self.dataset.load_state_dict(state)
