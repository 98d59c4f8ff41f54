"""Models: a tiny random one, or a published one by name; either with its family's preprocessing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reelstream.errors import StateError
from reelstream.train.device import seed_everything
from reelstream.train.extra import quiet_transformers, require_train_extra, transformers_module
from reelstream.train.families import Family, qwen3_vl, smolvlm2
from reelstream.train.hub_files import FileSource, translated_errors
from reelstream.train.lora import ADAPTER_CONFIG_FILE, Adapters, add_adapters
from reelstream.train.options import FamilyName, ModelOptions
from reelstream.train.state import load_weights
from reelstream.train.tiny import tiny_config, tiny_settings
from reelstream.train.tokenizer import build_tokenizer, tokenizer_bytes

MODEL_TYPES: dict[FamilyName, str] = {"qwen3_vl": "qwen3_vl", "smolvlm2": "smolvlm"}
"""What `config.json` calls each family."""
MODEL_FILE = "model.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model, and all that it takes to use it elsewhere."""

    model: Any
    """A conditional generation model of transformers, float32, on the CPU, in training mode."""
    family: Family
    small_files: Mapping[str, bytes]
    """Configuration, tokenizer and preprocessing by file name: with the weights beside them, a folder that
    `from_pretrained` reads."""
    adapters: Adapters | None = None
    """What is trained in place of the weights; None where the weights are."""

    @property
    def num_parameters(self) -> int:
        """Parameters, tied ones counted once; those of adapters included."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def num_trained(self) -> int:
        """Parameters that training changes."""
        return sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)


def load_model(options: ModelOptions, *, texts: Iterable[str], seed: int) -> LoadedModel:
    """Return the model that the options name, with fresh adapters where they ask for some.

    Args:
        options: Which.
        texts: What the tiny model's tokenizer is built from; not read for a published model.
        seed: Of the tiny model's weights, and of the adapters'.

    Raises:
        ConfigError: Where the repository holds another family, or adapters, or the adapters do not fit the model.
        HubError: Where a published model cannot be had; the subclass says why.
        MissingExtraError: Where transformers is not installed.
    """
    require_train_extra()
    if options.name is None:
        return _with_adapters(_tiny_model(options, texts, seed), options, name=None, commit=None, seed=seed)
    return _loaded_base(options, options.revision, seed)


def load_saved_model(folder: Path, options: ModelOptions, *, seed: int = 0) -> LoadedModel:
    """Return the model that a checkpoint is of; what was trained of it is yet to be read.

    Of adapters the base model's weights are in it already: from the checkpoint where it holds them, else from where
    the options say, at the commit that the checkpoint names.

    Args:
        folder: Of the checkpoint.
        options: Of the run.
        seed: As for `load_model`.

    Raises:
        ConfigError: Where the folder holds another family than the options name.
        HubError: Where the base model cannot be had; the subclass says why.
    """
    require_train_extra()
    recorded = _adapter_record(folder)
    if recorded is not None and not (folder / MODEL_FILE).exists():
        return _base_of_adapters(folder, recorded, options, seed)
    with FileSource(str(folder), None) as source:
        loaded = _published_model(source, options, with_weights=False)
    if recorded is None or options.lora is None:
        return _with_adapters(loaded, options, name=options.name, commit=None, seed=seed)
    load_weights(loaded.model, _load_file(folder / MODEL_FILE))
    return _with_adapters(
        loaded, options, name=recorded["base_model_name_or_path"], commit=recorded["revision"], seed=seed
    )


def _base_of_adapters(folder: Path, recorded: Mapping[str, Any], options: ModelOptions, seed: int) -> LoadedModel:
    """Return the base model that a checkpoint's adapters name, at the commit that they name it at."""
    if options.name is None or options.lora is None:
        raise StateError(
            f"{folder.name} holds no weights of a whole model, but adapters",
            "set model.name and model.lora as the saved run had them, or start a new run",
        )
    # The same model may lie elsewhere on this machine: whether it is the same one is asked of its weights.
    is_same_name = recorded["base_model_name_or_path"] == options.name
    return _loaded_base(options, recorded["revision"] if is_same_name else options.revision, seed)


def _loaded_base(options: ModelOptions, revision: str | None, seed: int) -> LoadedModel:
    assert options.name is not None
    with FileSource(options.name, revision) as source:
        commit = source.pin()
        source.refuse_unless(
            source.path(ADAPTER_CONFIG_FILE) is None,
            "holds adapters, and training goes on from whole models: merge them into their base model first, by "
            "peft's merge_and_unload",
        )
        loaded = _published_model(source, options, with_weights=True)
    return _with_adapters(loaded, options, name=options.name, commit=commit, seed=seed)


def _with_adapters(
    loaded: LoadedModel, options: ModelOptions, *, name: str | None, commit: str | None, seed: int
) -> LoadedModel:
    if options.lora is None:
        return loaded
    adapters = add_adapters(loaded.model, options.lora, name=name, commit=commit, seed=seed)
    return dataclasses.replace(loaded, adapters=adapters)


def _adapter_record(folder: Path) -> dict[str, Any] | None:
    """Return what `adapter_config.json` of a checkpoint says; None where the checkpoint holds no adapters."""
    path = folder / ADAPTER_CONFIG_FILE
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _load_file(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file  # noqa: PLC0415 - an optional dependency

    return dict(load_file(path))


def _tiny_model(options: ModelOptions, texts: Iterable[str], seed: int) -> LoadedModel:
    module = qwen3_vl if options.family == "qwen3_vl" else smolvlm2
    family_class: Any = qwen3_vl.Qwen3VLFamily if options.family == "qwen3_vl" else smolvlm2.SmolVLM2Family
    tokenizer = build_tokenizer(
        texts,
        vocabulary_size=options.tiny.vocabulary_size,
        special_tokens=family_class.special_tokens,
        pad_token=module.PAD_TOKEN,
        end_token=module.END_TOKEN,
    )
    with quiet_transformers():
        config = tiny_config(options, tokenizer)
        seed_everything(seed)
        model = _from_config(config)
    family = family_class(tokenizer, tiny_settings(options))
    return LoadedModel(model=model, family=family, small_files=_small_files_of_tiny(config, family))


def _from_config(config: Any) -> Any:
    return transformers_module().AutoModelForImageTextToText.from_config(config, dtype=torch.float32).train()


def _small_files_of_tiny(config: Any, family: Family) -> dict[str, bytes]:
    tokenizer = family.tokenizer
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": tokenizer.pad_token,
        "eos_token": tokenizer.eos_token,
        "clean_up_tokenization_spaces": False,
    }
    processor = family.processor_settings()
    return {
        "config.json": config.to_json_string(use_diff=False).encode(),
        "tokenizer.json": tokenizer_bytes(tokenizer),
        "tokenizer_config.json": _json(tokenizer_config),
        "video_preprocessor_config.json": _json(family.settings()),
        **({"processor_config.json": _json(processor)} if processor else {}),
    }


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def _published_model(source: FileSource, options: ModelOptions, *, with_weights: bool) -> LoadedModel:
    transformers = transformers_module()
    config_json = source.config()
    source.refuse_unless(
        config_json.get("model_type") == MODEL_TYPES[options.family],
        f"holds a model of the type {config_json.get('model_type')!r}, and model.family is {options.family}",
    )
    small_files = source.read_small_files()
    with quiet_transformers(), translated_errors(source):
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.name, revision=source.revision)
        if with_weights:
            model = transformers.AutoModelForImageTextToText.from_pretrained(
                source.name, revision=source.revision, dtype=torch.float32
            ).train()
        else:
            model = _from_config(transformers.AutoConfig.from_pretrained(source.name, revision=source.revision))
    return LoadedModel(model=model, family=_family_of(source, options, tokenizer), small_files=small_files)


def _family_of(source: FileSource, options: ModelOptions, tokenizer: Any) -> Family:
    processor = source.json("processor_config.json") or {}
    # In the order in which transformers looks.
    video = (
        processor.get("video_processor")
        or source.json("video_preprocessor_config.json")
        or source.json("preprocessor_config.json")
    )
    source.refuse_unless(video is not None, "has no configuration of a video processor")
    assert video is not None
    if options.family == "qwen3_vl":
        settings = qwen3_vl.Qwen3VLSettings.from_json(video)
        return qwen3_vl.Qwen3VLFamily(tokenizer, settings.with_pixels(options.min_pixels, options.max_pixels))
    return smolvlm2.SmolVLM2Family(tokenizer, smolvlm2.SmolVLM2Settings.from_json(video, processor))
