from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from reelstream.errors import (
    AccessDeniedError,
    ConfigError,
    MissingExtraError,
    NetworkError,
    NotFoundOnHubError,
)
from reelstream.train.families import Family
from reelstream.train.feeder import encode_sample
from reelstream.train.hub_files import FileSource, translated_errors
from reelstream.train.loss import token_losses
from reelstream.train.models import LoadedModel, load_model, load_saved_model
from reelstream.train.options import FamilyName, ModelOptions
from reelstream.train.state import load_weights, weights_of
from reelstream.types import Position
from train_kit import SMALLEST, TEXTS, make_sample, smallest_model

FAMILIES: tuple[FamilyName, ...] = ("qwen3_vl", "smolvlm2")


def tiny(family: FamilyName, seed: int = 0) -> LoadedModel:
    image_size = 32 if family == "smolvlm2" else None
    options = ModelOptions(family=family, tiny=SMALLEST, image_size=image_size)
    return load_model(options, texts=TEXTS, seed=seed)


def saved(loaded: LoadedModel, folder: Path) -> Path:
    from safetensors.torch import save_file

    for name, contents in loaded.small_files.items():
        (folder / name).write_bytes(contents)
    save_file(weights_of(loaded.model), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def batch_of(family: Family) -> dict[str, torch.Tensor]:
    samples = [encode_sample(family, make_sample(number, Position(0, 0, number))) for number in range(3)]
    return family.collate(samples)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_decides_the_weights(family: FamilyName) -> None:
    first, again, other = (weights_of(tiny(family, seed).model) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_matrices_have_the_initial_scale(family: FamilyName) -> None:
    for name, tensor in weights_of(tiny(family).model).items():
        if tensor.dim() >= 2 and tensor.numel() >= 256 and "position_ids" not in name:
            assert tensor.std().item() == pytest.approx(SMALLEST.init_scale, rel=0.35), name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_folder_is_a_model_that_from_pretrained_reads(family: FamilyName, tmp_path: Path) -> None:
    loaded = tiny(family)
    folder = saved(loaded, tmp_path)
    published = load_model(ModelOptions(family=family, name=str(folder)), texts=(), seed=9)
    batch = batch_of(loaded.family)
    again = batch_of(published.family)
    assert batch.keys() == again.keys()
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    with torch.no_grad():
        assert torch.equal(token_losses(loaded.model, batch).losses, token_losses(published.model, again).losses)
    assert published.num_parameters == loaded.num_parameters
    assert published.small_files == loaded.small_files


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoints_model_is_rebuilt_without_its_weights(family: FamilyName, tmp_path: Path) -> None:
    loaded = tiny(family)
    folder = saved(loaded, tmp_path)
    (folder / "model.safetensors").unlink()
    rebuilt = load_saved_model(folder, ModelOptions(family=family, tiny=SMALLEST))
    load_weights(rebuilt.model, weights_of(loaded.model))
    batch = batch_of(rebuilt.family)
    with torch.no_grad():
        assert torch.equal(token_losses(loaded.model, batch).losses, token_losses(rebuilt.model, batch).losses)


def test_the_users_limits_win_over_the_models(tmp_path: Path) -> None:
    folder = saved(smallest_model(), tmp_path)
    options = ModelOptions(name=str(folder), max_pixels=4 * 16 * 16)
    family = load_model(options, texts=(), seed=0).family
    clip = family.prepare(torch.zeros(4, 3, 64, 64, dtype=torch.uint8), [0.0] * 4, 1.0)
    assert clip.tensors["video_grid_thw"].tolist() == [2, 2, 2]


def test_a_folder_of_another_family_is_refused(tmp_path: Path) -> None:
    folder = saved(smallest_model(), tmp_path)
    with pytest.raises(ConfigError, match=r"'qwen3_vl', and model\.family is smolvlm2"):
        load_model(ModelOptions(family="smolvlm2", name=str(folder)), texts=(), seed=0)


def test_a_folder_without_a_video_processor_is_refused(tmp_path: Path) -> None:
    folder = saved(smallest_model(), tmp_path)
    (folder / "video_preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match="video processor"):
        load_model(ModelOptions(name=str(folder)), texts=(), seed=0)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundOnHubError, match=r"config\.json"):
        load_model(ModelOptions(name=str(tmp_path)), texts=(), seed=0)


@pytest.mark.parametrize(("nested", "beside", "patch_size"), [(True, True, 8), (False, True, 10), (False, False, 12)])
def test_preprocessing_is_read_from_where_transformers_reads_it(
    tmp_path: Path, nested: bool, beside: bool, patch_size: int
) -> None:
    folder = saved(smallest_model(), tmp_path)
    config = json.loads((folder / "video_preprocessor_config.json").read_text())
    (folder / "video_preprocessor_config.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps({**config, "patch_size": 12}))
    if beside:
        (folder / "video_preprocessor_config.json").write_text(json.dumps({**config, "patch_size": 10}))
    if nested:
        (folder / "processor_config.json").write_text(json.dumps({"video_processor": config}))
    family = load_model(ModelOptions(name=str(folder)), texts=(), seed=0).family
    assert family.settings()["patch_size"] == patch_size


class GatedRepoError(OSError):
    """Named as the client names it."""


class RevisionNotFoundError(OSError):
    """Named as the client names it."""


class RepositoryNotFoundError(OSError):
    """Named as the client names it."""


class LocalEntryNotFoundError(OSError):
    """Named as the client names it."""


@pytest.mark.parametrize(
    ("cause", "expected", "words"),
    [
        (GatedRepoError(), AccessDeniedError, "gated"),
        (RevisionNotFoundError(), NotFoundOnHubError, "no such revision"),
        (RepositoryNotFoundError(), NotFoundOnHubError, "not on the Hub"),
        (LocalEntryNotFoundError(), NetworkError, "cannot be reached"),
        (ValueError("odd"), ConfigError, "cannot be loaded"),
    ],
)
def test_errors_about_a_model_say_what_happened_and_what_to_do(
    cause: Exception, expected: type[Exception], words: str
) -> None:
    with pytest.raises(expected, match=words) as caught, translated_errors(FileSource("some/model", "v1")):
        raise OSError("long advice") from cause
    assert "some/model at v1" in str(caught.value)
    assert "\n" in str(caught.value), "a hint"


def test_no_network_is_told_without_waiting_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(NetworkError, match="cannot be reached"):
        load_model(ModelOptions(name="nobody/has-this-model"), texts=(), seed=0)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str, *_: Any) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(MissingExtraError, match=r"reelstream\[train\]"):
        load_model(ModelOptions(), texts=(), seed=0)
