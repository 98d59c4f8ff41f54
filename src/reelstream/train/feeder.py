"""Batches made ahead of the trainer: one thread that encodes samples and joins them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from reelstream.cancel import Cancelled
from reelstream.clock import Clock, SystemClock
from reelstream.data.sample import Sample
from reelstream.errors import ConfigError
from reelstream.train.families import EncodedSample, Family
from reelstream.train.handoff import Handoff, HandoffStatistics
from reelstream.train.loss import num_labelled
from reelstream.train.stream import SampleStream
from reelstream.types import Position

CAPACITY_BATCHES = 2
"""Batches that wait for the trainer: enough to even out encoding; evening out the network is the disk's work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Samples that go through the model at once."""

    tensors: dict[str, Tensor]
    num_samples: int
    num_labelled: int
    """Tokens that are trained on."""
    last: Position
    """Of the last sample in it."""
    data_state: dict[str, Any]
    """The stream's state once this batch, and all before it, are consumed."""
    stream_wait_s: float
    """Seconds in which the thread waited for the batch's samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochEnd:
    """Stands in the queue after an epoch's last batch."""

    epoch: int


class BatchFeeder:
    """Makes batches in a background thread, in the stream's order, from the epoch given on.

    A batch never spans two epochs: the last one of an epoch is smaller where the numbers say so. (Filled up from the
    next epoch, it would belong to both, and neither "after two epochs" nor an epoch's books would be exact.)

    The stream's state is taken here, beside the sample it belongs to, since the stream itself runs ahead of the
    trainer by the batches in the queue, even into the next epoch.

    A context manager: leaving it calls the stream off and waits for the thread.

    Raises (from `next`):
        ConfigError: The stream gave no sample in a whole epoch.
    """

    def __init__(
        self,
        stream: SampleStream,
        family: Family,
        *,
        batch_size: int,
        first_epoch: int,
        end_epoch: int,
        resumed: bool,
        clock: Clock | None = None,
    ) -> None:
        self._stream = stream
        self._family = family
        self._batch_size = batch_size
        self._epochs = range(first_epoch, end_epoch)
        self._resumed = resumed
        self._clock = clock or SystemClock()
        self._handoff: Handoff[Batch | EpochEnd] = Handoff(CAPACITY_BATCHES, clock=self._clock)
        self._thread = threading.Thread(target=self._run, name="reelstream-batches", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._handoff.close()
        if self._thread.is_alive():
            self._stream.cancel()
        self._thread.join()

    def next(self) -> Batch | EpochEnd:
        """Return the next batch, waiting for it; what the thread failed with is raised here."""
        return self._handoff.get()

    @property
    def statistics(self) -> HandoffStatistics:
        """How the thread and the trainer kept pace."""
        return self._handoff.statistics

    def _run(self) -> None:
        try:
            for epoch in self._epochs:
                self._stream.set_epoch(epoch)
                num_batches = 0
                for batch in self._batches():
                    self._handoff.put(batch)
                    num_batches += 1
                # A resume may have stopped at the very end of an epoch.
                if num_batches or (self._resumed and epoch == self._epochs.start):
                    self._handoff.put(EpochEnd(epoch=epoch))
                else:
                    self._handoff.fail(_empty(epoch))
                    return
        except Cancelled:
            self._handoff.close()
        except BaseException as error:  # noqa: BLE001 - it goes to the trainer's thread, whatever it is
            self._handoff.fail(error)

    def _batches(self) -> Iterator[Batch]:
        samples: list[EncodedSample] = []
        wait_s = 0.0
        last: Position | None = None
        iterator = iter(self._stream)
        while True:
            start_s = self._clock.monotonic()
            sample = next(iterator, None)
            wait_s += self._clock.monotonic() - start_s
            if sample is not None:
                last = sample["position"]
                samples.append(encode_sample(self._family, sample))
            if samples and last is not None and (sample is None or len(samples) == self._batch_size):
                yield self._batch(samples, last, wait_s)
                samples, wait_s = [], 0.0
            if sample is None:
                return

    def _batch(self, samples: list[EncodedSample], last: Position, wait_s: float) -> Batch:
        tensors = self._family.collate(samples)
        return Batch(
            tensors=tensors,
            num_samples=len(samples),
            num_labelled=num_labelled(tensors["labels"]),
            last=last,
            data_state=self._stream.state_dict(after=last),
            stream_wait_s=wait_s,
        )


def _empty(epoch: int) -> ConfigError:
    return ConfigError(
        f"the dataset gave no samples in epoch {epoch}",
        "check subsets, annotations, limit, and the report's list of quarantined clips",
    )


def encode_sample(family: Family, sample: Sample) -> EncodedSample:
    """Return a sample as its family takes it.

    Raises:
        ConfigError: Where it holds no frames.
    """
    if "frames" not in sample:
        raise ConfigError(
            "the samples hold no frames, of which the model's input is made",
            "leave media out, or set it to frames; in a Trainer without attach(trainer, dataset), and for an "
            "eval_dataset, set remove_unused_columns=False",
        )
    clip = family.prepare(sample["frames"], sample["timestamps"].tolist(), sample["duration"])
    return family.encode(sample["messages"], clip)
