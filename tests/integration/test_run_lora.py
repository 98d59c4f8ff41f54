"""Whole runs with adapters: small checkpoints, killed and gone on with to the bit."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.run_kit import (
    Ended,
    Running,
    digests_of,
    events_of,
    losses_of,
    report_of,
    root_of,
    run_process,
    sample,
    train,
    write_config,
)
from reelstream.hubserver import HubProcess
from reelstream.train.models import load_model
from reelstream.train.options import ModelOptions, TinyOptions

_LORA = {"model.lora.rank": 4, "model.lora.alpha": 8, "model.lora.dropout": 0.1}


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(root_of(sample(tmp_path_factory))) as hub:
        yield hub


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A model as somebody publishes one, large enough that its weights would show in a checkpoint."""
    return publish(tmp_path / "published", seed=3)


def publish(folder: Path, seed: int) -> Path:
    options = ModelOptions(tiny=TinyOptions(vocabulary_size=320))
    loaded = load_model(options, texts=["The shape moves left. Right. Up. Down."], seed=seed)
    loaded.model.save_pretrained(folder)
    for name, content in loaded.small_files.items():
        (folder / name).write_bytes(content)
    return folder


def config_in(folder: Path, hub: HubProcess, changes: dict[str, Any]) -> Path:
    folder.mkdir()
    return write_config(folder, hub.endpoint, changes)


def newest_of(config: Path) -> Path:
    return max((config.parent / "run" / "checkpoints").glob("step-*"))


def adapters_of(config: Path) -> str:
    return hashlib.sha256((newest_of(config) / "adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.mark.slow
def test_adapters_are_killed_and_gone_on_with_to_the_bit(tmp_path: Path, hub: HubProcess, published: Path) -> None:
    changes = {**_LORA, "model.name": str(published), "checkpoints.every_steps": 3}
    quiet = config_in(tmp_path / "quiet", hub, changes)
    assert train(quiet) == 0
    killed = config_in(tmp_path / "killed", hub, changes)
    with Running(killed) as running:
        running.wait_for("checkpoint_saved", 2)
        running.kill()
    assert train(killed, "--resume") == 0
    assert losses_of(killed) == losses_of(quiet)
    assert digests_of(killed) == digests_of(quiet)
    assert adapters_of(killed) == adapters_of(quiet)
    names = {path.name for path in newest_of(quiet).iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors", "tokenizer.json"} <= names
    assert not {"model.safetensors", "config.json"} & names
    named = json.loads((newest_of(quiet) / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(published)


def test_the_disk_plan_of_a_run_with_adapters_is_told_and_kept(
    tmp_path: Path, hub: HubProcess, published: Path
) -> None:
    changes = {**_LORA, "model.name": str(published), "train.max_steps": 1}
    config = config_in(tmp_path / "run", hub, changes)
    assert train(config) == 0
    plan = report_of(config)["disk_plan"]
    assert plan["disk_budget_bytes"] == 16_000_000
    assert plan["clips_bytes"] + plan["checkpoints_bytes"] + sum(plan["other_bytes"].values()) == 16_000_000
    by_name = {choice["name"]: choice for choice in plan["checkpoint_choices"]}
    assert next(iter(by_name)) == "lora"
    assert by_name["full"]["set_by"] == ["model.lora=null"]
    assert by_name["full"]["checkpoint_bytes"] > 2 * by_name["lora"]["checkpoint_bytes"]
    assert any("disk budget 16.0 MB: clips" in event["message"] for event in events_of(config, "notice"))


def test_adapters_of_the_tiny_model_train_without_a_published_one(tmp_path: Path, hub: HubProcess) -> None:
    config = config_in(tmp_path / "run", hub, {**_LORA, "train.max_steps": 2})
    assert train(config) == 0
    names = {path.name for path in newest_of(config).iterdir()}
    assert {"model.safetensors", "adapter_model.safetensors", "config.json"} <= names
    assert train(config, "--resume", "train.max_steps=3") == 0
    assert report_of(config)["steps"] == 3


@pytest.mark.slow
def test_a_base_model_of_the_hub_is_named_by_its_commit_and_loaded_at_it(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path / "hub"
    shutil.copytree(root_of(sample(tmp_path_factory)), root)
    model = publish(root / ".models" / "somebody" / "model", seed=3)
    changes = {**_LORA, "model.name": "somebody/model", "train.max_steps": 2}
    with HubProcess(root) as hub:
        config = config_in(tmp_path / "run", hub, changes)

        def run(cache: str, *words: str) -> Ended:
            environment = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / cache), "HF_HUB_DISABLE_XET": "1"}
            return run_process(config, *words, environment=environment)

        ended = run("first")
        assert ended.code == 0, ended.err
        named = json.loads((newest_of(config) / "adapter_config.json").read_text())
        assert named["base_model_name_or_path"] == "somebody/model"
        assert re.fullmatch("[0-9a-f]{40}", named["revision"])
        ended = run("empty", "--resume", "train.max_steps=3")
        assert ended.code == 0, ended.err
        # What is published later under the same name is not taken for it.
        publish(model, seed=4)
        ended = run("empty again", "--resume", "train.max_steps=4")
    assert ended.code == 1
    assert f"the model somebody/model at {named['revision']}" in ended.err
