"""The state of model, optimizer and random generators as tensors and JSON: no pickle on the way in or out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from reelstream.errors import StateError

TensorMap = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A state in two halves."""

    tensors: TensorMap
    values: dict[str, Any]
    """JSON values."""


def _all_names(name: str) -> bool:  # noqa: ARG001 - a choice of names, as others are
    return True


def weights_of(model: torch.nn.Module, *, meant: Callable[[str], bool] = _all_names, keep: bool = True) -> TensorMap:
    """Return parameters and buffers on the CPU by name; of tied ones the first.

    Of weights that are divided among ranks, each is put together from all of them: then all ranks must call this
    together.

    Args:
        model: The model.
        meant: Chooses names; those of adapters, say.
        keep: False takes part in putting together and returns nothing: one copy of a large model is enough.
    """
    weights: TensorMap = {}
    for name, tensor in _named_tensors(model, meant):
        whole = _whole(tensor)
        if keep:
            weights[name] = whole.cpu().contiguous()
    return weights


def _named_tensors(model: torch.nn.Module, meant: Callable[[str], bool]) -> Iterator[tuple[str, Tensor]]:
    """Yield what a model saves, as it holds it; of tied ones the first."""
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen and meant(name):
            seen.add(id(tensor))
            yield name, tensor.detach()


def _whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor of which this rank may hold a part only."""
    if isinstance(tensor, DTensor):
        return tensor.full_tensor()
    return tensor.detach()


def _divided_like(model_tensor: Tensor, whole: Tensor) -> Tensor:
    """Return of a whole tensor what this rank holds, divided as `model_tensor` is; without asking other ranks."""
    if not isinstance(model_tensor, DTensor):
        return whole
    mesh = model_tensor.device_mesh
    # Every rank has read the same file, so nobody need send it.
    return distribute_tensor(whole.to(mesh.device_type), mesh, model_tensor.placements, src_data_rank=None)


def load_weights(
    model: torch.nn.Module, weights: Mapping[str, Tensor], *, meant: Callable[[str], bool] = _all_names
) -> None:
    """Put weights into a model of the same shape, which may be divided among ranks that all load the same ones.

    Args:
        model: The model.
        weights: By name, on the CPU.
        meant: Chooses the names that must be there; others keep what they have.

    Raises:
        StateError: Where names or shapes differ, with the first that does.
    """
    expected = dict(_named_tensors(model, meant))
    for name in sorted(expected.keys() ^ weights.keys()):
        where = "the checkpoint lacks" if name in expected else "the model lacks"
        raise StateError(f"the checkpoint is of another model: {where} {name}", "use the options of the saved run")
    for name, tensor in expected.items():
        if weights[name].shape != tensor.shape:
            raise StateError(
                f"the checkpoint is of another model: {name} is {list(weights[name].shape)} there, "
                f"{list(tensor.shape)} here",
                "use the options of the saved run",
            )
    # Not strict: tied names are missing, and follow the one that is there.
    model.load_state_dict({name: _divided_like(expected[name], weights[name]) for name in expected}, strict=False)


def pack_optimizer(optimizer: torch.optim.Optimizer, *, keep: bool = True) -> Packed:
    """Return the optimizer's state: tensors as `number.name`, and the groups' settings.

    Of a state that is divided among ranks all of it is put together: then all ranks must call this together.

    Args:
        optimizer: The optimizer.
        keep: False takes part in putting together and returns no tensors.
    """
    state = optimizer.state_dict()
    tensors: TensorMap = {}
    # In the order of the parameters, which is the same on all ranks.
    for number, entry in sorted(state["state"].items()):
        for name, value in entry.items():
            if not isinstance(value, Tensor):
                continue
            whole = _whole(value)
            if keep:
                tensors[f"{number}.{name}"] = whole.cpu().contiguous()
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
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in current for number in group["params"]]
    by_number = dict(zip(numbers, parameters, strict=True))
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in packed.tensors.items():
        number, _, name = key.partition(".")
        parameter = by_number[int(number)]
        # Moments have their parameter's shape; counters have none, and stay whole on every rank.
        value = _divided_like(parameter, tensor) if tensor.shape == parameter.shape else tensor
        state.setdefault(int(number), {})[name] = value
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
