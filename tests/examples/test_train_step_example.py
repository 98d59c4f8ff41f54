"""The example of a train step of one's own runs as its configuration says, and trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from integration.run_kit import root_of, sample
from reelstream.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "examples" / "train_step" / "config.yaml"


def train(tmp_path: Path, hub_root: Path, *words: str) -> int:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_layers": 1, "num_heads": 2, "num_key_value_heads": 1}
    tiny = {**sizes, "vision_hidden_size": 16, "vision_layers": 1, "vocabulary_size": 320}
    return main(
        [
            "train",
            str(CONFIG),
            f"run_dir={tmp_path / 'run'}",
            f"data.cache_dir={tmp_path / 'cache'}",
            f"local_hub.root={hub_root}",
            *(f"model.tiny.{name}={size}" for name, size in tiny.items()),
            "data.frames.max_frames=2",
            "train.device=cpu",
            "train.max_steps=8",
            "train.warmup_steps=1",
            *words,
        ]
    )


def test_a_train_step_of_ones_own_trains_where_it_is_trusted(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub_root = root_of(sample(tmp_path_factory))
    monkeypatch.chdir(ROOT)
    assert train(tmp_path, hub_root) == 1
    assert "--trust-imports" in capsys.readouterr().err
    assert not (tmp_path / "run").exists(), "nothing has begun"
    assert train(tmp_path, hub_root, "--trust-imports", "--quiet") == 0
    loss = json.loads((tmp_path / "run" / "report.json").read_text())["loss"]
    assert loss["last"] < loss["first"]
