"""`kill -9` and `--resume`: the same order, losses and weights as a run that nobody disturbed."""

from __future__ import annotations

import shutil
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
    sample,
    stray_files,
    train,
    weights_of,
    write_config,
)
from reelstream.hubserver import HubProcess

# Short epochs, so that a run of two is over in seconds; a checkpoint that is no multiple of what the tests kill at.
_CHANGES = {"train.epochs": 2, "checkpoints.every_steps": 4, "data.annotations": ["cap", "mc"], "train.batch_size": 4}


def _assert_same_run(config: Path, quiet: Path) -> None:
    assert digests_of(config) == digests_of(quiet)
    assert losses_of(config) == losses_of(quiet)
    assert weights_of(config) == weights_of(quiet)
    report, expected = report_of(config), report_of(quiet)
    assert report["samples"] == expected["samples"]
    assert report["samples"]["balanced"]
    assert report["loss"] == expected["loss"]
    assert report["steps"] == expected["steps"]
    assert stray_files(config) == []


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the configuration of a run that nobody disturbed."""
    with HubProcess(root_of(sample(tmp_path_factory))) as hub:
        config = write_config(tmp_path_factory.mktemp("quiet"), hub.endpoint, _CHANGES)
        assert train(config) == 0
    assert len(digests_of(config)) == 2
    return config


def test_a_run_that_is_killed_twice_goes_on_as_if_it_had_not_been(
    quiet: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with HubProcess(root_of(sample(tmp_path_factory))) as hub:
        config = write_config(tmp_path, hub.endpoint, _CHANGES)
        with Running(config) as running:
            running.wait_for("step_finished", 6)
            running.kill()
        # Two steps made after the last checkpoint are made again, and clips of the dead run are still there.
        assert any(name.startswith("runs/") for name in files_below(tmp_path / "cache"))
        steps_before = len(events_of(config, "step_finished"))
        with Running(config, "--resume") as running:
            # In the second epoch.
            running.wait_for("step_finished", steps_before + 14)
            running.kill()
        resumed_at = [event["resumed_at_step"] for event in events_of(config, "run_started")]
        assert train(config, "--resume") == 0
    assert resumed_at[0] is None
    assert resumed_at[1] >= 4
    _assert_same_run(config, quiet)
    report = report_of(config)
    assert report["resumes"] == 2
    assert report["disk"]["high_water_bytes"] <= report["disk"]["budget_bytes"]


def test_a_run_goes_on_after_the_last_step_of_an_epoch_which_is_a_smaller_one(
    quiet: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    steps = [event for event in events_of(quiet, "step_finished") if event["epoch"] == 0]
    assert steps[-1]["num_samples"] < steps[0]["num_samples"]
    with HubProcess(root_of(sample(tmp_path_factory))) as hub:
        config = write_config(tmp_path, hub.endpoint, _CHANGES)
        assert train(config, f"train.max_steps={len(steps)}") == 0
        assert train(config, "--resume") == 0
    assert digests_of(config) == digests_of(quiet)
    assert report_of(config)["steps"] == report_of(quiet)["steps"]


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_run_goes_on_where_nothing_but_its_folder_has_survived(
    epoch: int, quiet: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # The second epoch reads blocks: what was learned of the archives lies beside the checkpoints.
    assert [event["span_kind"] for event in events_of(quiet, "epoch_started")] == ["archive", "block"]
    num_steps = [sum(event["epoch"] == number for event in events_of(quiet, "step_finished")) for number in (0, 1)]
    with HubProcess(root_of(sample(tmp_path_factory))) as hub:
        config = write_config(tmp_path, hub.endpoint, _CHANGES)
        with Running(config) as running:
            running.wait_for("step_finished", 7 + epoch * num_steps[0])
            running.kill()
        shutil.rmtree(tmp_path / "cache")
        assert train(config, "--resume") == 0
    assert {event["epoch"] for event in events_of(config, "epoch_started")} == {0, 1}
    _assert_same_run(config, quiet)


def test_a_resume_passes_over_a_torn_checkpoint_and_over_an_unfinished_one(
    quiet: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with HubProcess(root_of(sample(tmp_path_factory))) as hub:
        config = write_config(tmp_path, hub.endpoint, {**_CHANGES, "checkpoints.keep": 2})
        with Running(config) as running:
            running.wait_for("checkpoint_saved", 3)
            running.kill()
        checkpoints = tmp_path / "run" / "checkpoints"
        newest = max(checkpoints.glob("step-*"))
        weights = newest / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        unfinished = checkpoints / ".partial-step-00000099-0123abcd"
        shutil.copytree(newest, unfinished)
        with (tmp_path / "run" / "events.jsonl").open("a") as log:
            log.write('{"time": 1, "event": "step_fin')
        assert train(config, "--resume") == 0
    assert not unfinished.exists()
    assert events_of(config, "run_started")[-1]["resumed_at_step"] < int(newest.name.removeprefix("step-"))
    _assert_same_run(config, quiet)


@pytest.mark.slow
@pytest.mark.parametrize("event", ["run_started", "range_finished", "clip_arrived", "batch_ready", "checkpoint_saved"])
def test_a_run_that_is_killed_anywhere_can_be_taken_up(
    event: str, quiet: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with HubProcess(root_of(sample(tmp_path_factory))) as hub:
        config = write_config(tmp_path, hub.endpoint, _CHANGES)
        with Running(config) as running:
            running.wait_for(event)
            running.kill()
        # Before the first checkpoint there is nothing to go on from, and nothing to lose.
        saved = any((tmp_path / "run").glob("checkpoints/step-*"))
        assert train(config, *(["--resume"] if saved else [])) == 0
    _assert_same_run(config, quiet)
