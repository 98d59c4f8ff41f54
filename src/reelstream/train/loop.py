"""The training loop."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reelstream.clock import Clock, SystemClock
from reelstream.errors import (
    ArchiveError,
    BudgetTooSmallError,
    ConfigError,
    HubError,
    ReelstreamError,
    TooManyBadClipsError,
    TrainingDivergedError,
)
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import BatchReady, CheckpointSaved, Evaluated, Notice, Stalled, StepFinished
from reelstream.train.checkpoints import Checkpoint, CheckpointStore
from reelstream.train.device import choose_compute
from reelstream.train.evaluate import EvaluationResult
from reelstream.train.feeder import Batch, BatchFeeder, EpochEnd
from reelstream.train.handoff import HandoffStatistics
from reelstream.train.loss import token_losses
from reelstream.train.models import LoadedModel
from reelstream.train.options import CheckpointOptions, TrainOptions
from reelstream.train.saving import Progress, checkpoint_contents, restore
from reelstream.train.schedule import learning_rate_at, num_total_steps
from reelstream.train.stop import StopRequest, StopWaiting
from reelstream.train.stream import SampleStream

_SHORTEST_STALL_S = 1e-3
"""Shorter waits are the price of handing over, and not worth an event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOutcome:
    """How a run ended."""

    progress: Progress
    interrupted_by: str | None
    """Name of the signal that ended it; None where it came to its end."""
    batches: HandoffStatistics
    """How the thread that makes batches and the trainer kept pace."""


@dataclass(slots=True)
class _Step:
    """The gradients of one optimizer step, as they add up."""

    loss_sum: float = 0.0
    num_labelled: int = 0
    num_samples: int = 0
    data_wait_s: float = 0.0
    train_s: float = 0.0
    data_state: dict[str, Any] | None = None
    epoch: int = 0


class TrainingLoop:
    """Trains a model on a stream: batches, steps, checkpoints, evaluations, and a stop in good order.

    A step's loss is the mean over all tokens that are trained on in its batches, however they are spread over them. A
    step never spans two epochs, so the last one of an epoch may be smaller. A step without any such token changes
    nothing and reports a loss of 0.

    On the CPU a run that was resumed gives the losses and weights of one that was not, bit for bit.

    Args:
        loaded: The model; trained in place.
        stream: The samples.
        options: How.
        checkpoints: When to save; nothing is saved without `store`.
        store: Where to; opened.
        telemetry: Receives the events.
        samples_per_epoch: Known or estimated; the learning rate's schedule is drawn for it.
        evaluate: Scores held-out questions; called every `evaluate_every_steps` and at the end, also where the run
            had ended before.
        evaluate_every_steps: None calls it at the end only.
        run_state: Called at each save; what it returns comes back from `saving.saved_run_state`.
        clock: For the figures.

    Raises:
        ConfigError: Where neither `options.max_steps` nor `samples_per_epoch` says when the run ends.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        stream: SampleStream,
        *,
        options: TrainOptions,
        checkpoints: CheckpointOptions | None = None,
        store: CheckpointStore | None = None,
        telemetry: Telemetry | None = None,
        samples_per_epoch: int | None = None,
        evaluate: Callable[[], EvaluationResult] | None = None,
        evaluate_every_steps: int | None = None,
        run_state: Callable[[], dict[str, Any]] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._loaded = loaded
        self._stream = stream
        self._options = options
        self._checkpoints = checkpoints or CheckpointOptions()
        self._store = store
        self._telemetry = telemetry or Telemetry()
        self._evaluate = evaluate
        self._evaluate_every_steps = evaluate_every_steps
        self._run_state = run_state or dict
        self._clock = clock or SystemClock()
        total_steps = num_total_steps(
            epochs=options.epochs,
            max_steps=options.max_steps,
            samples_per_epoch=samples_per_epoch,
            samples_per_step=options.batch_size * options.accumulate,
        )
        if total_steps is None:
            raise ConfigError("the dataset's size is not known, hence neither is the run's end", "set train.max_steps")
        self._compute = choose_compute(options)
        self._loaded.model.to(self._compute.device)
        self._optimizer = _make_optimizer(loaded.model, options)
        self._progress = Progress(total_steps=total_steps)
        self._data_state: dict[str, Any] | None = None
        self._saved_step: int | None = None
        self._resumed = False
        self._batch_ready = False
        self._start_s = 0.0

    @property
    def progress(self) -> Progress:
        """How far the run has come."""
        return self._progress

    @property
    def data_state(self) -> dict[str, Any] | None:
        """The stream's state after the last finished step; None before the first."""
        return self._data_state

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint: weights, optimizer, generators, learning rate and place in the data.

        Raises:
            StateError: Where it belongs to another run; the sentence says which field differs.
        """
        restored = restore(checkpoint, self._loaded, self._optimizer, self._options)
        for sentence in restored.changed:
            self._telemetry.emit(Notice(message=f"resumed with other options: {sentence}"))
        total_steps = restored.progress.total_steps if restored.same_length else self._progress.total_steps
        self._progress = dataclasses.replace(restored.progress, total_steps=total_steps)
        self._stream.load_state_dict(restored.data_state)
        self._data_state = restored.data_state
        self._saved_step = checkpoint.step
        self._resumed = True

    def run(self) -> TrainOutcome:
        """Train to the end, or to the first SIGINT or SIGTERM: the step is finished, a checkpoint saved.

        A checkpoint is also saved where the data fail, so that nothing is lost once they can be had again.

        Raises:
            TrainingDivergedError: A loss or gradient is not finite; the weights are those of the last good step.
            ReelstreamError: What the stream or the checkpoints failed with.
        """
        self._start_s = self._clock.monotonic()
        if self._options.num_threads is not None:
            torch.set_num_threads(self._options.num_threads)
        self._loaded.model.train()
        with StopRequest() as stop:
            feeder = BatchFeeder(
                self._stream,
                self._loaded.family,
                batch_size=self._options.batch_size,
                first_epoch=self._progress.epoch,
                end_epoch=self._options.epochs,
                resumed=self._resumed,
                clock=self._clock,
            )
            if not self._at_last_step():
                self._train_on(feeder, stop)
            if self._progress.step:
                self._save()
            self._run_evaluation(stop)
            return TrainOutcome(progress=self._progress, interrupted_by=stop.signal_name, batches=feeder.statistics)

    def _train_on(self, feeder: BatchFeeder, stop: StopRequest) -> None:
        """Train to the end, a signal, or an end of the data that a resume may find mended: then what was made is kept.

        A network that is gone for ten minutes must not cost the steps since the last checkpoint.
        """
        try:
            with feeder:
                self._train(feeder, stop)
        except (HubError, ArchiveError, BudgetTooSmallError, TooManyBadClipsError):
            # What went wrong first is what is told.
            with contextlib.suppress(ReelstreamError):
                if self._progress.step:
                    self._save()
            raise

    def _at_last_step(self) -> bool:
        limit = self._options.max_steps
        return limit is not None and self._progress.step >= limit

    def _train(self, feeder: BatchFeeder, stop: StopRequest) -> None:
        epoch = self._progress.epoch
        while epoch < self._options.epochs and not self._at_last_step():
            try:
                step, epoch_ended = self._gather(feeder, stop, epoch)
            except StopWaiting:
                return
            if step.num_samples:
                self._finish_step(step)
                if stop.requested:
                    return
                self._keep_rhythm(stop)
            epoch += epoch_ended

    def _keep_rhythm(self, stop: StopRequest) -> None:
        """Evaluate and save where it is due; the end of the run does both by itself."""
        if self._at_last_step():
            return
        step = self._progress.step
        if self._evaluate_every_steps and step % self._evaluate_every_steps == 0:
            self._run_evaluation(stop)
        if self._checkpoints.every_steps and step % self._checkpoints.every_steps == 0:
            self._save()

    def _gather(self, feeder: BatchFeeder, stop: StopRequest, epoch: int) -> tuple[_Step, bool]:
        """Return the gradients of a step's batches, and whether the epoch ended with them."""
        self._optimizer.zero_grad(set_to_none=True)
        step = _Step(epoch=epoch)
        for _ in range(self._options.accumulate):
            asked_s = self._clock.monotonic()
            with stop.waiting():
                item = feeder.next()
            wait_s = self._clock.monotonic() - asked_s
            step.data_wait_s += wait_s
            if isinstance(item, EpochEnd):
                return step, True
            self._note_arrival(item, wait_s)
            self._add_gradients(item, step)
        return step, False

    def _note_arrival(self, batch: Batch, wait_s: float) -> None:
        if not self._batch_ready:
            self._batch_ready = True
            self._telemetry.emit(BatchReady(wait_s=self._clock.monotonic() - self._start_s))
        # The stream reports its own waits; what is left of the trainer's is encoding.
        stall_s = wait_s - batch.stream_wait_s
        if stall_s > _SHORTEST_STALL_S:
            self._telemetry.emit(Stalled(stage="collate", wait_s=stall_s))

    def _add_gradients(self, batch: Batch, step: _Step) -> None:
        start_s = self._clock.monotonic()
        if batch.num_labelled:
            tensors = {name: self._to_device(tensor) for name, tensor in batch.tensors.items()}
            with self._compute.autocast():
                losses = token_losses(self._loaded.model, tensors).losses
            # Sums, divided once by the step's tokens: batches of short answers weigh what they should.
            loss_sum = losses.sum()
            step.loss_sum += loss_sum.item()
            self._refuse_unless_finite("loss", step.loss_sum)
            loss_sum.backward()  # type: ignore[no-untyped-call]
        step.num_labelled += batch.num_labelled
        step.num_samples += batch.num_samples
        step.data_state = batch.data_state
        step.train_s += self._clock.monotonic() - start_s

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._compute.device, non_blocking=True)

    def _finish_step(self, step: _Step) -> None:
        start_s = self._clock.monotonic()
        learning_rate = learning_rate_at(
            self._progress.step,
            highest=self._options.learning_rate,
            warmup_steps=self._options.warmup_steps,
            total_steps=self._progress.total_steps,
        )
        if step.num_labelled:
            self._update(step.num_labelled, learning_rate)
        step.train_s += self._clock.monotonic() - start_s
        loss = step.loss_sum / max(1, step.num_labelled)
        first_loss = loss if self._progress.first_loss is None else self._progress.first_loss
        self._progress = dataclasses.replace(
            self._progress, step=self._progress.step + 1, epoch=step.epoch, first_loss=first_loss, last_loss=loss
        )
        self._data_state = step.data_state
        self._telemetry.emit(
            StepFinished(
                step=self._progress.step,
                epoch=step.epoch,
                loss=loss,
                learning_rate=learning_rate,
                num_samples=step.num_samples,
                data_wait_s=step.data_wait_s,
                train_s=step.train_s,
            )
        )

    def _update(self, num_labelled: int, learning_rate: float) -> None:
        parameters = [parameter for parameter in self._loaded.model.parameters() if parameter.grad is not None]
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad.div_(num_labelled)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self._options.max_grad_norm)
        self._refuse_unless_finite("gradient's length", norm.item())
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()

    def _refuse_unless_finite(self, what: str, value: float) -> None:
        if math.isfinite(value):
            return
        saved = "no checkpoint" if self._saved_step is None else f"the checkpoint of step {self._saved_step}"
        raise TrainingDivergedError(
            f"the {what} of step {self._progress.step + 1} is {value}; {saved} is kept",
            "lower train.learning_rate or train.max_grad_norm, lengthen train.warmup_steps, and resume or start anew",
        )

    def _save(self) -> None:
        if self._store is None or self._saved_step == self._progress.step:
            return
        assert self._data_state is not None, "a step was made, so its state is known"
        start_s = self._clock.monotonic()
        contents = checkpoint_contents(
            self._loaded,
            self._optimizer,
            options=self._options,
            progress=self._progress,
            data_state=self._data_state,
            run_state=self._run_state(),
            checkpoints=self._checkpoints,
        )
        saved = self._store.save(contents)
        self._saved_step = self._progress.step
        self._telemetry.emit(
            CheckpointSaved(
                step=self._progress.step,
                size_bytes=saved.size_bytes,
                wait_s=self._clock.monotonic() - start_s,
            )
        )

    def _run_evaluation(self, stop: StopRequest) -> None:
        """Score the held-out questions, unless a signal has come or comes: they can be asked again."""
        if self._evaluate is None:
            return
        try:
            with stop.waiting():
                result = self._evaluate()
        except StopWaiting:
            return
        self._telemetry.emit(
            Evaluated(
                step=self._progress.step,
                accuracy=result.accuracy,
                chance=result.chance,
                num_questions=result.num_questions,
            )
        )


def _make_optimizer(model: torch.nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Decay is for matrices; shrinking biases and norms only hurts.
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate)
