"""The state of model, optimizer and random generators as tensors and JSON: no pickle on the way in or out."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reelstream.errors import StateError

TensorMap = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A state in two halves."""

    tensors: TensorMap
    values: dict[str, Any]
    """JSON values."""


def weights_of(model: torch.nn.Module) -> TensorMap:
    """Return parameters and buffers on the CPU by name; of tied ones the first."""
    names: dict[tuple[int, int, torch.Size], str] = {}
    weights: TensorMap = {}
    for name, tensor in model.state_dict().items():
        key = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape)
        # An empty tensor has no place of its own.
        if tensor.numel() > 0 and names.setdefault(key, name) != name:
            continue
        weights[name] = tensor.detach().cpu().contiguous()
    return weights


def load_weights(model: torch.nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put weights into a model of the same shape.

    Raises:
        StateError: Where names or shapes differ, with the first that does.
    """
    expected = {name: tensor.shape for name, tensor in weights_of(model).items()}
    for name in sorted(expected.keys() ^ weights.keys()):
        where = "the checkpoint lacks" if name in expected else "the model lacks"
        raise StateError(f"the checkpoint is of another model: {where} {name}", "use the options of the saved run")
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise StateError(
                f"the checkpoint is of another model: {name} is {list(weights[name].shape)} there, {list(shape)} here",
                "use the options of the saved run",
            )
    # Not strict: tied names are missing, and follow the one that is there.
    model.load_state_dict(dict(weights), strict=False)


def pack_optimizer(optimizer: torch.optim.Optimizer) -> Packed:
    """Return the optimizer's state: tensors as `number.name`, and the groups' settings."""
    state = optimizer.state_dict()
    tensors = {
        f"{number}.{name}": value.detach().cpu().contiguous()
        for number, entry in state["state"].items()
        for name, value in entry.items()
        if isinstance(value, Tensor)
    }
    groups = [{name: value for name, value in group.items() if _is_json(value)} for group in state["param_groups"]]
    return Packed(tensors=tensors, values={"param_groups": groups})


def load_optimizer(optimizer: torch.optim.Optimizer, packed: Packed) -> None:
    """Put a state into an optimizer over the same parameters in the same groups.

    Raises:
        StateError: Where the groups differ.
    """
    current = optimizer.state_dict()["param_groups"]
    saved = packed.values["param_groups"]
    if [group["params"] for group in saved] != [group["params"] for group in current]:
        raise StateError("the checkpoint's optimizer has other parameters", "use the options of the saved run")
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in packed.tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = tensor
    groups = [{**here, **there} for here, there in zip(current, _with_tuples(saved), strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _is_json(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str | list | tuple)


def _with_tuples(groups: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for group in groups:
        yield {name: tuple(value) if name == "betas" else value for name, value in group.items()}


def pack_random_state() -> Packed:
    """Return the state of Python's, NumPy's and torch's generators, those of all GPUs included."""
    version, words, gauss = random.getstate()
    kind, keys, place, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 - what foreign code uses
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"cuda.{number}": state for number, state in enumerate(torch.cuda.get_rng_state_all())}
    values = {
        "python": [version, list(words), gauss],
        "numpy": [str(kind), [int(key) for key in keys], int(place), int(has_gauss), float(cached)],
    }
    return Packed(tensors=tensors, values=values)


def load_random_state(packed: Packed) -> None:
    """Put the generators where they were; GPUs that this machine lacks are passed over."""
    version, words, gauss = packed.values["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, place, has_gauss, cached = packed.values["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), place, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(packed.tensors["torch"])
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            if f"cuda.{number}" in packed.tensors:
                torch.cuda.set_rng_state(packed.tensors[f"cuda.{number}"], number)
