"""Gradients of one optimizer step: added up over its batches, exchanged between ranks, and put to use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reelstream.clock import Clock
from reelstream.train.device import Compute
from reelstream.train.engines import Engine, trained_parameters
from reelstream.train.feeder import Batch
from reelstream.train.options import TrainOptions
from reelstream.train.parallel import Team


@dataclass(slots=True)
class StepSums:
    """What this rank's batches of a step come to."""

    epoch: int = 0
    loss_sum: float = 0.0
    num_losses: int = 0
    num_samples: int = 0
    data_wait_s: float = 0.0
    train_s: float = 0.0
    data_state: dict[str, Any] | None = None
    """The stream's, once these batches are consumed."""
    unsent: dict[str, Tensor] | None = None
    """The last batch, where its gradients are on this rank only."""


class Gradients:
    """Makes the gradients of a model's steps, one step after the other.

    Args:
        model: What is trained.
        engine: Forward and backward over all ranks.
        compute: Device and arithmetic.
        team: The ranks.
        options: Of the optimizer.
        clock: For the figures.
    """

    def __init__(
        self,
        model: Any,
        engine: Engine,
        *,
        compute: Compute,
        team: Team,
        options: TrainOptions,
        clock: Clock,
    ) -> None:
        self._model = model
        self._engine = engine
        self._compute = compute
        self._team = team
        self._options = options
        self._clock = clock
        self.optimizer = make_optimizer(model, options)

    def begin(self, epoch: int) -> StepSums:
        """Forget the step before."""
        self.optimizer.zero_grad(set_to_none=True)
        return StepSums(epoch=epoch)

    def add(self, step: StepSums, batch: Batch, *, any_labelled: bool, more: bool) -> None:
        """Add the gradients of a batch.

        Args:
            step: What it is added to.
            batch: This rank's.
            any_labelled: Whether any rank's has a token to train on; else nothing is computed.
            more: Whether another batch of the step may follow.

        Raises:
            RankLostError: Where a rank is gone.
        """
        start_s = self._clock.monotonic()
        if any_labelled:
            with self._team.watched("a step"), self._engine.accumulating(more=more):
                losses = self._losses(batch.tensors)
                # Sums, divided once by the step's tokens: batches of short answers weigh what they should. Also of no
                # tokens at all: other ranks have some, and wait for this one's gradients.
                loss_sum = losses.sum()
                step.loss_sum += loss_sum.item()
                loss_sum.backward()  # type: ignore[no-untyped-call]
            step.num_losses += losses.numel()
            step.unsent = batch.tensors if more and self._engine.keeps_gradients else None
        step.num_samples += batch.num_samples
        step.data_state = batch.data_state
        step.train_s += self._clock.monotonic() - start_s

    def send(self, step: StepSums) -> None:
        """Exchange gradients that were kept for a later batch of the step, where none has come: the epoch is over.

        Raises:
            RankLostError: Where a rank is gone.
        """
        if step.unsent is None:
            return
        start_s = self._clock.monotonic()
        with self._team.watched("a step"), self._engine.accumulating(more=False):
            # DDP sends in a backward pass, and sends all that has added up; this one adds nothing.
            (self._losses(step.unsent).sum() * 0.0).backward()  # type: ignore[no-untyped-call]
        step.unsent = None
        step.train_s += self._clock.monotonic() - start_s

    def _losses(self, tensors: dict[str, Tensor]) -> Tensor:
        on_device = {name: tensor.to(self._compute.device, non_blocking=True) for name, tensor in tensors.items()}
        with self._compute.autocast():
            return self._engine.losses(on_device)

    def divide_and_clip(self, num_losses: int) -> float:
        """Make the sums of all ranks a mean, and cut it to `max_grad_norm`; return the length that it had.

        Args:
            num_losses: Of all ranks' batches of the step.
        """
        # The ranks' mean has divided once already.
        divisor = num_losses / self._engine.num_ranks
        parameters = [each for each in trained_parameters(self._model) if each.grad is not None]
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad.div_(divisor)
        with self._team.watched("a step"):
            return self._engine.clip(parameters, self._options.max_grad_norm)

    def update(self, learning_rate: float) -> None:
        """Change the weights."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()


def make_optimizer(model: torch.nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """Return AdamW over the parameters that are trained."""
    parameters = trained_parameters(model)
    # Decay is for matrices; shrinking biases and norms only hurts.
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate)
