"""The training loop."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from reelstream.clock import Clock, SystemClock
from reelstream.errors import ConfigError, ReelstreamError, TrainingDivergedError
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import BatchReady, Notice, Stalled, StepFinished
from reelstream.train.agreement import StepVote, summed
from reelstream.train.checkpoints import Checkpoint, CheckpointStore
from reelstream.train.deadline import Deadline
from reelstream.train.device import choose_compute, seed_everything, seed_of
from reelstream.train.engines import make_engine
from reelstream.train.evaluate import EvaluationResult
from reelstream.train.feeder import Batch, BatchFeeder, EpochEnd
from reelstream.train.gradients import Gradients, StepSums
from reelstream.train.handoff import HandoffStatistics
from reelstream.train.models import LoadedModel
from reelstream.train.options import CheckpointOptions, TrainOptions
from reelstream.train.parallel import ALONE_TEAM, Team
from reelstream.train.saver import MergeStates, Saver, first_state
from reelstream.train.saving import Progress, restore
from reelstream.train.schedule import learning_rate_at, num_total_steps
from reelstream.train.steps import StepModule, TrainStep, answer_token_losses
from reelstream.train.stop import StopRequest, StopWaiting
from reelstream.train.stream import SampleStream
from reelstream.train.turns import BatchTurns, DataFailed, Taken
from reelstream.units import count

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


class TrainingLoop:
    """Trains a model on a stream: batches, steps, checkpoints, evaluations, and a stop in good order.

    A step's loss is the mean over all tokens that are trained on in its batches, however they are spread over them. A
    step never spans two epochs, so the last one of an epoch may be smaller. A step without any such token changes
    nothing and reports a loss of 0.

    On the CPU a run that was resumed gives the losses and weights of one that was not, bit for bit.

    Of several ranks each makes a loop of its own, with the same options, and they run together: they make the same
    steps, stop and save together, and tell the losses of all. The first one writes checkpoints and evaluates.

    Args:
        loaded: The model; trained in place. The same weights on all ranks.
        stream: The samples; of several ranks, this one's share.
        options: How.
        checkpoints: When to save; nothing is saved without `store`.
        store: Where to; opened. Read on the first rank only.
        telemetry: Receives the events.
        samples_per_epoch: Known or estimated; the learning rate's schedule is drawn for it.
        evaluate: Scores held-out samples, or returns None where they cannot be had yet; called every
            `evaluate_every_steps` and at the end, also where the run had ended before.
        make_room: Called on the other ranks before that.
        evaluate_every_steps: None calls it at the end only.
        run_state: Called at each save on each rank; what it returns comes back from `saving.saved_run_state`.
        team: The ranks; None for a process by itself.
        train_step: What is trained on in a batch.
        merge_data_states: Makes one state of the stream of all ranks' states.
        merge_run_states: Makes one value of what `run_state` returned on each rank.
        deadline: Wishes the end, too; None where there is none.
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
        evaluate: Callable[[], EvaluationResult | None] | None = None,
        make_room: Callable[[], None] | None = None,
        evaluate_every_steps: int | None = None,
        run_state: Callable[[], dict[str, Any]] | None = None,
        team: Team = ALONE_TEAM,
        train_step: TrainStep = answer_token_losses,
        merge_data_states: MergeStates = first_state,
        merge_run_states: MergeStates = first_state,
        deadline: Deadline | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._loaded = loaded
        self._stream = stream
        self._options = options
        self._checkpoints = checkpoints or CheckpointOptions()
        self._team = team
        self._telemetry = telemetry or Telemetry()
        self._evaluate = evaluate if team.is_first else None
        self._make_room = None if team.is_first else make_room
        self._evaluate_every_steps = evaluate_every_steps
        self._deadline = deadline
        self._clock = clock or SystemClock()
        total_steps = num_total_steps(
            epochs=options.epochs,
            max_steps=options.max_steps,
            samples_per_epoch=samples_per_epoch,
            samples_per_step=options.batch_size * options.accumulate,
        )
        if total_steps is None:
            raise ConfigError("the dataset's size is not known, hence neither is the run's end", "set train.max_steps")
        compute = choose_compute(options, team.place)
        self._loaded.model.to(compute.device)
        num_ranks = team.place.world_size
        with team.watched("the start"):
            self._engine = make_engine(
                StepModule(loaded.model, train_step),
                options.parallel,
                num_ranks=num_ranks,
                device=compute.device,
            )
        if num_ranks > 1:
            # Equal weights were made of one seed; what is drawn from here on (dropout) is each rank's own.
            seed_everything(seed_of(options.seed, 0, team.place.rank))
        self._gradients = Gradients(
            loaded.model,
            self._engine,
            compute=compute,
            team=team,
            options=options,
            clock=self._clock,
        )
        self._saver = Saver(
            team,
            store if team.is_first else None,
            loaded=loaded,
            optimizer=self._gradients.optimizer,
            options=options,
            checkpoints=self._checkpoints,
            run_state=run_state or dict,
            merge_data_states=merge_data_states,
            merge_run_states=merge_run_states,
            telemetry=self._telemetry,
            clock=self._clock,
        )
        # What the first rank does, the others wait for.
        self._saves, self._evaluates = store is not None, self._evaluate is not None
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
        """This rank's stream's state after the last finished step; None before the first."""
        return self._data_state

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint: weights, optimizer, generators, learning rate and place in the data.

        Raises:
            StateError: Where it belongs to another run; the sentence says which field differs.
        """
        place = self._team.place
        restored = restore(checkpoint, self._loaded, self._gradients.optimizer, self._options, place)
        for sentence in restored.changed:
            self._telemetry.emit(Notice(message=f"resumed with other options: {sentence}"))
        if restored.num_ranks != place.world_size:
            self._telemetry.emit(
                Notice(
                    message=f"resumed on {count(place.world_size, 'rank')}, saved on {restored.num_ranks}: the global "
                    "batches are the same, random numbers such as dropout's are drawn anew"
                )
            )
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
        with StopRequest() as stop, self._told_in_time(stop):
            feeder = BatchFeeder(
                self._stream,
                self._loaded.family,
                batch_size=self._options.batch_size // self._team.place.world_size,
                first_epoch=self._progress.epoch,
                end_epoch=self._options.epochs,
                resumed=self._resumed,
                clock=self._clock,
            )
            self._agree_on_plan()
            if not self._at_last_step():
                self._train_on(feeder, stop)
            if self._progress.step:
                self._save()
            self._run_evaluation(stop)
            return TrainOutcome(progress=self._progress, interrupted_by=stop.signal_name, batches=feeder.statistics)

    def _told_in_time(self, stop: StopRequest) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._deadline is None else self._deadline.telling(stop)

    def _train_on(self, feeder: BatchFeeder, stop: StopRequest) -> None:
        """Train to the end, a signal, or an end of the data that a resume may find mended: then what was made is kept.

        A network that is gone for ten minutes must not cost the steps since the last checkpoint.
        """
        try:
            with feeder:
                self._train(BatchTurns(self._team, feeder, stop, self._clock), stop)
        except DataFailed as failed:
            if failed.can_save and self._progress.step:
                # What went wrong first is what is told.
                with contextlib.suppress(ReelstreamError):
                    self._save()
            raise failed.error from failed.error.__cause__

    def _agree_on_plan(self) -> None:
        """Take over what the first rank alone knows, and refuse ranks that were started to do something else.

        Raises:
            ConfigError: With the first rank that differs.
        """
        same = {"options": dataclasses.asdict(self._options), "step": self._progress.step}
        plan = {"total_steps": self._progress.total_steps, "saves": self._saves, "evaluates": self._evaluates}
        plans = [json.loads(each) for each in self._team.exchange("plan", json.dumps([same, plan]).encode())]
        for rank, (others, _) in enumerate(plans):
            if others != plans[0][0]:
                what = "from another step" if others["step"] != plans[0][0]["step"] else "with other train options"
                raise ConfigError(
                    f"rank {rank} was started {what} than rank 0", "start all ranks with the same words and files"
                )
        first = plans[0][1]
        self._saves, self._evaluates = first["saves"], first["evaluates"]
        self._progress = dataclasses.replace(self._progress, total_steps=first["total_steps"])

    def _at_last_step(self) -> bool:
        limit = self._options.max_steps
        return limit is not None and self._progress.step >= limit

    def _train(self, turns: BatchTurns, stop: StopRequest) -> None:
        epoch = self._progress.epoch
        while epoch < self._options.epochs and not self._at_last_step():
            try:
                step, epoch_ended = self._gather(turns, epoch)
            except StopWaiting:
                return
            if step.num_samples:
                if self._finish_step(step, stop):
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

    def _gather(self, turns: BatchTurns, epoch: int) -> tuple[StepSums, bool]:
        """Return the gradients of a step's batches, and whether the epoch ended with them."""
        step = self._gradients.begin(epoch)
        epoch_ended = False
        for number in range(1, self._options.accumulate + 1):
            taken = turns.take()
            step.data_wait_s += taken.wait_s + taken.ranks_wait_s
            if isinstance(taken.item, EpochEnd):
                epoch_ended = True
                break
            self._note_arrival(taken.item, taken)
            more = number < self._options.accumulate
            self._gradients.add(step, taken.item, any_labelled=taken.any_labelled, more=more)
        self._gradients.send(step)
        return step, epoch_ended

    def _note_arrival(self, batch: Batch, taken: Taken) -> None:
        if not self._batch_ready:
            self._batch_ready = True
            self._telemetry.emit(BatchReady(wait_s=self._clock.monotonic() - self._start_s))
        # The stream reports its own waits; what is left of the trainer's is encoding.
        stall_s = taken.wait_s - batch.stream_wait_s
        if stall_s > _SHORTEST_STALL_S:
            self._telemetry.emit(Stalled(stage="collate", wait_s=stall_s))
        if taken.ranks_wait_s > _SHORTEST_STALL_S:
            self._telemetry.emit(Stalled(stage="ranks", wait_s=taken.ranks_wait_s))

    def _finish_step(self, step: StepSums, stop: StopRequest) -> bool:
        """Update the weights; return whether the ranks have agreed that this was the last step."""
        start_s = self._clock.monotonic()
        vote = StepVote(
            loss_sum=step.loss_sum,
            num_losses=step.num_losses,
            num_samples=step.num_samples,
            stop_reason=stop.reason or "",
        )
        of_all = summed([StepVote.unpack(record) for record in self._team.gather(vote.pack())])
        self._refuse_unless_finite("loss", of_all.loss_sum)
        learning_rate = learning_rate_at(
            self._progress.step,
            highest=self._options.learning_rate,
            warmup_steps=self._options.warmup_steps,
            total_steps=self._progress.total_steps,
        )
        if of_all.num_losses:
            norm = self._gradients.divide_and_clip(of_all.num_losses)
            self._refuse_unless_finite("gradient's length", norm)
            self._gradients.update(learning_rate)
        step.train_s += self._clock.monotonic() - start_s
        loss = of_all.loss_sum / max(1, of_all.num_losses)
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
                num_samples=of_all.num_samples,
                data_wait_s=step.data_wait_s,
                train_s=step.train_s,
            )
        )
        if self._team.place.world_size == 1:
            # Nobody need agree to what came while this was told.
            return stop.requested
        if of_all.stop_reason:
            stop.request(of_all.stop_reason)
        return bool(of_all.stop_reason)

    def _refuse_unless_finite(self, what: str, value: float) -> None:
        if math.isfinite(value):
            return
        saved = "no checkpoint" if self._saved_step is None else f"the checkpoint of step {self._saved_step}"
        raise TrainingDivergedError(
            f"the {what} of step {self._progress.step + 1} is {value}; {saved} is kept",
            "lower train.learning_rate or train.max_grad_norm, lengthen train.warmup_steps, and resume or start anew",
        )

    def _save(self) -> None:
        if not self._saves or self._saved_step == self._progress.step:
            return
        assert self._data_state is not None, "a step was made, so its state is known"
        self._saver.save(self._progress, self._data_state)
        self._saved_step = self._progress.step

    def _run_evaluation(self, stop: StopRequest) -> None:
        """Let the first rank score what is held out, and wait for it."""
        if not self._evaluates:
            return
        if self._make_room is not None:
            self._make_room()
        self._team.exchange("room for an evaluation", b"")
        with self._team.watched("an evaluation"), self._engine.whole():
            self._score(stop)
            self._team.from_first("evaluation", b"")

    def _score(self, stop: StopRequest) -> None:
        """Score the held-out samples, unless a signal has come or comes: they can be scored again."""
        if self._evaluate is None:
            return
        try:
            with stop.waiting():
                result = self._evaluate()
        except StopWaiting:
            return
        if result is not None:
            self._telemetry.emit(result.event(self._progress.step))
