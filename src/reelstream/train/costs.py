"""What a checkpoint costs on disk, by what is saved in it: the arithmetic, and the choices that a run has.

Weights and optimizer are float32, and AdamW keeps two values for each parameter that is trained:

| saved | bytes |
|---|---|
| weights and optimizer | 12 a parameter |
| `checkpoints.weights_only` | 4 a parameter |
| adapters of `model.lora` and their optimizer | 12 a parameter of the adapters |
| adapters, and the base model with them | 4 a parameter of the base, 12 one of the adapters |

Adapters beside a linear layer of n inputs and m outputs have `rank x (n + m)` parameters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from reelstream.train.lora import num_adapter_parameters
from reelstream.train.models import LoadedModel
from reelstream.train.options import CheckpointOptions, LoraOptions, ModelOptions, saved_weights
from reelstream.train.saving import checkpoint_size_bytes

WEIGHT_BYTES = 4
"""Of a parameter that is saved: float32."""
MOMENT_BYTES = 8
"""Of a parameter that is trained: AdamW's two moments, float32."""
_SMALL_FILES_BYTES = 1 << 20
"""Allowed for all that does not grow with the model: generators, states, manifest. A tokenizer comes on top."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointCost:
    """One way to save a run, and what it takes."""

    name: str
    """`full`, `weights_only`, `lora`, `lora with its base`, the last two perhaps followed by `, weights_only`."""
    set_by: tuple[str, ...]
    """Options that choose it, as arguments of `reelstream train`; none where the run has them already."""
    size_bytes: int
    """Of one checkpoint; an upper bound for the run's own way, close to it for the others."""
    can_resume: bool
    """Whether a run can go on from it."""


def checkpoint_bytes(*, num_saved: int, num_trained: int, weights_only: bool = False) -> int:
    """Return about how many bytes a checkpoint takes.

    Args:
        num_saved: Parameters whose weights are saved.
        num_trained: Parameters that are trained, each with two moments.
        weights_only: Whether the moments are left out.
    """
    moments_bytes = 0 if weights_only else MOMENT_BYTES * num_trained
    return WEIGHT_BYTES * num_saved + moments_bytes + _SMALL_FILES_BYTES


def checkpoint_costs(
    loaded: LoadedModel, model: ModelOptions, checkpoints: CheckpointOptions, *, num_ranks: int = 1
) -> list[CheckpointCost]:
    """Return the ways in which a run could save this model, its own first, the others from the largest on.

    Args:
        loaded: The model, with its adapters where it has some.
        model: What was asked for.
        checkpoints: How the run saves it.
        num_ranks: Processes that train it, each with generators of its own.
    """
    own = CheckpointCost(
        name=_name(model, checkpoints),
        set_by=(),
        size_bytes=checkpoint_size_bytes(loaded, checkpoints, num_ranks=num_ranks),
        can_resume=not checkpoints.weights_only,
    )
    others = [
        _cost(loaded, model, checkpoints, other_model, other_checkpoints)
        for other_model, other_checkpoints in _alternatives(model, checkpoints)
    ]
    others = [cost for cost in others if cost.name != own.name]
    return [own, *sorted(others, key=lambda cost: -cost.size_bytes)]


def _alternatives(
    model: ModelOptions, checkpoints: CheckpointOptions
) -> Iterator[tuple[ModelOptions, CheckpointOptions]]:
    """Yield options for each way of saving: all weights or adapters, with what a resume needs or without."""
    for lora in (None, model.lora or LoraOptions()):
        # A base that can be had again need not be saved, so the cheapest way with adapters is without it.
        for weights_only in (False, True):
            yield (
                dataclasses.replace(model, lora=lora),
                dataclasses.replace(checkpoints, weights=None, weights_only=weights_only),
            )


def _cost(
    loaded: LoadedModel,
    model: ModelOptions,
    checkpoints: CheckpointOptions,
    other_model: ModelOptions,
    other_checkpoints: CheckpointOptions,
) -> CheckpointCost:
    num_adapters = loaded.num_trained if loaded.adapters else num_adapter_parameters(loaded.model, LoraOptions().rank)
    num_base = loaded.num_parameters - (loaded.num_trained if loaded.adapters else 0)
    with_adapters = other_model.lora is not None
    with_base = saved_weights(other_model, other_checkpoints) == "full"
    size_bytes = checkpoint_bytes(
        num_saved=num_adapters * with_adapters + num_base * with_base,
        num_trained=num_adapters if with_adapters else num_base,
        weights_only=other_checkpoints.weights_only,
    )
    return CheckpointCost(
        name=_name(other_model, other_checkpoints),
        set_by=tuple(_changes(model, checkpoints, other_model, other_checkpoints)),
        size_bytes=size_bytes + sum(map(len, loaded.small_files.values())),
        can_resume=not other_checkpoints.weights_only,
    )


def _changes(
    model: ModelOptions,
    checkpoints: CheckpointOptions,
    other_model: ModelOptions,
    other_checkpoints: CheckpointOptions,
) -> Iterator[str]:
    """Yield the arguments that lead from one pair of options to the other."""
    if other_model.lora is None and model.lora is not None:
        yield "model.lora=null"
    if other_model.lora is not None and model.lora is None:
        yield f"model.lora.rank={other_model.lora.rank}"
    if checkpoints.weights not in (None, saved_weights(other_model, other_checkpoints)):
        yield "checkpoints.weights=null"
    if other_checkpoints.weights_only != checkpoints.weights_only:
        yield f"checkpoints.weights_only={'true' if other_checkpoints.weights_only else 'false'}"


def _name(model: ModelOptions, checkpoints: CheckpointOptions) -> str:
    name = "full"
    if model.lora is not None:
        name = "lora" if saved_weights(model, checkpoints) == "adapters" else "lora with its base"
    if not checkpoints.weights_only:
        return name
    return "weights_only" if name == "full" else f"{name}, weights_only"
