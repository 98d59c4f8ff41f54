"""LoRA: two small matrices beside each chosen layer, trained while the layer stays as it is; by `peft`.

The layers are replaced in place, so that the model stays the one that the loop, the loss and the evaluation know. What
is saved has the names and the form that peft gives it:

```
in the model                                  in a file
X.base_layer.weight                           X.weight                          model.safetensors
X.lora_A.default.weight                       base_model.model.X.lora_A.weight  adapter_model.safetensors
```

Names are turned as text, not by peft's own functions: those want the whole model at hand, which a model that is spread
over several GPUs never is, and may ask the Hub about the base model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reelstream.errors import ConfigError
from reelstream.train.device import seed_everything
from reelstream.train.extra import require_train_extra
from reelstream.train.options import LoraOptions
from reelstream.train.state import TensorMap, weights_of

ADAPTER_FILE, ADAPTER_CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"

_ADAPTER = "default"
"""What peft calls the only adapter of a model."""
_FILE_PREFIX = "base_model.model."
_BASE_LAYER = ".base_layer."
# Enough to tell any two trainings apart, and of the largest models no more than some megabytes to read.
_MOST_SAMPLED_VALUES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """The model that adapters stand beside."""

    name: str | None
    """Repository of the Hub or local folder; None for the tiny model."""
    commit: str | None
    """Of the repository, where it has one."""
    fingerprint: str
    """See `fingerprint_of`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """What a model's adapters are, apart from their weights."""

    options: LoraOptions
    base: BaseModel
    config_json: bytes
    """As `adapter_config.json` holds it."""


def add_adapters(model: Any, options: LoraOptions, *, name: str | None, commit: str | None, seed: int) -> Adapters:
    """Put adapters beside a model's layers, in place, and leave only them to be trained.

    At first they change nothing: one of each pair is zero.

    Args:
        model: A model of transformers with its base weights in it.
        options: Which adapters.
        name: What the base model is called; None for the tiny one.
        commit: Its commit, where it has one.
        seed: Of the adapters' first weights, and of what is drawn after them.

    Raises:
        ConfigError: Where the targets are no layers of the model, or none that can have adapters.
        MissingExtraError: Where peft is not installed.
    """
    require_train_extra("peft")
    import peft  # noqa: PLC0415 - an optional dependency

    base = BaseModel(name=name, commit=commit, fingerprint=fingerprint_of(weights_of(model)))
    config = peft.LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=options.targets if options.targets == "all-linear" else list(options.targets),
        bias="none",
        base_model_name_or_path=name,
        revision=commit,
    )
    # Whether the base was built or loaded, what is drawn from here on is the same.
    seed_everything(seed)
    try:
        peft.inject_adapter_in_model(config, model, adapter_name=_ADAPTER)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"model.lora.targets {_listed(options)} cannot have adapters: {_first_sentence(error)}",
            "name linear layers of the model, such as q_proj and v_proj, or leave model.lora.targets out",
        ) from error
    return Adapters(options=options, base=base, config_json=_config_bytes(config, model))


def is_adapter(name: str) -> bool:
    """Return whether a model's parameter of this name is an adapter's."""
    return ".lora_" in name


def split_adapters(weights: Mapping[str, Tensor]) -> tuple[TensorMap, TensorMap]:
    """Return a model's weights as base and adapters, each by the names that its file has."""
    base = {name.replace(_BASE_LAYER, "."): tensor for name, tensor in weights.items() if not is_adapter(name)}
    adapters = {_file_name(name): tensor for name, tensor in weights.items() if is_adapter(name)}
    return base, adapters


def named_in_model(adapters: Mapping[str, Tensor]) -> TensorMap:
    """Return the adapters of a file by the names that they have in the model."""
    return {_model_name(name): tensor for name, tensor in adapters.items()}


def fingerprint_of(weights: Mapping[str, Tensor]) -> str:
    """Return what tells one model's weights from any other's: a digest of names, shapes and a sample of the values.

    At most 4096 evenly spaced values of each tensor are read: a training of any kind changes all of them a little, and
    a digest of all bytes would cost as long as loading them.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().flatten()
        sampled = tensor[:: max(1, tensor.numel() // _MOST_SAMPLED_VALUES)].contiguous()
        digest.update(json.dumps([name, list(weights[name].shape), str(tensor.dtype)]).encode())
        digest.update(sampled.cpu().view(torch.uint8).numpy().tobytes() if sampled.numel() else b"")
    return digest.hexdigest()


def num_adapter_parameters(model: torch.nn.Module, rank: int) -> int:
    """Return how many parameters adapters of this rank have beside all linear layers but the output embeddings."""
    output = getattr(model, "get_output_embeddings", lambda: None)()
    layers = (layer for layer in model.modules() if isinstance(layer, torch.nn.Linear) and layer is not output)
    return sum(rank * (layer.in_features + layer.out_features) for layer in layers)


# ---------------------------------------------------------------------- inside


def _file_name(name: str) -> str:
    """`X.lora_A.default.weight` to `base_model.model.X.lora_A.weight`, and `X.lora_embedding_A.default` alike."""
    head, _, last = name.rpartition(".")
    if last == _ADAPTER:
        return _FILE_PREFIX + head
    return f"{_FILE_PREFIX}{head.removesuffix(f'.{_ADAPTER}')}.{last}"


def _model_name(name: str) -> str:
    head, _, last = name.removeprefix(_FILE_PREFIX).rpartition(".")
    if last.startswith("lora_"):
        return f"{head}.{last}.{_ADAPTER}"
    return f"{head}.{_ADAPTER}.{last}"


def _config_bytes(config: Any, model: Any) -> bytes:
    """Return what `PeftModel.from_pretrained` wants to know, in the form in which peft itself writes it."""
    values = config.to_dict()
    values["inference_mode"] = True
    values["auto_mapping"] = {"base_model_class": type(model).__name__, "parent_library": type(model).__module__}
    return (json.dumps(values, indent=2, sort_keys=True, default=_plain) + "\n").encode()


def _plain(value: object) -> object:
    if isinstance(value, Iterable):
        return sorted(value)
    return str(value)


def _listed(options: LoraOptions) -> str:
    return options.targets if isinstance(options.targets, str) else ", ".join(options.targets)


def _first_sentence(error: Exception) -> str:
    return (
        str(error).strip().splitlines()[0].partition(". ")[0].rstrip(".") if str(error).strip() else "no reason given"
    )
