from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reelstream.errors import ConfigError
from reelstream.train.options import TrainOptions
from reelstream.train.steps import StepModule, answer_token_losses, load_step

SOURCE = """
import torch

def train_step(model, batch):
    return model(batch["x"]).flatten()

not_a_function = 3
"""


def write_module(folder: Path, name: str, source: str = SOURCE) -> Path:
    path = folder / f"{name}.py"
    path.write_text(source)
    return path


def test_without_a_name_the_step_is_the_answers_tokens() -> None:
    assert load_step(None, trusted=False) is answer_token_losses


def test_a_step_is_loaded_from_a_file(tmp_path: Path) -> None:
    path = write_module(tmp_path, "my_step")
    step = load_step(f"{path}:train_step", trusted=True)
    assert step(torch.nn.Linear(2, 1), {"x": torch.ones(3, 2)}).shape == (3,)


def test_a_step_is_loaded_from_a_module_in_the_folder_of_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    write_module(tmp_path, "reelstream_test_step_module")
    assert callable(load_step("reelstream_test_step_module:train_step", trusted=True))


def test_code_that_nobody_trusts_is_not_imported(tmp_path: Path) -> None:
    path = write_module(tmp_path, "harmful", "raise SystemExit('it ran')")
    with pytest.raises(ConfigError) as caught:
        load_step(f"{path}:train_step", trusted=False)
    assert "--trust-imports" in caught.value.hint


@pytest.mark.parametrize(
    ("reference", "fact"),
    [
        ("{folder}/absent.py:train_step", "no file"),
        ("reelstream_no_such_module:train_step", "cannot be imported: ModuleNotFoundError"),
        ("{folder}/step.py:absent", "has no such function"),
        ("{folder}/step.py:not_a_function", "has no such function"),
        ("{folder}/broken.py:train_step", "cannot be imported: NameError"),
    ],
)
def test_a_step_that_cannot_be_had_is_refused_by_name(tmp_path: Path, reference: str, fact: str) -> None:
    write_module(tmp_path, "step")
    write_module(tmp_path, "broken", "undefined_name")
    with pytest.raises(ConfigError, match=fact):
        load_step(reference.format(folder=tmp_path), trusted=True)


def test_a_reference_without_a_function_is_refused_when_the_options_are_made() -> None:
    for reference in ("package.module", "file.py:", ":function"):
        with pytest.raises(ValueError, match=r"train\.step"):
            TrainOptions(step=reference)


def test_what_a_step_gives_is_passed_on() -> None:
    model = torch.nn.Linear(2, 1)
    losses = StepModule(model, lambda model, batch: model(batch["x"]).flatten())({"x": torch.ones(3, 2)})
    assert losses.shape == (3,)
    assert losses.requires_grad


@pytest.mark.parametrize(
    ("step", "fact"),
    [
        (lambda model, batch: 1.0, "a float"),
        (lambda model, batch: model(batch["x"]).mean(), r"shape \(\)"),
        (lambda model, batch: model(batch["x"]), r"shape \(3, 1\)"),
        (lambda model, batch: torch.ones(3, dtype=torch.int64), "int64"),
        (lambda model, batch: torch.ones(3), "no weight has a part in"),
    ],
)
def test_what_is_no_losses_is_refused(step: Any, fact: str) -> None:
    batch: dict[str, Tensor] = {"x": torch.ones(3, 2)}
    with pytest.raises(ConfigError, match=fact):
        StepModule(torch.nn.Linear(2, 1), step)(batch)
