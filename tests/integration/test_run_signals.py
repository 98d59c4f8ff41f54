"""Ctrl-C and SIGTERM at any time: a prompt stop, a checkpoint where a step was made, nothing left lying about."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from integration.run_kit import (
    Ended,
    Running,
    digests_of,
    events_of,
    files_below,
    report_of,
    root_of,
    sample,
    stray_files,
    train,
    write_config,
)

_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def _assert_stopped(ended: Ended, number: signal.Signals) -> None:
    assert ended.code == _CODES[number], ended.err
    assert f"reelstream: stopped by {number.name}" in ended.err
    assert "  hint: " in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_in_training_saves_a_checkpoint_and_the_run_goes_on_from_it(
    number: signal.Signals, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # The hub is the run's own, and belongs to the group that the terminal's Ctrl-C goes to, as in the demo.
    changes = {"local_hub.root": str(root_of(sample(tmp_path_factory))), "train.epochs": 20}
    config = write_config(tmp_path, None, changes)
    with Running(config) as running:
        running.wait_for("step_finished", 3)
        ended = running.interrupt(number)
    _assert_stopped(ended, number)
    steps = len(events_of(config, "step_finished"))
    assert f"the checkpoint of step {steps} is saved" in ended.err
    assert "--resume" in ended.err.splitlines()[-1]
    report = report_of(config)
    assert report["steps"] == steps
    assert report["samples"]["balanced"], report["samples"]
    assert report["samples"]["left_out"]["not_seen"] > 0
    assert f"streamed {report['network']['requests']}" not in ended.out
    assert ended.out.splitlines()[-1].startswith("report: ")
    assert stray_files(config) == []
    assert events_of(config)[-1]["event"] == "run_finished"
    assert events_of(config)[-1]["interrupted"] is True

    assert train(config, "--resume", f"train.max_steps={steps + 2}") == 0
    assert report_of(config)["steps"] == steps + 2


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_while_the_network_is_slow_stops_at_once(
    number: signal.Signals, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = root_of(sample(tmp_path_factory))
    config = write_config(tmp_path, None, {"local_hub.root": str(root)})
    # The catalog is there, so that the clips are what is waited for: for more than a minute, at this rate.
    assert train(config, "train.max_steps=1") == 0
    shutil.rmtree(tmp_path / "run")
    with Running(config, "local_hub.bandwidth=20kB/s") as running:
        running.wait_for("epoch_started")
        ended = running.interrupt(number)
    _assert_stopped(ended, number)
    assert "before the first step; no checkpoint is saved" in ended.err
    assert "local_hub.bandwidth=20kB/s" in ended.err.splitlines()[-1]
    assert report_of(config)["steps"] == 0
    assert stray_files(config) == []


def test_ctrl_c_while_the_catalog_is_built_leaves_nothing(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = root_of(sample(tmp_path_factory))
    config = write_config(tmp_path, None, {"local_hub.root": str(root), "local_hub.bandwidth": "5kB/s"})
    with Running(config) as running:
        # That the annotations are being read.
        running.wait_for("notice")
        ended = running.interrupt()
    _assert_stopped(ended, signal.SIGINT)
    assert ended.out == ""
    assert files_below(tmp_path) == ["config.yaml"]
    assert not (tmp_path / "run").exists()


def test_sigterm_before_anything_is_open_leaves_nothing(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = root_of(sample(tmp_path_factory))
    config = write_config(tmp_path, None, {"local_hub.root": str(root), "local_hub.latency": "30s"})
    with Running(config) as running:
        running.wait_for("run_started")
        ended = running.interrupt(signal.SIGTERM)
    _assert_stopped(ended, signal.SIGTERM)
    assert files_below(tmp_path) == ["config.yaml"]


def test_ctrl_c_during_the_questions_at_the_end_keeps_the_run(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = root_of(sample(tmp_path_factory))
    changes = {
        "local_hub.root": str(root),
        "evaluation.subset": "0_30_s_heldout_v0_1",
        "train.max_steps": 2,
        "data.limit": 2,
    }
    config = write_config(tmp_path, None, changes)
    assert train(config) == 0
    finished = digests_of(config)
    # Again, slowly: the run has ended, only the questions are left, and their clips take a while.
    with Running(config, "--resume", "local_hub.bandwidth=20kB/s") as running:
        running.wait_for("run_started", 2)
        running.wait_for("notice", sum(event["event"] == "notice" for event in events_of(config)) + 1)
        ended = running.interrupt()
    _assert_stopped(ended, signal.SIGINT)
    assert digests_of(config) == finished
    assert stray_files(config) == []
    assert train(config, "--resume") == 0
    assert report_of(config)["evaluation"]["num_questions"] == 16
