from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from reelstream.errors import StateError
from reelstream.train.checkpoints import CheckpointContents, CheckpointStore
from reelstream.train.followed_folder import FollowedFolder, claimed_by_first, found_in
from reelstream.train.parallel import ALONE_TEAM
from reelstream.train.run_folder import ClaimedFolder


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    store = CheckpointStore(tmp_path / "run" / "checkpoints", keep=2)
    store.open()
    for step in (3, 7):
        store.save(CheckpointContents(step=step, tensors={"a.safetensors": {"x": torch.ones(2)}}, files={"b": b"1"}))
    return tmp_path / "run"


def found(run_dir: Path) -> dict[str, Any]:
    with ClaimedFolder(run_dir, resume=True, restart=False) as folder:
        return found_in(folder)


def test_the_checkpoint_of_the_first_rank_is_taken(run_dir: Path) -> None:
    folder = FollowedFolder(run_dir, found(run_dir))
    assert folder.checkpoint is not None
    assert folder.checkpoint.step == 7
    assert folder.checkpoint.file_names == {"a.safetensors", "b"}
    assert torch.equal(folder.checkpoint.tensors("a.safetensors")["x"], torch.ones(2))


def test_a_run_that_begins_has_none(tmp_path: Path) -> None:
    with claimed_by_first(ALONE_TEAM, tmp_path, lambda: ClaimedFolder(tmp_path, resume=False, restart=False)) as folder:
        assert isinstance(folder, ClaimedFolder)
        assert found_in(folder) == {"checkpoint": None}
    assert FollowedFolder(tmp_path, {"checkpoint": None}).checkpoint is None


def test_a_rank_that_does_not_see_the_folder_says_so(run_dir: Path) -> None:
    of_first = found(run_dir)
    shutil.rmtree(run_dir / "checkpoints" / of_first["checkpoint"])
    with pytest.raises(StateError, match="cannot read") as caught:
        FollowedFolder(run_dir, of_first)
    assert "share" in caught.value.hint


def test_a_rank_that_sees_another_checkpoint_of_the_same_step_says_so(run_dir: Path) -> None:
    of_first = found(run_dir)
    manifest = run_dir / "checkpoints" / of_first["checkpoint"] / "manifest.json"
    manifest.write_text(manifest.read_text().replace("size_bytes", "bytes"))
    with pytest.raises(StateError, match="another checkpoint"):
        FollowedFolder(run_dir, of_first)
