"""What a checkpoint of a training run holds, how large it gets, and the way back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from reelstream.errors import StateError
from reelstream.ranks import ALONE, RankPlace
from reelstream.train.checkpoints import Checkpoint, CheckpointContents, folder_bytes, tensor_file_bytes
from reelstream.train.lora import is_adapter
from reelstream.train.models import LoadedModel
from reelstream.train.options import CheckpointOptions, TrainOptions
from reelstream.train.rank_state import RankState, random_file, random_files, set_generators
from reelstream.train.state import (
    Packed,
    TensorMap,
    load_optimizer,
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

VERSION = 2
OPTIMIZER_FILE = "optimizer.safetensors"
TRAINER_FILE, DATA_FILE, RUN_FILE = "trainer.json", "data_state.json", "run_state.json"

_JSON_ALLOWANCE_BYTES = 512 * 1024
"""For three JSON files: generators 15 kB, a stream's state some kB, totals with the names of a thousand clips."""
_RANK_ALLOWANCE_BYTES = 64 * 1024
"""For each further rank's generators."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """Weights and optimizer in one piece, on the CPU."""

    weights: TensorMap
    """By their names in the model."""
    optimizer: Packed | None
    """None where weights alone are saved."""


def gather_model_state(
    loaded: LoadedModel, optimizer: torch.optim.Optimizer, checkpoints: CheckpointOptions, *, keep: bool = True
) -> ModelState:
    """Return what a checkpoint holds of the model; where it is divided among ranks, all of them call this together.

    Args:
        loaded: The model.
        optimizer: Its optimizer.
        checkpoints: Which weights are saved, and whether the optimizer is.
        keep: False takes part and returns nothing: one rank writes.
    """
    meant = {"meant": is_adapter} if kind_saved(loaded, checkpoints) == "adapters" else {}
    return ModelState(
        weights=weights_of(loaded.model, keep=keep, **meant),
        optimizer=None if checkpoints.weights_only else pack_optimizer(optimizer, keep=keep),
    )


def checkpoint_contents(
    loaded: LoadedModel,
    state: ModelState,
    *,
    options: TrainOptions,
    progress: Progress,
    ranks: list[RankState],
    data_state: dict[str, Any],
    run_state: dict[str, Any],
    checkpoints: CheckpointOptions,
) -> CheckpointContents:
    """Return what is saved after a step.

    Args:
        loaded: The model.
        state: Its weights and its optimizer's state.
        options: Of the run; kept so that a resume can say what changed.
        progress: After the step.
        ranks: Of each rank, for its generators.
        data_state: Of the stream, of all ranks, with all that the step and those before it took consumed.
        run_state: What the caller wants back at a resume, as JSON values.
        checkpoints: Which weights are saved, and whether what only a resume needs is left out.
    """
    kind = kind_saved(loaded, checkpoints)
    tensors = weight_files(loaded, state.weights, kind)
    files = small_files(loaded, kind)
    if state.optimizer is not None:
        tensors |= {OPTIMIZER_FILE: state.optimizer.tensors, **random_files(ranks)}
        trainer = {
            "version": VERSION,
            "progress": dataclasses.asdict(progress),
            "options": dataclasses.asdict(options),
            "model": model_record(loaded),
            "optimizer": state.optimizer.values,
            "random": [rank.generators.values for rank in ranks],
        }
        files |= {TRAINER_FILE: _json(trainer), DATA_FILE: _json(data_state), RUN_FILE: _json(run_state)}
    return CheckpointContents(step=progress.step, tensors=tensors, files=files)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def checkpoint_size_bytes(loaded: LoadedModel, options: CheckpointOptions, *, num_ranks: int = 1) -> int:
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
        sizes += [tensor_file_bytes(pack_random_state().tensors)] * num_ranks
        sizes.append(_JSON_ALLOWANCE_BYTES + (num_ranks - 1) * _RANK_ALLOWANCE_BYTES)
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
    num_ranks: int
    """Of the saved run."""


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
    checkpoint: Checkpoint,
    loaded: LoadedModel,
    optimizer: torch.optim.Optimizer,
    options: TrainOptions,
    place: RankPlace = ALONE,
) -> Restored:
    """Put weights, optimizer and generators where the checkpoint's run had them.

    Generators that were saved on another number of ranks begin anew, by seed, step and rank.

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
        # When a process has to leave changes nothing of what it does until then.
        if name != "max_time" and (saved := trainer["options"].get(name)) != here
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
    progress, generators = Progress(**trainer["progress"]), trainer["random"]
    own = None
    if len(generators) == place.world_size:
        own = Packed(tensors=checkpoint.tensors(random_file(place.rank)), values=generators[place.rank])
    set_generators(own, seed=options.seed, step=progress.step, place=place)
    return Restored(
        progress=progress,
        data_state=checkpoint.json(DATA_FILE),
        changed=tuple(f"train.{name} was {saved}, is {here}" for name, (saved, here) in sorted(differing.items())),
        same_length=not differing.keys() & {"epochs", "max_steps"},
        num_ranks=len(generators),
    )


def _refuse_weights_only(checkpoint: Checkpoint) -> None:
    if TRAINER_FILE not in checkpoint.file_names:
        raise StateError(
            f"{checkpoint.folder.name} holds weights only: there is nothing to resume from",
            f"start a new run with model.name={checkpoint.folder}, and set checkpoints.weights_only to false",
        )
