"""Which weights a checkpoint holds, and how they come back: a whole model, or adapters that name their base.

```
full                     model.safetensors, config.json, tokenizer.json ...: a folder that `from_pretrained` reads
full, with adapters      the same of the base model, and the two files below: transformers loads both
adapters                 adapter_model.safetensors, adapter_config.json, tokenizer.json ...; the base is named
```

A folder of adapters has no `config.json`: with one, transformers takes it for a whole model that lacks its weights.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reelstream.errors import StateError
from reelstream.train.checkpoints import Checkpoint
from reelstream.train.lora import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILE,
    is_adapter,
    named_in_model,
    split_adapters,
)
from reelstream.train.models import MODEL_FILE, LoadedModel
from reelstream.train.options import CheckpointOptions, WeightsKind
from reelstream.train.state import TensorMap, load_weights

_FILES_OF_WHOLE_MODELS = frozenset({"config.json", "generation_config.json"})


def kind_saved(loaded: LoadedModel, options: CheckpointOptions) -> WeightsKind:
    """Return which weights a checkpoint of this model holds; `options.saved_weights` refuses what cannot be."""
    adapters = loaded.adapters
    if options.weights is not None:
        return options.weights if adapters is not None else "full"
    return "full" if adapters is None or adapters.base.name is None else "adapters"


def weight_files(loaded: LoadedModel, weights: Mapping[str, Tensor], kind: WeightsKind) -> dict[str, TensorMap]:
    """Return the tensors of a checkpoint's weight files by file name.

    Args:
        loaded: The model.
        weights: All its weights by the names that they have in it, on the CPU; see `state.weights_of`.
        kind: Which of them are saved.
    """
    if loaded.adapters is None:
        return {MODEL_FILE: dict(weights)}
    base, adapters = split_adapters(weights)
    return {ADAPTER_FILE: adapters} if kind == "adapters" else {MODEL_FILE: base, ADAPTER_FILE: adapters}


def small_files(loaded: LoadedModel, kind: WeightsKind) -> dict[str, bytes]:
    """Return the configuration files that stand beside the weights, by file name."""
    files = dict(loaded.small_files)
    if loaded.adapters is None:
        return files
    if kind == "adapters":
        files = {name: content for name, content in files.items() if name not in _FILES_OF_WHOLE_MODELS}
    return files | {ADAPTER_CONFIG_FILE: loaded.adapters.config_json}


def model_record(loaded: LoadedModel) -> dict[str, Any]:
    """Return, as JSON values, what a resume compares before it takes weights: which adapters, beside which base."""
    adapters = loaded.adapters
    if adapters is None:
        return {"lora": None, "base": None}
    lora = dataclasses.asdict(adapters.options)
    targets = adapters.options.targets
    return {
        "lora": lora | {"targets": targets if isinstance(targets, str) else list(targets)},
        "base": dataclasses.asdict(adapters.base),
    }


def refuse_other_model(saved: Mapping[str, Any], loaded: LoadedModel) -> None:
    """Refuse the weights of a checkpoint that stand beside another base, or are not of these adapters.

    Args:
        saved: What `model_record` returned when it was made; empty in checkpoints of before there were adapters.
        loaded: The model that goes on.

    Raises:
        StateError: With what differs.
    """
    here = model_record(loaded)
    if saved.get("lora") != here["lora"]:
        where, before, now = _difference(saved.get("lora"), here["lora"])
        raise StateError(
            f"the checkpoint was made with {where} = {before}, not {now}",
            "use the options of the saved run, or start a new one",
        )
    if here["base"] is not None and saved["base"]["fingerprint"] != here["base"]["fingerprint"]:
        raise StateError(
            "the checkpoint's adapters were trained beside other weights than those of "
            f"{here['base']['name'] or 'the tiny model'}",
            f"set model.name to what they were trained with: {_named(saved['base'])}",
        )


def restore_weights(checkpoint: Checkpoint, loaded: LoadedModel) -> None:
    """Put a checkpoint's weights into a model; a base model's are in it already, see `models.load_saved_model`.

    Raises:
        StateError: Where names or shapes differ.
    """
    if loaded.adapters is None:
        load_weights(loaded.model, checkpoint.tensors(MODEL_FILE))
    else:
        load_weights(loaded.model, named_in_model(checkpoint.tensors(ADAPTER_FILE)), meant=is_adapter)


def _difference(saved: Mapping[str, Any] | None, here: Mapping[str, Any] | None) -> tuple[str, object, object]:
    """Return the option that differs, and its two values; of adapters on one side only, all of them."""
    if saved is None or here is None:
        return "model.lora", _shown(saved), _shown(here)
    name = next(name for name in here if saved.get(name) != here[name])
    return f"model.lora.{name}", saved.get(name), here[name]


def _shown(lora: Mapping[str, Any] | None) -> str:
    return "null" if lora is None else json.dumps(lora)


def _named(base: Mapping[str, Any]) -> str:
    if base["name"] is None:
        return "the tiny model of that run"
    return f"{base['name']} at {base['commit']}" if base["commit"] else str(base["name"])
