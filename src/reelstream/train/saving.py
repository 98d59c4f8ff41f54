"""What a checkpoint of a training run holds, how large it gets, and the way back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from reelstream.errors import StateError
from reelstream.train.checkpoints import Checkpoint, CheckpointContents, folder_bytes, tensor_file_bytes
from reelstream.train.models import LoadedModel
from reelstream.train.options import CheckpointOptions, TrainOptions
from reelstream.train.state import (
    Packed,
    load_optimizer,
    load_random_state,
    pack_optimizer,
    pack_random_state,
    weights_of,
)
from reelstream.train.weights import (
    kind_saved,
    model_record,
    refuse_other_model,
    restore_weights,
    small_files,
    weight_files,
)

VERSION = 1
OPTIMIZER_FILE, RANDOM_FILE = "optimizer.safetensors", "random.safetensors"
TRAINER_FILE, DATA_FILE, RUN_FILE = "trainer.json", "data_state.json", "run_state.json"

_JSON_ALLOWANCE_BYTES = 512 * 1024
"""For three JSON files: generators 15 kB, a stream's state some kB, totals with the names of a thousand clips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run has come."""

    step: int = 0
    """Optimizer steps made."""
    epoch: int = 0
    """The epoch that the last step belongs to."""
    total_steps: int = 0
    """Steps that the learning rate's schedule was drawn for."""
    first_loss: float | None = None
    last_loss: float | None = None


def checkpoint_contents(
    loaded: LoadedModel,
    optimizer: torch.optim.Optimizer,
    *,
    options: TrainOptions,
    progress: Progress,
    data_state: dict[str, Any],
    run_state: dict[str, Any],
    checkpoints: CheckpointOptions,
) -> CheckpointContents:
    """Return what is saved after a step.

    Args:
        loaded: The model.
        optimizer: Its optimizer.
        options: Of the run; kept so that a resume can say what changed.
        progress: After the step.
        data_state: Of the stream, with all that the step and those before it took consumed.
        run_state: What the caller wants back at a resume, as JSON values.
        checkpoints: Which weights are saved, and whether what only a resume needs is left out.
    """
    kind = kind_saved(loaded, checkpoints)
    tensors = weight_files(loaded, weights_of(loaded.model), kind)
    files = small_files(loaded, kind)
    if not checkpoints.weights_only:
        packed, generators = pack_optimizer(optimizer), pack_random_state()
        tensors |= {OPTIMIZER_FILE: packed.tensors, RANDOM_FILE: generators.tensors}
        trainer = {
            "version": VERSION,
            "progress": dataclasses.asdict(progress),
            "options": dataclasses.asdict(options),
            "model": model_record(loaded),
            "optimizer": packed.values,
            "random": generators.values,
        }
        files |= {TRAINER_FILE: _json(trainer), DATA_FILE: _json(data_state), RUN_FILE: _json(run_state)}
    return CheckpointContents(step=progress.step, tensors=tensors, files=files)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def checkpoint_size_bytes(loaded: LoadedModel, options: CheckpointOptions) -> int:
    """Return the bytes on disk that one checkpoint never exceeds, known before the first step.

    AdamW keeps two float32 values for each parameter that is trained, so a whole checkpoint is three times the weights,
    and with adapters three times those, and the base model's where they are saved. While one is
    saved, `options.keep` older ones are there as well: a run needs `keep + 1` times this.
    """
    kind = kind_saved(loaded, options)
    sizes = [tensor_file_bytes(tensors) for tensors in weight_files(loaded, weights_of(loaded.model), kind).values()]
    sizes += map(len, small_files(loaded, kind).values())
    # The manifest, with a line a file.
    sizes.append(4096)
    if not options.weights_only:
        moments = {
            f"{number}.{name}": tensor
            for number, tensor in enumerate(_trained(loaded))
            for name in ("exp_avg", "exp_avg_sq")
        }
        counters = {f"{number}.step": torch.zeros(()) for number in range(len(moments) // 2)}
        sizes.append(tensor_file_bytes({**moments, **counters}))
        sizes.append(tensor_file_bytes(pack_random_state().tensors))
        sizes.append(_JSON_ALLOWANCE_BYTES)
        # Each of the three JSON files ends in a block of its own.
        sizes += [1, 1]
    return folder_bytes(sizes)


def _trained(loaded: LoadedModel) -> list[torch.nn.Parameter]:
    return [parameter for parameter in loaded.model.parameters() if parameter.requires_grad]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a checkpoint says about the run, its tensors put where they belong."""

    progress: Progress
    data_state: dict[str, Any]
    changed: tuple[str, ...]
    """Options that differ from the saved run's, as sentences."""
    same_length: bool
    """Whether the options that decide the number of steps are the saved run's."""


def saved_run_state(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the `run_state` that was saved.

    Raises:
        StateError: Where the checkpoint holds weights only.
    """
    _refuse_weights_only(checkpoint)
    state: dict[str, Any] = checkpoint.json(RUN_FILE)
    return state


def saved_data_state(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the stream's state that was saved.

    Raises:
        StateError: Where the checkpoint holds weights only.
    """
    _refuse_weights_only(checkpoint)
    state: dict[str, Any] = checkpoint.json(DATA_FILE)
    return state


def restore(
    checkpoint: Checkpoint, loaded: LoadedModel, optimizer: torch.optim.Optimizer, options: TrainOptions
) -> Restored:
    """Put weights, optimizer and generators where the checkpoint's run had them.

    Raises:
        StateError: Where the checkpoint is of another version, another model or another batch size, or holds weights
            only.
    """
    _refuse_weights_only(checkpoint)
    trainer = checkpoint.json(TRAINER_FILE)
    if trainer["version"] != VERSION:
        raise StateError(f"{checkpoint.folder.name} has version {trainer['version']}; this Reelstream reads {VERSION}")
    differing = {
        name: (saved, here)
        for name, here in dataclasses.asdict(options).items()
        if (saved := trainer["options"].get(name)) != here
    }
    for name in ("batch_size", "accumulate"):
        if name in differing:
            saved, here = differing[name]
            raise StateError(
                f"the checkpoint was made with train.{name} = {saved}, not {here}: steps would hold other samples",
                f"set train.{name} to {saved}, or start a new run",
            )
    refuse_other_model(trainer.get("model", {}), loaded)
    restore_weights(checkpoint, loaded)
    load_optimizer(optimizer, Packed(tensors=checkpoint.tensors(OPTIMIZER_FILE), values=trainer["optimizer"]))
    load_random_state(Packed(tensors=checkpoint.tensors(RANDOM_FILE), values=trainer["random"]))
    return Restored(
        progress=Progress(**trainer["progress"]),
        data_state=checkpoint.json(DATA_FILE),
        changed=tuple(f"train.{name} was {saved}, is {here}" for name, (saved, here) in sorted(differing.items())),
        same_length=not differing.keys() & {"epochs", "max_steps"},
    )


def _refuse_weights_only(checkpoint: Checkpoint) -> None:
    if TRAINER_FILE not in checkpoint.file_names:
        raise StateError(
            f"{checkpoint.folder.name} holds weights only: there is nothing to resume from",
            f"start a new run with model.name={checkpoint.folder}, and set checkpoints.weights_only to false",
        )
