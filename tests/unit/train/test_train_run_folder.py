from __future__ import annotations

from pathlib import Path

import pytest

from reelstream.errors import ConfigError, DiskError, StateError
from reelstream.train.run_folder import CONFIG_HEADER, ClaimedFolder


def test_a_folder_is_claimed_once_at_a_time(tmp_path: Path) -> None:
    with (
        ClaimedFolder(tmp_path, resume=False, restart=False),
        pytest.raises(ConfigError, match="another process is training"),
        ClaimedFolder(tmp_path, resume=False, restart=True),
    ):
        pass
    with ClaimedFolder(tmp_path, resume=False, restart=False):
        pass
    assert list(tmp_path.iterdir()) == []


def test_folders_made_for_a_run_that_never_began_are_gone_with_its_files(tmp_path: Path) -> None:
    with ClaimedFolder(tmp_path / "a" / "b", resume=False, restart=False) as folder:
        (folder.path / "events.jsonl").write_text("")
        (folder.path / "report.json").write_text("{}")
        folder.put_back()
    assert list(tmp_path.iterdir()) == []


def test_what_others_put_into_it_stays(tmp_path: Path) -> None:
    with ClaimedFolder(tmp_path / "run", resume=False, restart=False) as folder:
        (folder.path / "thesis.txt").write_text("mine")
        (folder.path / "events.jsonl").write_text("")
        folder.put_back()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_a_run_without_a_checkpoint_is_begun_anew(tmp_path: Path) -> None:
    for name in ("config.yaml", "events.jsonl", "report.json", "totals.json", ".report.json.0123abcd"):
        (tmp_path / name).write_text(CONFIG_HEADER)
    with ClaimedFolder(tmp_path, resume=False, restart=False) as folder:
        # The run may have been started with it.
        assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
        (tmp_path / "events.jsonl").write_text("new")
        folder.put_back()
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_configuration_that_is_no_runs_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mine")
    with pytest.raises(ConfigError, match="not of a run"), ClaimedFolder(tmp_path, resume=False, restart=True):
        pass
    assert (tmp_path / "config.yaml").read_text() == "mine"


def test_a_checkpoint_is_deleted_only_when_asked_for(tmp_path: Path) -> None:
    step = tmp_path / "checkpoints" / "step-00000007"
    step.mkdir(parents=True)
    (tmp_path / "report.json").write_text("old")
    with pytest.raises(ConfigError, match="a run is in"), ClaimedFolder(tmp_path, resume=False, restart=False):
        pass
    assert step.is_dir()
    assert (tmp_path / "report.json").read_text() == "old"
    with ClaimedFolder(tmp_path, resume=False, restart=True):
        assert not step.exists()


def test_a_start_that_is_refused_touches_nothing(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step-00000007").mkdir(parents=True)
    for name in ("config.yaml", "events.jsonl", "report.json", "totals.json"):
        (tmp_path / name).write_text("old")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="a run is in"), ClaimedFolder(tmp_path, resume=False, restart=False):
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_a_resume_wants_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"), ClaimedFolder(tmp_path / "no", resume=True, restart=False):
        pass
    assert not (tmp_path / "no").exists()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "report.json").write_text("old")
    with pytest.raises(StateError, match="before its first one"), ClaimedFolder(tmp_path, resume=True, restart=False):
        pass
    assert (tmp_path / "report.json").read_text() == "old"


def test_a_file_in_the_way_is_an_error_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DiskError, match="Not a directory"), ClaimedFolder(path, resume=False, restart=False):
            pass
    assert (tmp_path / "file").read_text() == "mine"
