"""Runs that hold out clips: what they evaluate and when, what that fetches, and what the report says of it."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.run_kit import (
    ACADEMIC,
    HELD_OUT,
    REPO_ID,
    events_of,
    losses_of,
    read_tar_gz,
    report_of,
    root_of,
    sample,
    stray_files,
    train,
    write_config,
)
from reelstream.catalog.split import file_name_hash
from reelstream.cli.main import main
from reelstream.hubserver import HubProcess

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return root_of(sample(tmp_path_factory))


@pytest.fixture(scope="module")
def hub(root: Path) -> Iterator[HubProcess]:
    with HubProcess(root) as hub:
        yield hub


def learn(hub: HubProcess, folder: Path) -> None:
    """Learn where all clips lie, as a user does before a run."""
    words = [REPO_ID, "--endpoint", hub.endpoint, "--cache-dir", str(folder / "cache")]
    assert main(["index", *words]) == 0


def notices_of(config: Path, *words: str) -> list[str]:
    messages = [event["message"] for event in events_of(config, "notice")]
    return [message for message in messages if all(word in message for word in words)]


def held_out_names(config: Path) -> set[str]:
    return {event["path"] for event in events_of(config, "clip_decoded")}


@pytest.mark.parametrize("keep", [False, True])
def test_known_clips_are_evaluated_from_the_first_interval_on_and_kept_ones_are_fetched_once(
    hub: HubProcess, tmp_path: Path, keep: bool
) -> None:
    learn(hub, tmp_path)
    changes = {
        "data.tail": "repeat",  # of training: held-out samples are evaluated once each all the same
        "evaluation": {"share": 0.3, "every_steps": 3, "keep": keep},
        "train.epochs": 2,
    }
    config = write_config(tmp_path, hub.endpoint, changes)
    assert train(config, "--quiet") == 0
    report = report_of(config)
    evaluation, samples = report["evaluation"], report["samples"]
    steps = [figures["step"] for figures in evaluation["curve"]]
    assert steps == [*range(3, report["steps"], 3), report["steps"]]
    assert evaluation["step"] == report["steps"]
    held_out = evaluation["held_out"]
    assert 0 < held_out["samples"] == held_out["evaluated_samples"] == evaluation["num_samples"]
    assert {figures["num_samples"] for figures in evaluation["curve"]} == {held_out["samples"]}
    assert all(figures["loss"] > 0 and 0 <= figures["accuracy"] <= 1 for figures in evaluation["curve"])
    assert samples["balanced"]
    assert samples["left_out"]["held_out"] == 2 * held_out["samples"]
    assert samples["delivered"] == samples["catalog"] - 2 * held_out["samples"]
    fetched = [figures["bytes_received"] for figures in evaluation["curve"]]
    assert fetched[0] > 0
    assert [size_bytes > 0 for size_bytes in fetched[1:]] == [not keep] * len(fetched[1:])
    assert report["disk"]["high_water_bytes"] <= report["disk"]["budget_bytes"]
    assert notices_of(config, "held-out clips are evaluated once") == []
    assert stray_files(config) == []


@pytest.mark.slow
def test_evaluations_change_nothing_in_training(hub: HubProcess, tmp_path: Path) -> None:
    losses = []
    for every_steps, max_samples in ((2, None), (3, 5)):
        folder = tmp_path / str(every_steps)
        folder.mkdir()
        learn(hub, folder)
        evaluation = {"clips": 3, "disk_share": "2MB", "every_steps": every_steps, "max_samples": max_samples}
        config = write_config(folder, hub.endpoint, {"data.subsets": [ACADEMIC], "evaluation": evaluation})
        assert train(config, "--quiet") == 0
        losses.append(losses_of(config))
        assert len(report_of(config)["evaluation"]["curve"]) > 1
    assert losses[0] == losses[1]


def test_unknown_clips_wait_for_the_end_of_the_first_epoch_and_a_notice_says_so(
    hub: HubProcess, tmp_path: Path
) -> None:
    # Nothing is read ahead, so that the last archive is read to its end in the epoch's last steps.
    changes = {
        "evaluation.share": 0.3,
        "evaluation.every_steps": 4,
        "train.epochs": 2,
        "train.max_steps": 20,
        "data.prefetch": False,
    }
    config = write_config(tmp_path, hub.endpoint, changes)
    assert train(config, "--quiet") == 0
    steps = [figures["step"] for figures in report_of(config)["evaluation"]["curve"]]
    assert 4 not in steps
    assert steps[-2:] == [16, 20]
    (notice,) = notices_of(config, "held-out clips are evaluated once it is known where they lie")
    assert "`reelstream index" in notice


def test_clips_of_parts_are_known_once_each_part_had_its_turn(hub: HubProcess, tmp_path: Path) -> None:
    changes = {
        "evaluation.share": 0.3,
        "data.subsets": [ACADEMIC],
        "data.spans": "cut",
        "data.parts": 2,
        "train.epochs": 2,
        "train.max_steps": 5,
    }
    config = write_config(tmp_path, hub.endpoint, changes)
    assert train(config, "--quiet", "train.epochs=1") == 0
    assert report_of(config)["evaluation"]["step"] is None
    assert train(config, "--quiet", "--resume") == 0
    evaluation = report_of(config)["evaluation"]
    assert evaluation["num_samples"] == evaluation["held_out"]["samples"] > 0


def test_a_run_that_never_learns_where_clips_lie_evaluates_nothing_and_says_so(
    hub: HubProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, hub.endpoint, {"evaluation.clips": 4, "train.max_steps": 2, "data.prefetch": False})
    assert train(config, "--quiet") == 0
    evaluation = report_of(config)["evaluation"]
    assert (evaluation["step"], evaluation["curve"]) == (None, [])
    assert evaluation["held_out"]["clips"] == 4
    assert "held-out clips were not evaluated" in capsys.readouterr().out


@pytest.mark.parametrize("every_steps", [None, 2])
def test_a_subset_of_its_own_is_evaluated_with_all_its_kinds(
    hub: HubProcess, tmp_path: Path, every_steps: int | None
) -> None:
    changes: dict[str, Any] = {"evaluation": {"subset": HELD_OUT}, "train.max_steps": 5}
    if every_steps is not None:
        changes["evaluation"] |= {"every_steps": every_steps, "keep": True}
    config = write_config(tmp_path, hub.endpoint, changes)
    assert train(config, "--quiet") == 0
    report = report_of(config)
    evaluation = report["evaluation"]
    assert (evaluation["num_questions"], evaluation["num_samples"]) == (16, 20)
    assert evaluation["held_out"] == {"clips": 4, "samples": 20, "evaluated_clips": 4, "evaluated_samples": 20}
    assert [figures["step"] for figures in evaluation["curve"]] == ([2, 4, 5] if every_steps else [5])
    assert "held_out" not in report["samples"]["left_out"]
    assert [figures["bytes_received"] > 0 for figures in evaluation["curve"]][1:] == (
        [False, False] if every_steps else []
    )


def test_a_resume_with_another_share_is_refused(
    hub: HubProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, hub.endpoint, {"evaluation.share": 0.3, "train.max_steps": 2})
    assert train(config, "--quiet") == 0
    assert train(config, "--quiet", "--resume", "evaluation.share=0.4", "train.max_steps=4") == 1
    assert "split = training, held_out_share 0.3, this run has training, held_out_share 0.4" in capsys.readouterr().err
    assert train(config, "--quiet", "--resume", "train.max_steps=4") == 0


def repack(packed: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(packed, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("held_out_by", ["name", "subset"])
def test_a_training_clip_of_the_very_bytes_of_a_held_out_one_is_told(
    root: Path, tmp_path: Path, held_out_by: str
) -> None:
    folder = shutil.copytree(root, tmp_path / "hub")
    packed = next(folder.rglob(f"{ACADEMIC}/*.tar.gz"))
    members = dict(read_tar_gz(packed))
    held_out, *_, trained = sorted((name for name in members if name.endswith(".mp4")), key=file_name_hash)
    changes: dict[str, Any] = {"data.subsets": [ACADEMIC], "train.max_steps": 2}
    if held_out_by == "name":
        changes["evaluation.share"] = file_name_hash(held_out) / 2**64 * 1.000001
        repack(packed, members | {trained: members[held_out]})
    else:
        changes["evaluation.subset"] = HELD_OUT
        other = next(folder.rglob(f"{HELD_OUT}/*.tar.gz"))
        others = dict(read_tar_gz(other))
        held_out = next(name for name in others if name.endswith(".mp4"))
        repack(other, others | {held_out: members[trained]})
    with HubProcess(folder) as hub:
        learn(hub, tmp_path)
        config = write_config(tmp_path, hub.endpoint, changes)
        assert train(config, "--quiet") == 0
    evaluation = report_of(config)["evaluation"]
    (leak,) = evaluation["leaks"]
    assert leak["clip"].rpartition("/")[2] == trained.rpartition("/")[2]
    assert leak["held_out"].rpartition("/")[2] == held_out.rpartition("/")[2]
    assert evaluation["num_leaks"] == 1
    assert len(notices_of(config, "very bytes of a held-out one", leak["clip"])) == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"evaluation": {"share": 0.1, "subset": HELD_OUT}}, "evaluation.share and evaluation.subset are set"),
        ({"evaluation": {"share": 1.5}}, "evaluation.share must be above 0 and below 1, not 1.5"),
        ({"evaluation": {"share": 0.1, "keep": True}}, "evaluation.keep is set"),
        ({"evaluation": {"every_steps": 5}}, "evaluation.every_steps is set, but nothing is held out"),
        ({"evaluation": {"share": 0.1}, "data.split": "training", "data.held_out_clips": 3}, "data.split as well"),
        ({"evaluation": {"subset": ACADEMIC}}, "is trained on as well"),
    ],
)
def test_contradictions_are_refused_before_anything_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], sentence: str
) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9", changes)
    assert train(config) == 1
    assert sentence in capsys.readouterr().err


def test_a_budget_without_room_for_held_out_clips_is_refused_with_one_that_has_it(
    hub: HubProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"evaluation.share": 0.3, "evaluation.every_steps": 5, "evaluation.disk_share": "15MB"}
    config = write_config(tmp_path, hub.endpoint, changes)
    assert train(config) == 1
    assert "held-out clips need 15.0 MB more" in capsys.readouterr().err
