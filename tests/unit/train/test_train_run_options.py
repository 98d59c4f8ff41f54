from __future__ import annotations

from pathlib import Path

import pytest

from reelstream.errors import ConfigError
from reelstream.prefetch.options import StreamOptions
from reelstream.train.remote.options import RemoteOptions
from reelstream.train.run_options import RunOptions


def run_pushing_to(place: str, tmp_path: Path) -> RunOptions:
    data = StreamOptions(repo_id="sample/data", subsets=("s",), cache_dir=tmp_path / "cache")
    return RunOptions(run_dir=tmp_path / "run", data=data, remote=RemoteOptions(push=place))


@pytest.mark.parametrize("folder", ["run", "run/checkpoints", "cache/pushed"])
def test_checkpoints_are_not_pushed_to_where_the_disk_budget_counts(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (str(tmp_path / folder), f"./{folder}"):
        with pytest.raises(ConfigError, match=r"lies in (run_dir|data\.cache_dir)"):
            run_pushing_to(place, tmp_path)


@pytest.mark.parametrize("place", ["mounted", "run-copy", "."])
def test_checkpoints_are_pushed_to_any_other_folder(place: str, tmp_path: Path) -> None:
    assert run_pushing_to(str(tmp_path / place), tmp_path).remote.push


def test_a_repository_of_the_name_of_the_run_folder_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_pushing_to("run/copy", tmp_path).remote.push == "run/copy"
