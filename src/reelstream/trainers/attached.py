"""The trainers of transformers and TRL, fed by a streamed dataset: exact over resumes, inside the disk budget.

What is changed of a trainer, and why:

- `get_train_dataloader`: stock trainers let accelerate shard or dispatch the loader of an iterable dataset, though each
  rank fetches its own samples already.
- `set_initial_training_values`: stock trainers end an epoch after as many steps as its length says; how long an epoch
  is, is known for certain when it has ended. So their loop is left open, and ended by the data.
- `train`: a resume begins at the newest checkpoint that is whole; stock trainers take one that was cut short, and fail.
- `_save_checkpoint`: the data state goes in, the manifest comes last, and older checkpoints go only after that.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

from reelstream.data import StreamingVideoDataset
from reelstream.errors import BudgetTooSmallError, ConfigError, MissingExtraError, StateError
from reelstream.trainers import checkpoints, options
from reelstream.trainers.loader import StreamLoader
from reelstream.trainers.placeholder import stands_for
from reelstream.trainers.room import CheckpointRoom, checkpoint_size_bytes, num_checkpoints
from reelstream.trainers.run import EpochBatches, StreamRun, stream_callback

_OPEN_END_STEPS = 1 << 40
"""Steps of an epoch whose end only the data tell."""

_NEEDED_METHODS = ("get_train_dataloader", "set_initial_training_values", "train", "_save_checkpoint")


def attach(trainer: Any, dataset: StreamingVideoDataset) -> None:
    """Let a trainer of transformers or TRL train on a streamed dataset, one line after its construction.

    ```python
    trainer = Trainer(model=model, args=args, train_dataset=dataset, data_collator=collate(family))
    attach(trainer, dataset)
    trainer.train()
    ```

    From then on each rank trains on its own samples; checkpoints hold the data state of all ranks and are counted into
    the dataset's disk budget; and `trainer.train(resume_from_checkpoint=True)` goes on at the newest whole checkpoint,
    on any number of ranks that divides the dataset's lanes, without reading again what was consumed. An epoch of the
    trainer is an epoch of the dataset, to its last sample. Evaluation is left as it is.

    Args:
        trainer: Its `train_dataset` is the dataset, or with TRL `for_trl(dataset)`.
        dataset: The stream; whoever made it closes it.

    Raises:
        ConfigError: Where the trainer's options cannot work with it; all of them are named.
        MissingExtraError: Where transformers is not installed.
    """
    try:
        import transformers  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise MissingExtraError(
            "attach needs transformers, which is not installed", "pip install 'reelstream[train]'"
        ) from error
    if isinstance(trainer, AttachedTrainer):
        raise ConfigError("a stream is attached to this trainer already", "make a new trainer for another dataset")
    if not isinstance(trainer, transformers.Trainer) or not all(hasattr(trainer, name) for name in _NEEDED_METHODS):
        raise ConfigError(
            f"{type(trainer).__name__} is no Trainer of transformers {transformers.__version__} to attach to",
            "take Trainer or SFTTrainer of the versions that `pip install 'reelstream[trainers]'` gives, or a loop of "
            "your own with StreamLoader",
        )
    if not stands_for(trainer.train_dataset, dataset):
        raise ConfigError(
            "the trainer was made with another train_dataset than the one to attach",
            "give train_dataset=dataset to Trainer, train_dataset=for_trl(dataset) to SFTTrainer",
        )
    options.refuse_wrong_options(trainer)
    trainer.train_dataset = dataset
    # What Trainer would replay, the state has behind it.
    trainer.args.ignore_data_skip = True
    # A class of the same name between the trainer's and its own, since what is changed calls what was there.
    trainer.__class__ = type(type(trainer).__name__, (AttachedTrainer, type(trainer)), {})
    attached: Any = trainer
    attached.stream = dataset
    attached.add_callback(stream_callback(attached, transformers.TrainerCallback))


class AttachedTrainer:
    """Comes before a trainer's class; see `attach`, which puts it there."""

    args: Any
    state: Any
    control: Any
    accelerator: Any
    data_collator: Any
    _train_batch_size: int

    stream: StreamingVideoDataset
    stream_run: StreamRun
    _checkpoint_room: CheckpointRoom | None = None

    # ------------------------------------------------------------------ the run

    def train(self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, **others: Any) -> Any:
        """Train; see the trainer's own `train`.

        Args:
            resume_from_checkpoint: True for the newest whole checkpoint in the output folder, or the path of one.
            trial: Not supported: trials would share one place in the stream.
            **others: As the trainer takes them.

        Raises:
            StateError: Where there is no whole checkpoint to resume from.
            ConfigError: Where an option cannot work with the dataset.
            BudgetTooSmallError: Where the checkpoints do not fit the dataset's disk budget.
        """
        if trial is not None:
            raise ConfigError("a streamed dataset has one place, which trials cannot share", "run each by itself")
        # Opened by now: it tells how many ranks there are.
        session = self.stream.session
        options.refuse_wrong_options(self, world_size=self.stream.world_size)
        folder = self._folder_to_resume(resume_from_checkpoint)
        self.stream_run = self._begun_run(folder)
        self._set_room_aside(session)
        stock: Any = super()
        return stock.train(resume_from_checkpoint=None if folder is None else str(folder), trial=trial, **others)

    def _begun_run(self, folder: Path | None) -> StreamRun:
        """Return the run from its beginning, or from where a checkpoint left it."""
        args = self.args
        loader: StreamLoader[Any] = StreamLoader(
            self.stream,
            batch_size=self._train_batch_size,
            collate=self.data_collator,
            accumulate=args.gradient_accumulation_steps,
            drop_last=args.dataloader_drop_last,
        )
        # Half an epoch is a number of steps.
        by_steps = args.max_steps > 0 or not float(args.num_train_epochs).is_integer()
        num_epochs = None if by_steps else int(args.num_train_epochs)
        if folder is None:
            return StreamRun(loader, first_epoch=self.stream.epoch, num_epochs=num_epochs)
        manifest = checkpoints.read_manifest(folder)
        loader.load_state_dict(checkpoints.read_data_state(folder))
        return StreamRun(
            loader,
            first_epoch=manifest.first_epoch,
            num_epochs=num_epochs,
            first_step=manifest.step,
            epoch_step=manifest.epoch_step,
        )

    def _folder_to_resume(self, asked: str | bool | None) -> Path | None:
        """Return the checkpoint that is meant; the same on all ranks."""
        if not asked:
            return None
        if self.args.save_only_model:
            raise StateError(
                "checkpoints hold weights only (save_only_model), so that there is nothing to resume from",
                "set save_only_model=False, or start a new run from the checkpoint's weights",
            )
        if asked is not True:
            checkpoints.read_manifest(Path(asked))
            return Path(asked)
        output = Path(self.args.output_dir)
        found = checkpoints.survey(output)
        step = checkpoints.newest_of_all(self._of_all_ranks(sorted(found.whole)))
        if step is None:
            raise checkpoints.none_whole(output, found.torn)
        passed_over = [found.torn[torn] for torn in sorted(found.torn) if torn > step]
        if passed_over:
            warnings.warn(f"resuming from checkpoint-{step}: {'; '.join(passed_over)}", UserWarning, stacklevel=3)
        return found.whole[step]

    def _of_all_ranks(self, value: list[int]) -> list[list[int]]:
        if self.args.world_size == 1:
            return [value]
        from accelerate.utils import gather_object  # noqa: PLC0415 - an optional dependency

        gathered: list[list[int]] = gather_object([value])
        return gathered

    def _set_room_aside(self, session: Any) -> None:
        if self.args.local_process_index:
            # The node's first rank accounts for what is not clips.
            return
        args = self.args
        num_batches = len(self.stream_run.loader)
        max_steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * num_batches)
        self._checkpoint_room = CheckpointRoom(
            session.budget, Path(args.output_dir), num_checkpoints=num_checkpoints(args)
        )
        size_bytes = checkpoint_size_bytes(self, max_steps=max_steps)
        try:
            self._checkpoint_room.set_aside(size_bytes, session=session, lanes=self.stream.options.lanes)
        except BudgetTooSmallError as error:
            # The other ranks would wait for this one.
            self.stream.ranks.leave(error.fact)
            raise

    # ------------------------------------------------------------------ batches and steps

    def get_train_dataloader(self) -> EpochBatches:
        """Return this rank's batches; accelerate is not asked, since it would divide them among the ranks again."""
        return EpochBatches(self.stream_run, self.control)

    def set_initial_training_values(self, args: Any, dataloader: Any) -> tuple[Any, ...]:
        """Return the trainer's own values, but with epochs that end where the data do."""
        stock: Any = super()
        epochs, _, num_examples, num_samples, total_batch_size, _, max_steps = stock.set_initial_training_values(
            args, dataloader
        )
        run = self.stream_run
        if run.is_over or (run.num_epochs is None and run.first_step >= max_steps):
            # Resumed after its end.
            epochs = 0
        elif run.num_epochs is None:
            # As stock trainers do where a loader has no length.
            epochs = _OPEN_END_STEPS
        end = _OPEN_END_STEPS * args.gradient_accumulation_steps
        return epochs, _OPEN_END_STEPS, num_examples, num_samples, total_batch_size, end, max_steps

    # ------------------------------------------------------------------ checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save a checkpoint that is whole or not taken for one, with the data state of all ranks in it."""
        output, step = Path(self.args.output_dir), self.state.global_step
        folder = output / f"checkpoint-{step}"
        state = self.stream_run.loader.state_dict()
        if self.args.should_save:
            checkpoints.clear(folder)
        if self._checkpoint_room is not None:
            self._checkpoint_room.book_next()
        self.accelerator.wait_for_everyone()
        limit = self.args.save_total_limit
        # Older ones go below, once this one is durable.
        self.args.save_total_limit = None
        try:
            if self.args.should_save:
                checkpoints.write_data_state(folder, state)
            stock: Any = super()
            stock._save_checkpoint(model, trial)  # noqa: SLF001 - the trainer's own
        finally:
            self.args.save_total_limit = limit
        # Each rank has written its part.
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoints.seal(folder, self.stream_run.manifest(step))
            best = checkpoints.step_of(self.state.best_model_checkpoint)
            for old in checkpoints.superfluous(checkpoints.survey(output), newest=step, limit=limit, best=best):
                checkpoints.delete(output, old)
        if self._checkpoint_room is not None:
            self._checkpoint_room.measure()
