"""The learning rate of each step: a linear warm-up, then half a cosine down to zero."""

from __future__ import annotations

import math


def learning_rate_at(step: int, *, highest: float, warmup_steps: int, total_steps: int) -> float:
    """Return the learning rate of a step.

    Args:
        step: Counted from 0.
        highest: The rate of the last step of the warm-up.
        warmup_steps: The first rate is `highest / warmup_steps`, so that no step is wasted on a rate of zero. A
            warm-up longer than the run is cut to its length.
        total_steps: Steps of the run, at least 1; later ones have the rate of the last.

    Returns:
        A rate above 0: the cosine would be zero one step after the last.
    """
    assert step >= 0
    assert total_steps >= 1
    warmup_steps = min(warmup_steps, total_steps)
    if step < warmup_steps:
        return highest * (step + 1) / warmup_steps
    last = min(step, total_steps - 1)
    progress = (last - warmup_steps) / max(1, total_steps - warmup_steps) if last >= warmup_steps else 0.0
    return highest * 0.5 * (1.0 + math.cos(math.pi * progress))


def num_total_steps(
    *, epochs: int, max_steps: int | None, samples_per_epoch: int | None, samples_per_step: int
) -> int | None:
    """Return the steps that a run will make, as far as they can be known; None where they cannot.

    Args:
        epochs: Passes over the data.
        max_steps: The user's limit.
        samples_per_epoch: Known or estimated; None where it is neither.
        samples_per_step: Batch size times accumulated batches; a step never spans two epochs.
    """
    if samples_per_epoch is None:
        return max_steps
    known = epochs * max(1, -(-samples_per_epoch // samples_per_step))
    return known if max_steps is None else min(known, max_steps)
