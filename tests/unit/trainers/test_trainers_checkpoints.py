"""Which checkpoint folders are whole, which is resumed from, and which go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelstream.errors import StateError
from reelstream.trainers import checkpoints
from reelstream.trainers.checkpoints import Manifest, Survey


def sealed(output: Path, step: int) -> Path:
    folder = output / f"checkpoint-{step}"
    checkpoints.clear(folder)
    (folder / "weights").write_bytes(b"x" * 5000)
    (folder / "deep").mkdir()
    (folder / "deep" / "part").write_bytes(b"y")
    checkpoints.write_data_state(folder, {"version": 1})
    checkpoints.seal(folder, Manifest(step=step, first_epoch=1, epoch_step=4))
    return folder


def test_a_sealed_folder_is_whole_and_gives_back_what_it_holds(tmp_path: Path) -> None:
    folder = sealed(tmp_path, 30)
    assert checkpoints.survey(tmp_path) == Survey(whole={30: folder}, torn={})
    assert checkpoints.read_manifest(folder) == Manifest(step=30, first_epoch=1, epoch_step=4)
    assert checkpoints.read_data_state(folder) == {"version": 1}
    assert checkpoints.folder_size_bytes(folder) == 4096 * (2 + 1 + 1 + 1 + 2)


@pytest.mark.parametrize("name", ["weights", "deep/part", checkpoints.DATA_STATE, checkpoints.MANIFEST])
def test_a_folder_that_lacks_a_file_is_torn(tmp_path: Path, name: str) -> None:
    folder = sealed(tmp_path, 30)
    (folder / name).unlink()
    found = checkpoints.survey(tmp_path)
    assert not found.whole
    assert Path(name).name in found.torn[30]


def test_a_folder_that_is_not_there_is_no_save_cut_short(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"there is no checkpoint .*checkpoint-7"):
        checkpoints.read_manifest(tmp_path / "checkpoint-7")


def test_a_file_cut_short_is_named_with_its_sizes(tmp_path: Path) -> None:
    folder = sealed(tmp_path, 30)
    (folder / "weights").write_bytes(b"x" * 10)
    with pytest.raises(StateError, match="checkpoint-30/weights has 10 of 5000 bytes"):
        checkpoints.read_manifest(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"version": 2, "files": {}}'])
def test_a_manifest_that_makes_no_sense_is_torn(tmp_path: Path, text: str) -> None:
    folder = sealed(tmp_path, 30)
    (folder / checkpoints.MANIFEST).write_text(text)
    assert list(checkpoints.survey(tmp_path).torn) == [30]


def test_other_folders_are_nobodys_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "checkpoint-3").write_text("a file")
    assert checkpoints.survey(tmp_path) == Survey(whole={}, torn={})
    assert checkpoints.survey(tmp_path / "absent") == Survey(whole={}, torn={})


def test_clearing_a_folder_leaves_nothing_of_what_was_there(tmp_path: Path) -> None:
    folder = sealed(tmp_path, 30)
    checkpoints.clear(folder)
    assert list(folder.iterdir()) == []


def test_a_manifest_names_each_file_but_itself(tmp_path: Path) -> None:
    manifest = json.loads((sealed(tmp_path, 30) / checkpoints.MANIFEST).read_text())
    assert manifest["files"] == {"deep/part": 1, checkpoints.DATA_STATE: 14, "weights": 5000}


def test_the_newest_step_is_one_that_all_ranks_have() -> None:
    assert checkpoints.newest_of_all([[5, 10, 15], [5, 10]]) == 10
    assert checkpoints.newest_of_all([[5], [10]]) is None
    assert checkpoints.newest_of_all([[]]) is None


def found(whole: set[int], torn: set[int]) -> Survey:
    return Survey(whole={step: Path(f"checkpoint-{step}") for step in whole}, torn=dict.fromkeys(torn, "torn"))


def test_torn_ones_go_first_then_later_ones_then_the_oldest() -> None:
    survey = found({5, 10, 20, 40}, {15, 30})
    order = [checkpoints.superfluous(survey, newest=20, limit=limit, best=None) for limit in (5, 4, 3, 2, 1)]
    assert order == [[30], [30, 15], [30, 15, 40], [30, 15, 40, 5], [30, 15, 40, 5, 10]]


def test_the_best_one_stays_beyond_the_limit() -> None:
    assert checkpoints.superfluous(found({5, 10, 20}, set()), newest=20, limit=1, best=5) == [10]


@given(whole=st.sets(st.integers(1, 30), min_size=1), torn=st.sets(st.integers(1, 30)), limit=st.integers(1, 5))
def test_no_more_than_the_limit_stay_and_the_newest_among_them(whole: set[int], torn: set[int], limit: int) -> None:
    newest = max(whole)
    survey = found(whole, torn - whole)
    gone = set(checkpoints.superfluous(survey, newest=newest, limit=limit, best=None))
    left = (whole | torn) - gone
    assert newest in left
    assert len(left) == min(limit, len(whole | torn))


def test_a_folders_step_is_in_its_name() -> None:
    assert checkpoints.step_of("out/checkpoint-120") == 120
    assert checkpoints.step_of("out/elsewhere") is None
    assert checkpoints.step_of(None) is None
