from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reelstream.errors import ConfigError, DiskError, StateError
from reelstream.train.run_folder import CONFIG_HEADER, ClaimedFolder
from remote_kit import run_with_checkpoints


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


class _Copy:
    """A run that is kept elsewhere, with checkpoints of these steps."""

    def __init__(self, *steps: int) -> None:
        self.steps = list(steps)
        self.asked: list[str] = []

    def fetch_newer(self, run_folder: Path, *, than_step: int | None) -> bool:
        self.asked.append(f"newer than {than_step}")
        if not self.steps or (than_step is not None and self.steps[-1] <= than_step):
            return False
        run_with_checkpoints(run_folder, self.steps[-1])
        return True

    def refuse_another_run(self) -> None:
        self.asked.append("refuse")
        if self.steps:
            raise ConfigError("a run is there")

    def clear(self) -> None:
        self.asked.append("clear")
        self.steps.clear()


def _claimed(path: Path, copy: _Copy, how: str) -> int | None:
    options = {"resume": False, "restart": False, "resume_or_start": False, **({how: True} if how else {})}
    with ClaimedFolder(path, elsewhere=copy, **options) as folder:
        return None if folder.checkpoint is None else folder.checkpoint.step


@pytest.mark.parametrize("how", ["resume", "resume_or_start"])
def test_a_resume_in_an_empty_folder_takes_what_is_elsewhere(how: str, tmp_path: Path) -> None:
    assert _claimed(tmp_path / "run", _Copy(5), how) == 5


@pytest.mark.parametrize(("elsewhere", "expected"), [((), 5), ((3,), 5), ((8,), 8)])
def test_a_resume_goes_on_from_the_newest_here_or_elsewhere(
    elsewhere: tuple[int, ...], expected: int, tmp_path: Path
) -> None:
    run_with_checkpoints(tmp_path / "run", 5)
    copy = _Copy(*elsewhere)
    assert _claimed(tmp_path / "run", copy, "resume") == expected
    assert copy.asked == ["newer than 5"]


def test_where_all_here_are_damaged_the_one_elsewhere_counts(tmp_path: Path) -> None:
    run_with_checkpoints(tmp_path / "run", 5)
    (tmp_path / "run/checkpoints/step-00000005/model.safetensors").write_bytes(b"")
    assert _claimed(tmp_path / "run", _Copy(9), "resume") == 9
    shutil.rmtree(tmp_path / "run/checkpoints/step-00000009")
    with pytest.raises(StateError):
        _claimed(tmp_path / "run", _Copy(), "resume")


def test_with_nothing_anywhere_one_starts_and_the_other_refuses(tmp_path: Path) -> None:
    copy = _Copy()
    assert _claimed(tmp_path / "run", copy, "resume_or_start") is None
    assert copy.asked == ["newer than None"]
    with pytest.raises(StateError):
        _claimed(tmp_path / "run", _Copy(), "resume")


def test_a_start_refuses_a_run_that_is_elsewhere_and_a_restart_deletes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a run is there"):
        _claimed(tmp_path / "run", _Copy(5), "")
    assert not (tmp_path / "run").exists()
    copy = _Copy(5)
    assert _claimed(tmp_path / "run", copy, "restart") is None
    assert copy.asked == ["clear"]


def test_two_ways_to_begin_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--restart and --resume-or-start"):
        ClaimedFolder(tmp_path / "run", resume=False, restart=True, resume_or_start=True)
