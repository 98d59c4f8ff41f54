"""Adapters: what they leave as it is, how they are saved, and that peft itself reads them."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from reelstream.errors import ConfigError, StateError
from reelstream.train.checkpoints import CheckpointStore, load_newest
from reelstream.train.lora import fingerprint_of, is_adapter, named_in_model, num_adapter_parameters, split_adapters
from reelstream.train.loss import token_losses
from reelstream.train.models import LoadedModel, load_model, load_saved_model
from reelstream.train.options import (
    CheckpointOptions,
    LoraOptions,
    ModelOptions,
    TrainOptions,
    saved_weights,
)
from reelstream.train.rank_state import RankState
from reelstream.train.saving import (
    Progress,
    checkpoint_contents,
    checkpoint_size_bytes,
    gather_model_state,
    restore,
)
from reelstream.train.state import weights_of
from reelstream.types import Position
from train_kit import SMALLEST, TEXTS, make_sample, smallest_model

LORA = LoraOptions(rank=4, alpha=8)
TINY_LORA = ModelOptions(tiny=SMALLEST, lora=LORA)
PROGRESS = Progress(step=3, total_steps=10)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as somebody publishes one: a folder that `from_pretrained` reads."""
    return save_model(smallest_model(seed=5), tmp_path_factory.mktemp("published"))


def save_model(loaded: LoadedModel, parent: Path) -> Path:
    return save(loaded, torch.optim.AdamW(loaded.model.parameters()), parent, weights_only=True)


def published(base: Path, **changes: Any) -> ModelOptions:
    return ModelOptions(name=str(base), lora=LoraOptions(**{"rank": 4, "alpha": 8, **changes}))


def batch_of(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    encoded = []
    for number in range(2):
        sample = make_sample(number, Position(0, 0, number))
        clip = loaded.family.prepare(sample["frames"], sample["timestamps"].tolist(), sample["duration"])
        encoded.append(loaded.family.encode(sample["messages"], clip))
    return loaded.family.collate(encoded)


def optimizer_of(loaded: LoadedModel) -> torch.optim.AdamW:
    return torch.optim.AdamW([p for p in loaded.model.parameters() if p.requires_grad], lr=1e-2)


def train(loaded: LoadedModel, optimizer: torch.optim.Optimizer, num_steps: int = 2) -> None:
    for _ in range(num_steps):
        optimizer.zero_grad()
        token_losses(loaded.model, batch_of(loaded)).losses.mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def save(loaded: LoadedModel, optimizer: torch.optim.Optimizer, folder: Path, **options: Any) -> Path:
    checkpoints = CheckpointOptions(**options)
    contents = checkpoint_contents(
        loaded,
        gather_model_state(loaded, optimizer, checkpoints),
        options=TrainOptions(),
        progress=PROGRESS,
        ranks=[RankState.here(data_state={}, run_state={})],
        data_state={},
        run_state={},
        checkpoints=checkpoints,
    )
    store = CheckpointStore(folder, keep=1)
    store.open()
    return store.save(contents).folder


def losses_of(model: Any, loaded: LoadedModel) -> torch.Tensor:
    with torch.no_grad():
        return token_losses(model, batch_of(loaded)).losses


@pytest.fixture
def adapted(base_folder: Path) -> tuple[LoadedModel, torch.optim.Optimizer]:
    """Adapters beside a published model, trained for two steps."""
    loaded = load_model(published(base_folder), texts=(), seed=0)
    optimizer = optimizer_of(loaded)
    train(loaded, optimizer)
    return loaded, optimizer


# ---------------------------------------------------------------------- the adapters


def test_fresh_adapters_change_nothing_that_the_model_says(base_folder: Path) -> None:
    plain = load_model(ModelOptions(name=str(base_folder)), texts=(), seed=0)
    with_adapters = load_model(published(base_folder), texts=(), seed=0)
    assert torch.equal(losses_of(plain.model, plain), losses_of(with_adapters.model, with_adapters))


def test_only_adapters_are_trained(base_folder: Path) -> None:
    loaded = load_model(published(base_folder), texts=(), seed=0)
    before = {name: tensor.clone() for name, tensor in weights_of(loaded.model).items()}
    train(loaded, optimizer_of(loaded))
    changed = {name for name, tensor in weights_of(loaded.model).items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(is_adapter(name) for name in changed)
    assert loaded.num_trained == sum(before[name].numel() for name in before if is_adapter(name))


def test_the_same_seed_gives_the_same_adapters(base_folder: Path) -> None:
    first, again, other = (
        split_adapters(weights_of(load_model(published(base_folder), texts=(), seed=seed).model))[1]
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_number_of_adapters_parameters_is_known_before_there_are_any(base_folder: Path) -> None:
    plain = load_model(ModelOptions(name=str(base_folder)), texts=(), seed=0)
    told = num_adapter_parameters(plain.model, rank=4)
    assert told == load_model(published(base_folder), texts=(), seed=0).num_trained


def test_named_targets_alone_get_adapters(base_folder: Path) -> None:
    loaded = load_model(published(base_folder, targets=("q_proj", "v_proj")), texts=(), seed=0)
    names = [name for name, parameter in loaded.model.named_parameters() if parameter.requires_grad]
    assert names
    assert all(".q_proj." in name or ".v_proj." in name for name in names)


@pytest.mark.parametrize("targets", [("no_such_layer",), ("input_layernorm",)])
def test_targets_that_cannot_have_adapters_are_refused(base_folder: Path, targets: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=rf"model\.lora\.targets {targets[0]} cannot have adapters"):
        load_model(published(base_folder, targets=targets), texts=(), seed=0)


def test_a_folder_of_adapters_is_no_model_to_start_from(
    tmp_path: Path, adapted: tuple[LoadedModel, torch.optim.Optimizer]
) -> None:
    folder = save(*adapted, tmp_path)
    with pytest.raises(ConfigError, match="holds adapters"):
        load_model(ModelOptions(name=str(folder)), texts=(), seed=0)


# ---------------------------------------------------------------------- names and fingerprints


def test_names_go_to_the_file_and_back() -> None:
    weights = {
        "model.layers.0.q_proj.base_layer.weight": torch.zeros(1),
        "model.layers.0.q_proj.lora_A.default.weight": torch.ones(1),
        "model.embed.lora_embedding_A.default": torch.ones(2),
        "model.norm.weight": torch.zeros(2),
    }
    base, adapters = split_adapters(weights)
    assert set(base) == {"model.layers.0.q_proj.weight", "model.norm.weight"}
    assert set(adapters) == {
        "base_model.model.model.layers.0.q_proj.lora_A.weight",
        "base_model.model.model.embed.lora_embedding_A",
    }
    assert set(named_in_model(adapters)) == {name for name in weights if is_adapter(name)}


def test_a_fingerprint_tells_weights_that_differ_a_little_everywhere_apart() -> None:
    weights = {"a": torch.randn(100, 100, generator=torch.Generator().manual_seed(1)), "empty": torch.zeros(0)}
    assert fingerprint_of(weights) == fingerprint_of(dict(reversed(list(weights.items()))))
    assert fingerprint_of(weights) != fingerprint_of({**weights, "a": weights["a"] * 1.0001})
    assert fingerprint_of(weights) != fingerprint_of({**weights, "a": weights["a"].view(50, 200)})


# ---------------------------------------------------------------------- what is saved


# peft asks transformers by a name that it will lose.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_checkpoint_of_adapters_is_what_peft_reads(
    tmp_path: Path, base_folder: Path, adapted: tuple[LoadedModel, torch.optim.Optimizer]
) -> None:
    import peft
    from transformers import AutoModelForImageTextToText

    loaded, optimizer = adapted
    folder = save(loaded, optimizer, tmp_path)
    assert not (folder / "model.safetensors").exists()
    base = AutoModelForImageTextToText.from_pretrained(base_folder, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(base, folder)
    assert torch.equal(losses_of(theirs.get_base_model(), loaded), losses_of(loaded.model, loaded))
    merged = theirs.merge_and_unload()
    assert torch.allclose(losses_of(merged, loaded), losses_of(loaded.model, loaded), atol=1e-4)


def test_transformers_reads_a_checkpoint_of_adapters_by_itself(
    tmp_path: Path, adapted: tuple[LoadedModel, torch.optim.Optimizer]
) -> None:
    from transformers import AutoModelForImageTextToText

    loaded, optimizer = adapted
    cases: list[dict[str, Any]] = [{}, {"weights": "full"}]
    for options in cases:
        folder = save(loaded, optimizer, tmp_path / str(len(options)), **options)
        theirs = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        assert torch.equal(losses_of(theirs, loaded), losses_of(loaded.model, loaded))


def test_a_checkpoint_of_adapters_names_its_base(
    tmp_path: Path, base_folder: Path, adapted: tuple[LoadedModel, torch.optim.Optimizer]
) -> None:
    folder = save(*adapted, tmp_path)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base_folder)
    assert (config["r"], config["lora_alpha"], config["inference_mode"]) == (4, 8, True)


@pytest.mark.parametrize("options", [{}, {"weights": "full"}, {"weights_only": True}])
def test_the_size_of_a_checkpoint_with_adapters_is_known_before_it_is_made(
    tmp_path: Path, adapted: tuple[LoadedModel, torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    loaded, _ = adapted
    folder = save(*adapted, tmp_path, **options)
    told_bytes = checkpoint_size_bytes(loaded, CheckpointOptions(**options))
    on_disk_bytes = sum(-(-file.stat().st_size // 4096) * 4096 for file in folder.iterdir())
    assert on_disk_bytes <= told_bytes <= on_disk_bytes + 600_000


# ---------------------------------------------------------------------- going on


def resumed(folder: Path, options: ModelOptions) -> tuple[LoadedModel, torch.optim.Optimizer]:
    loaded = load_saved_model(folder, options, seed=99)
    optimizer = optimizer_of(loaded)
    checkpoint = load_newest(folder.parent)
    assert checkpoint is not None
    restore(checkpoint, loaded, optimizer, TrainOptions())
    return loaded, optimizer


@pytest.mark.parametrize("weights", [None, "full"])
def test_a_resume_of_adapters_is_exact(
    tmp_path: Path, base_folder: Path, adapted: tuple[LoadedModel, torch.optim.Optimizer], weights: Any
) -> None:
    loaded, optimizer = adapted
    folder = save(loaded, optimizer, tmp_path, weights=weights)
    again, its_optimizer = resumed(folder, published(base_folder))
    train(loaded, optimizer)
    train(again, its_optimizer)
    expected, got = weights_of(loaded.model), weights_of(again.model)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_adapters_of_the_tiny_model_are_saved_with_their_base_and_resumed(tmp_path: Path) -> None:
    loaded = load_model(TINY_LORA, texts=TEXTS, seed=0)
    optimizer = optimizer_of(loaded)
    train(loaded, optimizer)
    folder = save(loaded, optimizer, tmp_path)
    assert {"model.safetensors", "adapter_model.safetensors"} <= {file.name for file in folder.iterdir()}
    again, its_optimizer = resumed(folder, TINY_LORA)
    train(loaded, optimizer)
    train(again, its_optimizer)
    expected, got = weights_of(loaded.model), weights_of(again.model)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_dropout_in_adapters_is_resumed_as_well(tmp_path: Path, base_folder: Path) -> None:
    options = published(base_folder, dropout=0.5)
    loaded = load_model(options, texts=(), seed=0)
    optimizer = optimizer_of(loaded)
    train(loaded, optimizer)
    folder = save(loaded, optimizer, tmp_path)
    train(loaded, optimizer)
    random.seed(123)
    again, its_optimizer = resumed(folder, options)
    train(again, its_optimizer)
    expected, got = weights_of(loaded.model), weights_of(again.model)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_adapters_beside_another_base_are_refused(
    tmp_path: Path, base_folder: Path, adapted: tuple[LoadedModel, torch.optim.Optimizer]
) -> None:
    folder = save(*adapted, tmp_path / "run")
    other = save_model(smallest_model(seed=6), tmp_path / "other")
    with pytest.raises(StateError, match="beside other weights") as caught:
        resumed(folder, published(other))
    assert str(base_folder) in str(caught.value.hint)


@pytest.mark.parametrize(
    ("lora", "sentence"),
    [
        (LoraOptions(rank=4, alpha=16), r"model\.lora\.alpha = 8, not 16"),
        (LoraOptions(rank=8, alpha=8), r"model\.lora\.rank = 4, not 8"),
        (LoraOptions(rank=4, alpha=8, targets=("q_proj",)), r"model\.lora\.targets = all-linear"),
    ],
)
def test_adapters_with_other_options_are_refused(
    tmp_path: Path,
    base_folder: Path,
    adapted: tuple[LoadedModel, torch.optim.Optimizer],
    lora: LoraOptions,
    sentence: str,
) -> None:
    folder = save(*adapted, tmp_path)
    with pytest.raises(StateError, match=sentence):
        resumed(folder, ModelOptions(name=str(base_folder), lora=lora))


def test_adapters_without_the_option_are_refused(
    tmp_path: Path, base_folder: Path, adapted: tuple[LoadedModel, torch.optim.Optimizer]
) -> None:
    folder = save(*adapted, tmp_path)
    with pytest.raises(StateError, match="holds no weights of a whole model"):
        resumed(folder, ModelOptions(name=str(base_folder)))
    folder = save(*adapted, tmp_path / "full", weights="full")
    with pytest.raises(StateError, match=r"made with model\.lora = "):
        resumed(folder, ModelOptions(name=str(base_folder)))


def test_a_whole_model_does_not_go_on_with_adapters(tmp_path: Path) -> None:
    loaded = smallest_model()
    optimizer = optimizer_of(loaded)
    train(loaded, optimizer)
    folder = save(loaded, optimizer, tmp_path)
    with pytest.raises(StateError, match=r"made with model\.lora = null, not"):
        resumed(folder, TINY_LORA)


# ---------------------------------------------------------------------- options


def test_adapters_alone_are_saved_where_their_base_can_be_had_again() -> None:
    real = ModelOptions(name="organisation/model", lora=LORA)
    assert saved_weights(real, CheckpointOptions()) == "adapters"
    assert saved_weights(real, CheckpointOptions(weights="full")) == "full"
    assert saved_weights(TINY_LORA, CheckpointOptions()) == "full"
    assert saved_weights(dataclasses.replace(real, lora=None), CheckpointOptions()) == "full"


@pytest.mark.parametrize(
    ("model", "sentence"),
    [(ModelOptions(), r"model\.lora is not set"), (TINY_LORA, "can be had nowhere again")],
)
def test_adapters_alone_that_nothing_could_be_resumed_from_are_refused(model: ModelOptions, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        saved_weights(model, CheckpointOptions(weights="adapters"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rank": 0}, r"model\.lora\.rank must be at least 1"),
        ({"alpha": 0}, r"model\.lora\.alpha must be at least 1"),
        ({"dropout": 1.0}, r"model\.lora\.dropout must be in \[0, 1\)"),
        ({"targets": ()}, r"model\.lora\.targets names no layer"),
    ],
)
def test_contradictory_adapter_options_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        LoraOptions(**changes)
