"""How the samples of an optimizer step are dealt to its batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def deal(samples: Sequence[T], num_batches: int) -> Iterator[Sequence[T]]:
    """Yield the samples as batches of equal size, in order; where that cannot be, the first ones have one more.

    Args:
        samples: At least `num_batches`.
        num_batches: How many batches make one optimizer step.
    """
    assert len(samples) >= num_batches
    size, larger = divmod(len(samples), num_batches)
    start = 0
    for number in range(num_batches):
        end = start + size + (number < larger)
        yield samples[start:end]
        start = end


def num_steps(num_samples: int, *, batch_size: int, accumulate: int, drop_last: bool) -> int:
    """Return the optimizer steps that an epoch of so many samples makes.

    Args:
        num_samples: Of the epoch, on one rank.
        batch_size: Samples of a batch.
        accumulate: Batches of a step.
        drop_last: Whether what does not fill a step is left out.
    """
    full, rest = divmod(num_samples, batch_size * accumulate)
    return full + (not drop_last and rest >= accumulate)
