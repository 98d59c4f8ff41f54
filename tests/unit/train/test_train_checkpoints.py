from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reelstream.cache.budget import DiskBudget
from reelstream.durable import force_to_disk
from reelstream.errors import BudgetTooSmallError, DiskError, StateError
from reelstream.train import checkpoints as module
from reelstream.train.checkpoints import CheckpointContents, CheckpointStore, load_newest, tensor_file_bytes
from reelstream.train.gradients import make_optimizer
from reelstream.train.models import LoadedModel
from reelstream.train.options import CheckpointOptions, TrainOptions
from reelstream.train.rank_state import RankState
from reelstream.train.saving import Progress, checkpoint_contents, checkpoint_size_bytes, gather_model_state
from train_kit import smallest_model


def contents_of(step: int, size: int = 1000) -> CheckpointContents:
    return CheckpointContents(
        step=step,
        tensors={"model.safetensors": {"weight": torch.full((size,), float(step))}},
        files={"trainer.json": json.dumps({"step": step}).encode()},
    )


def opened(folder: Path, keep: int = 1, allowance: Any = None) -> CheckpointStore:
    store = CheckpointStore(folder, keep=keep, allowance=allowance)
    store.open()
    return store


def size_on_disk(folder: Path) -> int:
    entries = [folder, *folder.rglob("*")]
    return sum(entry.stat().st_blocks * 512 for entry in entries)


def newest(folder: Path) -> Any:
    checkpoint = load_newest(folder)
    assert checkpoint is not None
    return checkpoint


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    saved = opened(tmp_path).save(contents_of(7))
    checkpoint = newest(tmp_path)
    assert checkpoint.folder == saved.folder == tmp_path / "step-00000007"
    assert checkpoint.json("trainer.json") == {"step": 7}
    assert checkpoint.tensors("model.safetensors")["weight"].tolist() == [7.0] * 1000


def test_without_a_folder_or_a_checkpoint_there_is_nothing_to_load(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "missing") is None
    (tmp_path / "notes.txt").write_text("mine")
    assert load_newest(tmp_path) is None


@pytest.mark.parametrize("keep", [1, 3])
def test_the_oldest_go_once_a_newer_one_is_durable(tmp_path: Path, keep: int) -> None:
    store = opened(tmp_path, keep)
    for step in range(5):
        store.save(contents_of(step))
    assert [entry.name for entry in sorted(tmp_path.iterdir())] == [f"step-{step:08d}" for step in range(5 - keep, 5)]


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    store = opened(tmp_path, keep=2)
    store.save(contents_of(1))
    store.save(contents_of(2))
    with (tmp_path / "step-00000002" / "model.safetensors").open("r+b") as file:
        file.seek(200)
        file.write(b"\xff")
    assert newest(tmp_path).step == 1


@pytest.mark.parametrize("name", ["model.safetensors", "trainer.json", "manifest.json"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: os.truncate(path, 5)], ids=["missing", "cut short"])
def test_where_all_are_damaged_the_reason_is_told(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    opened(tmp_path).save(contents_of(1))
    damage(tmp_path / "step-00000001" / name)
    with pytest.raises(StateError, match="step-00000001"):
        load_newest(tmp_path)


def test_a_manifest_that_points_outside_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).save(contents_of(1))
    manifest = tmp_path / "step-00000001" / "manifest.json"
    value = json.loads(manifest.read_text())
    value["files"]["../../secret"] = {"size_bytes": 0, "sha256": ""}
    manifest.write_text(json.dumps(value))
    with pytest.raises(StateError, match="outside"):
        load_newest(tmp_path)


def test_a_future_given_up_does_not_outlive_the_run_that_goes_on_before_it(tmp_path: Path) -> None:
    store = opened(tmp_path, keep=2)
    store.save(contents_of(5))
    store.save(contents_of(10))
    (tmp_path / "step-00000010" / "manifest.json").unlink()
    store = opened(tmp_path, keep=1)
    store.save(contents_of(7))
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000007"]
    assert newest(tmp_path).step == 7


class Killed(BaseException):
    """Stands for SIGKILL: nobody catches it, and what is on disk stays as it is."""


def moments_of(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Die at the `at`-th durable act from now on."""
    count = 0

    def counted(act: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **keywords: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                raise Killed
            return act(*arguments, **keywords)

        return run

    monkeypatch.setattr(module, "force_to_disk", counted(force_to_disk))
    monkeypatch.setattr(module, "_write_file", counted(module._write_file))
    monkeypatch.setattr(Path, "rename", counted(Path.rename))
    # A killed process cleans nothing up.
    monkeypatch.setattr(shutil, "rmtree", counted(lambda *_, **__: None))


@pytest.mark.parametrize("at", range(1, 12))
def test_killed_at_any_moment_the_newest_is_whole_and_the_rest_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    store = opened(tmp_path)
    store.save(contents_of(1))
    with monkeypatch.context() as patch:
        moments_of(patch, at)
        try:
            store.save(contents_of(2))
            finished = True
        except Killed:
            finished = False
    assert newest(tmp_path).step in ((2,) if finished else (1, 2))
    budget = DiskBudget(10**9)
    opened(tmp_path, allowance=budget.account("checkpoints"))
    assert all(entry.name.startswith("step-") for entry in tmp_path.iterdir())
    assert budget.used_bytes == size_on_disk(tmp_path) - tmp_path.stat().st_blocks * 512


def test_files_that_are_not_ours_are_left_alone(tmp_path: Path) -> None:
    strange = [tmp_path / ".partial-mine", tmp_path / "step-1", tmp_path / "notes.txt"]
    for path in strange:
        path.mkdir()
    store = opened(tmp_path)
    store.save(contents_of(1))
    store.save(contents_of(2))
    assert all(path.is_dir() for path in strange)


def test_old_and_new_are_booked_together_before_a_byte_is_written(tmp_path: Path) -> None:
    budget = DiskBudget(10**6)
    store = opened(tmp_path, allowance=budget.account("checkpoints"))
    store.save(contents_of(1))
    one = budget.used_bytes
    assert one == size_on_disk(tmp_path / "step-00000001")
    store.save(contents_of(2))
    assert budget.used_bytes == one
    assert budget.high_water_bytes >= 2 * one


def test_where_it_does_not_fit_nothing_is_written(tmp_path: Path) -> None:
    budget = DiskBudget(30_000)
    store = opened(tmp_path, allowance=budget.account("checkpoints"))
    store.save(contents_of(1))
    used = budget.used_bytes
    with pytest.raises(BudgetTooSmallError):
        store.save(contents_of(2, size=10_000))
    assert budget.used_bytes == used
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000001"]


def test_a_full_disk_is_told_and_leaves_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = DiskBudget(10**6)
    store = opened(tmp_path, allowance=budget.account("checkpoints"))
    store.save(contents_of(1))
    used = budget.used_bytes

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write_file", full)
    with pytest.raises(DiskError, match="No space left"):
        store.save(contents_of(2))
    assert budget.used_bytes == used
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000001"]
    assert newest(tmp_path).step == 1


shapes = st.lists(st.integers(0, 5), max_size=4)
tensors = st.dictionaries(
    st.text(min_size=1, max_size=40).filter(lambda name: name.isprintable() and "__metadata__" not in name),
    shapes.map(torch.zeros),
    max_size=5,
)


@given(tensors)
def test_the_size_of_a_tensor_file_is_never_underestimated(
    tmp_path_factory: pytest.TempPathFactory, named: dict[str, torch.Tensor]
) -> None:
    from safetensors.torch import save_file

    file = tmp_path_factory.mktemp("tensors") / "file.safetensors"
    save_file(named, file, metadata={"format": "pt"})
    size_bytes = file.stat().st_size
    assert size_bytes <= tensor_file_bytes(named) <= size_bytes + 400 + 300 * len(named)


@pytest.fixture(scope="module")
def trained() -> tuple[LoadedModel, torch.optim.Optimizer]:
    loaded = smallest_model()
    optimizer = make_optimizer(loaded.model, TrainOptions())
    for parameter in loaded.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return loaded, optimizer


@pytest.mark.parametrize("weights_only", [False, True])
def test_the_size_told_before_the_first_step_is_an_upper_bound_of_what_is_saved(
    tmp_path: Path, trained: tuple[LoadedModel, torch.optim.Optimizer], weights_only: bool
) -> None:
    loaded, optimizer = trained
    checkpoints = CheckpointOptions(weights_only=weights_only)
    data_state = {"lanes": ["x" * 100] * 100}
    contents = checkpoint_contents(
        loaded,
        gather_model_state(loaded, optimizer, checkpoints),
        options=TrainOptions(),
        progress=Progress(step=1, total_steps=1),
        ranks=[RankState.here(data_state={}, run_state={}) for _ in range(4)],
        data_state=data_state,
        run_state={},
        checkpoints=checkpoints,
    )
    told = checkpoint_size_bytes(loaded, checkpoints, num_ranks=4)
    saved = opened(tmp_path).save(contents)
    assert saved.size_bytes == size_on_disk(saved.folder)
    assert saved.size_bytes <= contents.largest_size_bytes <= told <= saved.size_bytes + 900_000


def test_a_checkpoint_that_is_held_outlives_newer_ones_and_counts_among_those_that_stay(tmp_path: Path) -> None:
    store = opened(tmp_path, keep=2)
    store.save(contents_of(1))
    with store.held(1) as folder:
        assert folder == tmp_path / "step-00000001"
        store.save(contents_of(2))
        store.save(contents_of(3))
        assert store.steps == [1, 3]
    store.save(contents_of(4))
    assert store.steps == [3, 4]


def test_the_newest_is_never_deleted_for_one_that_is_held(tmp_path: Path) -> None:
    store = opened(tmp_path, keep=1)
    store.save(contents_of(1))
    with store.held(1):
        store.save(contents_of(2))
        assert store.steps == [1, 2]


def test_what_is_gone_cannot_be_held(tmp_path: Path) -> None:
    store = opened(tmp_path, keep=1)
    store.save(contents_of(1))
    store.save(contents_of(2))
    with store.held(1) as folder:
        assert folder is None


def test_whoever_wants_to_know_hears_of_each_save_once_it_is_durable(tmp_path: Path) -> None:
    heard: list[tuple[int, bool]] = []
    store = CheckpointStore(
        tmp_path, keep=1, on_saved=lambda saved: heard.append((saved.step, (saved.folder / "manifest.json").is_file()))
    )
    store.open()
    store.save(contents_of(5))
    assert heard == [(5, True)]
