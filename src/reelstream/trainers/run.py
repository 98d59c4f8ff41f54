"""How far a trainer is in its stream: epochs that end where the data do, and steps that count what they consumed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reelstream.data import StreamingVideoDataset
from reelstream.trainers.checkpoints import Manifest
from reelstream.trainers.loader import StreamLoader


class StreamRun:
    """One call of `trainer.train()` over a stream.

    Args:
        loader: Its batches.
        first_epoch: The dataset's epoch that it began with.
        num_epochs: After how many it ends; None where it ends after a number of steps.
        first_step: Steps that were made before a resume.
        epoch_step: Those of them in the epoch that runs.
    """

    def __init__(
        self,
        loader: StreamLoader[Any],
        *,
        first_epoch: int,
        num_epochs: int | None,
        first_step: int = 0,
        epoch_step: int = 0,
    ) -> None:
        self.loader = loader
        self.first_epoch = first_epoch
        self.num_epochs = num_epochs
        self.first_step = first_step
        self.epoch_step = epoch_step

    @property
    def dataset(self) -> StreamingVideoDataset:
        """What is streamed."""
        return self.loader.dataset

    @property
    def is_over(self) -> bool:
        """Whether the last epoch has been served to its end."""
        return self.num_epochs is not None and self.dataset.epoch >= self.first_epoch + self.num_epochs

    @property
    def has_more(self) -> bool:
        """Whether there are steps behind the one that begins; may wait for samples in the last epoch."""
        if self.num_epochs is None or self.dataset.epoch < self.first_epoch + self.num_epochs - 1:
            return True
        return not self.is_over and self.loader.has_more()

    def step_ended(self) -> float:
        """Count a step; return the epochs made, in parts of the estimated length of the one that runs."""
        self.loader.mark_consumed()
        consumed = self.loader.consumed
        assert consumed is not None, "a step without samples"
        self.epoch_step += 1
        num_steps = len(self.loader) // self.loader.accumulate
        return consumed.epoch - self.first_epoch + min(1.0, self.epoch_step / num_steps)

    def epoch_ended(self) -> float:
        """Begin to count the next epoch; return the epochs made."""
        self.epoch_step = 0
        return float(self.dataset.epoch - self.first_epoch)

    def manifest(self, step: int) -> Manifest:
        """Return what a checkpoint says of the run."""
        consumed = self.loader.consumed
        # Its end may be known before the trainer's loop comes to it.
        has_ended = consumed is not None and consumed.epoch < self.dataset.epoch
        return Manifest(step=step, first_epoch=self.first_epoch, epoch_step=0 if has_ended else self.epoch_step)


class EpochBatches:
    """What the trainer's loop iterates over: the rest of an epoch at a time.

    It stands where the trainer expects a `DataLoader`. It has no `set_epoch` on purpose: the trainer's count of epochs
    begins anew at a resume, the dataset's does not.

    Args:
        run: The run.
        control: The trainer's; its loop over an epoch has no end of its own, and is ended through it.
    """

    def __init__(self, run: StreamRun, control: Any) -> None:
        self._run = run
        self._control = control
        self.dataset = run.dataset
        self.batch_size = run.loader.batch_size

    def __len__(self) -> int:
        return len(self._run.loader)

    def __iter__(self) -> Iterator[Any]:
        """Yield an epoch's batches; of the next epoch, where a resume began at the very end of one."""
        num_batches = 0
        for batch in self._run.loader:
            num_batches += 1
            yield batch
        if not num_batches and not self._run.is_over:
            self._run.epoch_ended()
            yield from self._run.loader
        self._control.should_epoch_stop = True


def stream_callback(attached: Any, base: type[Any]) -> Any:
    """Return the callback that keeps a trainer's count of steps and epochs in pace with the stream.

    Args:
        attached: The trainer; has the `StreamRun` as `stream_run` while it trains.
        base: `transformers.TrainerCallback`.
    """

    class StreamCallback(base):  # type: ignore[misc] # untyped
        """Tells the stream what is consumed, and the trainer how far it is."""

        def on_step_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            """Where the last step by the estimate begins and there are more data, let the trainer go on."""
            run: StreamRun = attached.stream_run
            if run.num_epochs is not None and state.global_step + 1 >= state.max_steps and run.has_more:
                state.max_steps = state.global_step + 2

        def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            """Count the step's samples as consumed."""
            state.epoch = attached.stream_run.step_ended()

        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """End the run with its last epoch, as the trainer itself does with its last step."""
            run: StreamRun = attached.stream_run
            if not control.should_epoch_stop:
                # Stopped within the epoch.
                return
            state.epoch = run.epoch_ended()
            if not run.is_over or control.should_training_stop:
                return
            control.should_training_stop = True
            if _is(args.save_strategy, "steps"):
                control.should_save = True
            if _is(args.eval_strategy, "steps") and state.global_step % state.eval_steps != 0:
                control.should_evaluate = True

    return StreamCallback()


def _is(strategy: Any, name: str) -> bool:
    return str(getattr(strategy, "value", strategy)) == name
