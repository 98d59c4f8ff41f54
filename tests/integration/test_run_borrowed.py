"""Life on borrowed machines: told to leave by a signal or the clock, killed, and gone on with elsewhere."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.run_kit import (
    Running,
    digests_of,
    events_of,
    files_below,
    losses_of,
    report_of,
    root_of,
    run_process,
    sample,
    stray_files,
    train,
    weights_of,
    write_config,
)
from reelstream.hubserver import HubProcess
from reelstream.train.deadline import Needs

_UNFINISHED = 75


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """The dataset's hub, which takes models as well."""
    root = tmp_path_factory.mktemp("hub")
    shutil.copytree(root_of(sample(tmp_path_factory)), root, dirs_exist_ok=True, symlinks=True)
    with HubProcess(root, writable=True, faults=True) as hub:
        yield hub


@pytest.fixture(scope="module")
def quiet(hub: HubProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 18 steps that nothing happens to."""
    config = write_config(tmp_path_factory.mktemp("quiet"), hub.endpoint, {"train.max_steps": 18})
    assert train(config, "--quiet") == 0
    return config


def _config(folder: Path, hub: HubProcess, place: str, **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    return write_config(
        folder, hub.endpoint, {"train.max_steps": 18, "remote.push": place, "checkpoints.every_steps": 4, **changes}
    )


def _assert_like(config: Path, quiet: Path) -> None:
    assert digests_of(config) == digests_of(quiet)
    assert weights_of(config) == weights_of(quiet)
    there = losses_of(quiet)
    assert {step: there[step] for step in losses_of(config)} == losses_of(config)


@pytest.mark.parametrize("kind", ["hub", pytest.param("folder", marks=pytest.mark.slow)])
def test_a_run_whose_machine_is_gone_goes_on_elsewhere_as_if_nothing_had_happened(
    kind: str, hub: HubProcess, quiet: Path, tmp_path: Path
) -> None:
    place = f"me/{tmp_path.name}" if kind == "hub" else str(tmp_path / "mounted")
    here = _config(tmp_path / "here", hub, place, **{"checkpoints.every_steps": 2})
    # One lane gets its first clips only, so that the others cannot go far without it.
    archive = min(Path(hub._words[0]).rglob("*_youtube_*.tar.gz"))
    stall = {"on": "cdn", "kind": "stall", "match": f"*{archive.name}", "after_bytes": archive.stat().st_size // 2}
    hub.set_faults([{**stall, "times": 100}])
    with Running(here, "--resume-or-start") as running:
        running.wait_for("checkpoint_pushed")
        running.kill()
    hub.set_faults([])
    assert len(events_of(here, "step_finished")) < 18
    shutil.rmtree(here.parent)

    elsewhere = _config(tmp_path / "elsewhere", hub, place)
    ended = run_process(elsewhere, "--resume-or-start")
    assert ended.code == 0, ended.err
    assert "fetched the checkpoint of step" in ended.err
    assert min(losses_of(elsewhere)) > 1
    _assert_like(elsewhere, quiet)
    # The last one was waited for, and is the only one that is kept there.
    assert report_of(elsewhere)["remote"]["newest_step"] == 18
    root = Path(hub._words[0]) / ".models" / place if kind == "hub" else Path(place)
    assert [path.name for path in sorted(root.glob("step-*"))] == ["step-00000018"]
    assert (root / "step-00000018/model.safetensors").read_bytes() == (
        elsewhere.parent / "run/checkpoints/step-00000018/model.safetensors"
    ).read_bytes()


@pytest.mark.slow
def test_told_by_slurm_a_run_saves_pushes_and_says_how_to_go_on(hub: HubProcess, quiet: Path, tmp_path: Path) -> None:
    config = _config(tmp_path / "a", hub, str(tmp_path / "mounted"), **{"checkpoints.every_steps": None})
    with Running(config, "--resume-or-start") as running:
        running.wait_for("step_finished", 3)
        ended = running.interrupt(signal.SIGUSR1)
    assert ended.code == _UNFINISHED, ended.err
    steps = len(events_of(config, "step_finished"))
    assert f"stopped by SIGUSR1; the checkpoint of step {steps} is saved" in ended.err
    assert "--resume" in ended.err.splitlines()[-1]
    assert (tmp_path / f"mounted/step-{steps:08d}/manifest.json").is_file()
    assert stray_files(config) == []
    assert train(config, "--resume-or-start", "--quiet") == 0
    _assert_like(config, quiet)


@pytest.mark.slow
def test_a_run_has_left_by_the_end_of_its_time(hub: HubProcess, tmp_path: Path) -> None:
    # Long enough for a busy machine to load torch; what is measured is that a run has an end at all, and in time.
    max_time_s = 60.0
    config = _config(tmp_path / "a", hub, str(tmp_path / "mounted"), **{"train.max_steps": None, "train.epochs": 9999})
    start_s = time.monotonic()
    ended = run_process(config, f"train.max_time={max_time_s}s")
    assert time.monotonic() - start_s < max_time_s
    assert ended.code == _UNFINISHED, ended.err
    assert "stopped by train.max_time; the checkpoint of step" in ended.err


@pytest.mark.slow
def test_a_wait_for_the_network_does_not_outlast_the_time(hub: HubProcess, tmp_path: Path) -> None:
    config = _config(tmp_path / "a", hub, str(tmp_path / "mounted"))
    hub.set_faults([{"on": "cdn", "kind": "stall", "match": "*.tar.gz", "after_bytes": 1, "times": 50}])
    start_s = time.monotonic()
    ended = run_process(config, "train.max_time=45s")
    hub.set_faults([])
    assert time.monotonic() - start_s < 45
    assert ended.code == _UNFINISHED, ended.err
    assert "before the first step; no checkpoint is saved" in ended.err
    assert stray_files(config) == []


def test_at_the_end_of_its_time_a_run_saves_and_pushes(
    hub: HubProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the first step had shown that there is no time for a second one.
    monkeypatch.setattr("reelstream.train.deadline.process_age_s", lambda: 0.0)
    monkeypatch.setattr(Needs, "room_s", lambda needs, max_time_s: max_time_s if needs._step_s else 0.0)
    config = _config(tmp_path / "a", hub, str(tmp_path / "mounted"), **{"train.max_steps": None, "train.epochs": 9999})
    assert train(config, "train.max_time=1h", "--quiet") == _UNFINISHED
    assert "stopped by train.max_time; the checkpoint of step" in capsys.readouterr().err
    newest = report_of(config)["steps"]
    assert report_of(config)["remote"]["newest_step"] == newest
    assert (config.parent / f"run/checkpoints/step-{newest:08d}").is_dir()


def test_time_that_is_over_before_the_first_step_leaves_nothing(
    hub: HubProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reelstream.train.deadline.process_age_s", lambda: 3600.0)
    config = _config(tmp_path / "a", hub, str(tmp_path / "mounted"))
    assert train(config, "train.max_time=1h", "--quiet") == _UNFINISHED
    assert "start again with" in capsys.readouterr().err
    assert not (config.parent / "run/checkpoints").exists()


def test_a_place_that_holds_a_run_is_not_written_over_unasked(hub: HubProcess, tmp_path: Path) -> None:
    place = str(tmp_path / "mounted")
    first = _config(tmp_path / "a", hub, place, **{"train.max_steps": 2})
    assert train(first, "--quiet") == 0
    second = _config(tmp_path / "b", hub, place, **{"train.max_steps": 1})
    assert train(second, "--quiet") == 1
    assert not (second.parent / "run").exists()
    assert train(second, "--quiet", "--restart") == 0
    assert [path.name for path in Path(place).glob("step-*")] == ["step-00000001"]


@pytest.mark.slow
def test_a_run_that_went_on_elsewhere_goes_on_from_there_on_its_first_machine_too(
    hub: HubProcess, quiet: Path, tmp_path: Path
) -> None:
    place = str(tmp_path / "mounted")
    first = _config(tmp_path / "a", hub, place)
    assert train(first, "--quiet", "train.max_steps=4") == 0
    second = _config(tmp_path / "b", hub, place)
    assert train(second, "--quiet", "--resume", "train.max_steps=9") == 0
    assert train(first, "--quiet", "--resume") == 0
    assert sorted(losses_of(first)) == [1, 2, 3, 4, *range(10, 19)]
    # The learning rate is drawn for the length of a run, which differed: the weights do, too.
    assert digests_of(first) == digests_of(quiet)


@pytest.mark.slow
def test_a_place_that_is_lost_in_the_middle_ends_nothing(hub: HubProcess, tmp_path: Path) -> None:
    config = _config(tmp_path / "a", hub, str(tmp_path / "mounted"), **{"remote.wait": "1s"})
    with Running(config) as running:
        running.wait_for("epoch_started")
        shutil.rmtree(tmp_path / "mounted")
        (tmp_path / "mounted").write_text("no folder any more")
        ended = running.end()
    assert ended.code == 0, ended.err
    assert report_of(config)["steps"] == 18
    assert events_of(config, "push_failed")
    assert "is not in" in ended.err
    assert report_of(config)["remote"]["failures"] > 0


def test_a_token_that_may_not_write_is_found_out_before_the_first_step(
    hub: HubProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrongwrong")
    with HubProcess(tmp_path, writable=True, token="hf_right") as private:
        config = _config(tmp_path / "a", hub, "me/run", **{"remote.endpoint": private.endpoint})
        assert train(config, "--quiet") == 1
    captured = capsys.readouterr()
    assert "may not be written to" in captured.err
    assert "hf_wrong" not in captured.err
    assert not (config.parent / "run").exists()


def test_what_is_pushed_is_kept_within_the_budget(hub: HubProcess, tmp_path: Path) -> None:
    config = _config(tmp_path / "a", hub, str(tmp_path / "mounted"))
    assert train(config, "--quiet") == 0
    report = report_of(config)
    assert report["disk_plan"]["num_checkpoints"] == 3
    assert len(files_below(config.parent / "run/checkpoints")) > 0
