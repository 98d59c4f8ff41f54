"""The room of a trainer's checkpoints in the disk budget: set aside before the first clip, measured afterwards."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

from reelstream.cache import DiskBudget
from reelstream.cache.budget import BLOCK_BYTES, allocated_bytes
from reelstream.prefetch.session import StreamSession
from reelstream.train.disk import set_checkpoints_aside
from reelstream.trainers.checkpoints import folder_size_bytes, sizes_on_disk

_SMALL_FILES_BYTES = 256 * 1024
"""training_args.bin, scheduler.pt, a model card, the data state and the manifest: tens of kB together."""

_RANDOM_STATE_BYTES = 20_000
"""rng_state_N.pth of a rank; TRAIN of it is NumPy's and torch's generators, of 2.5 kB and 5 kB."""

_LOG_ENTRY_BYTES = 500
"""A line of the log in trainer_state.json."""

_TENSOR_BYTES = 1024
"""Name, type, shape and padding of one tensor in a file."""


def checkpoint_size_bytes(trainer: Any, *, max_steps: int) -> int:
    """Return the bytes on disk that one checkpoint of a trainer is expected to take at most.

    The weights as they are, twice the trained ones for the two averages of Adam, and what goes beside them, which is
    written to a temporary folder once to be measured. An optimizer with more state than Adam takes more, which is
    counted once it is measured.

    Args:
        trainer: Of transformers or TRL.
        max_steps: Of the run; its log grows with them.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    saved = trained if _saves_adapters_only(model) else [*model.parameters(), *model.buffers()]
    sizes = [_tensors_bytes(saved), _small_files_bytes(trainer), _log_bytes(trainer, max_steps)]
    if not trainer.args.save_only_model:
        sizes += [2 * _tensors_bytes(trained)]
        sizes += [_RANDOM_STATE_BYTES] * trainer.args.world_size
    return BLOCK_BYTES + sum(map(allocated_bytes, sizes))


def num_checkpoints(args: Any) -> int:
    """Return how many checkpoints there are at once: those that stay, and the one being written."""
    if str(getattr(args.save_strategy, "value", args.save_strategy)) == "no":
        return 0
    # The best one stays beside the newest, whatever the limit.
    return int(max(args.save_total_limit, 2 if args.load_best_model_at_end else 1)) + 1


class CheckpointRoom:
    """The part of a budget that belongs to the checkpoints in one folder.

    Args:
        budget: The dataset's.
        output: The trainer's output folder.
        num_checkpoints: How many there are at once; none where nothing is saved.
    """

    def __init__(self, budget: DiskBudget, output: Path, *, num_checkpoints: int) -> None:
        self._account = budget.account("checkpoints")
        self._budget = budget
        self._output = output
        self._num_checkpoints = num_checkpoints
        self._largest_bytes = 0
        self._booked_bytes = 0

    def set_aside(self, size_bytes: int, *, session: StreamSession, lanes: int) -> None:
        """Keep the room free before the first clip, and book what is there already.

        Args:
            size_bytes: Of one checkpoint, as expected.
            session: The dataset's; its sizes say what clips need beside.
            lanes: As asked for.

        Raises:
            BudgetTooSmallError: Where it does not fit beside the rest; names the smallest budget that does.
        """
        there = sizes_on_disk(self._output)
        self._largest_bytes = max([size_bytes, *there.values()])
        if self._num_checkpoints and self._account.set_aside_bytes < self._wanted_bytes:
            set_checkpoints_aside(
                self._budget,
                size_bytes=self._largest_bytes,
                num_checkpoints=self._num_checkpoints,
                session=session,
                lanes=lanes,
            )
        self._book(sum(there.values()))

    def book_next(self) -> None:
        """Book the checkpoint that is about to be written.

        Raises:
            BudgetTooSmallError: Where it does not fit; nothing was written.
        """
        self._book(sum(sizes_on_disk(self._output).values()) + self._largest_bytes)

    def measure(self) -> None:
        """Book what is on disk now, and keep room for as much as the largest takes.

        Raises:
            BudgetTooSmallError: Where checkpoints turned out larger than expected, and do not fit.
        """
        there = sizes_on_disk(self._output)
        self._largest_bytes = max([self._largest_bytes, *there.values()])
        self._book(sum(there.values()))
        if self._wanted_bytes > self._account.set_aside_bytes:
            self._account.set_aside(self._wanted_bytes)

    @property
    def _wanted_bytes(self) -> int:
        return self._num_checkpoints * self._largest_bytes

    def _book(self, size_bytes: int) -> None:
        change_bytes = size_bytes - self._booked_bytes
        if change_bytes > 0:
            self._account.reserve(change_bytes)
        else:
            self._account.release(-change_bytes)
        self._booked_bytes = size_bytes


def _saves_adapters_only(model: Any) -> bool:
    # What peft calls its wrapped models, without importing it.
    return hasattr(model, "peft_config") and hasattr(model, "base_model")


def _tensors_bytes(tensors: list[Any]) -> int:
    distinct = {tensor.data_ptr(): tensor for tensor in tensors}
    return sum(tensor.numel() * tensor.element_size() + _TENSOR_BYTES for tensor in distinct.values())


def _small_files_bytes(trainer: Any) -> int:
    """Return the size of configuration and processor, by writing them once; the weights are not among them."""
    with tempfile.TemporaryDirectory() as folder:
        parts: list[Any] = [getattr(trainer.model, "config", None), trainer.processing_class]
        for part in parts:
            if hasattr(part, "save_pretrained"):
                part.save_pretrained(folder)
        return _SMALL_FILES_BYTES + folder_size_bytes(Path(folder))


def _log_bytes(trainer: Any, max_steps: int) -> int:
    args = trainer.args
    num_entries = 4 + sum(
        math.ceil(max_steps / steps) if steps >= 1 else math.ceil(1 / steps)
        for steps in (args.logging_steps, args.eval_steps or 0)
        if steps > 0
    )
    return num_entries * _LOG_ENTRY_BYTES
