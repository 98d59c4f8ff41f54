"""`streaming_mode: false`: all archives on disk before the first step, and then the very run that streams."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.run_kit import (
    DiskPoll,
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
from reelstream.testing import archive_ranges

_DOWNLOADED = {"streaming_mode": False}


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(root_of(sample(tmp_path_factory))) as hub:
        yield hub


def archive_bytes(hub: HubProcess) -> int:
    """Return the bytes of archives that the Hub has sent."""
    return sum(end - first for ranges in archive_ranges(hub.stats()).values() for first, end in ranges)


def all_archives_bytes(tmp_path_factory: pytest.TempPathFactory) -> int:
    folder = sample(tmp_path_factory).folder
    return sum(path.stat().st_size for path in folder.rglob("*.tar.gz") if "heldout" not in path.parent.name)


def archives_on_disk(folder: Path) -> int:
    """Return the bytes of archives, whole or in part, that lie in the cache folder."""
    size_bytes = 0
    for path in (folder / "cache" / "archives").glob("*"):
        # One that is whole meanwhile bears another name.
        with contextlib.suppress(FileNotFoundError):
            size_bytes += path.stat().st_size
    return size_bytes


def config_in(folder: Path, hub: HubProcess, changes: dict[str, Any]) -> Path:
    folder.mkdir()
    return write_config(folder, hub.endpoint, changes)


@pytest.mark.parametrize(
    "spans", [pytest.param("archive", marks=pytest.mark.slow), pytest.param("cut", marks=pytest.mark.slow), "auto"]
)
def test_a_downloaded_run_is_the_streamed_one(tmp_path: Path, hub: HubProcess, spans: str) -> None:
    changes = {"data.spans": spans, "train.epochs": 2}
    streamed = config_in(tmp_path / "streamed", hub, changes)
    downloaded = config_in(tmp_path / "downloaded", hub, {**changes, **_DOWNLOADED})
    assert train(streamed) == train(downloaded) == 0
    assert len(digests_of(streamed)) == 2
    assert digests_of(streamed) == digests_of(downloaded)
    assert losses_of(streamed) == losses_of(downloaded)
    assert weights_of(streamed) == weights_of(downloaded)
    kinds = [epoch["spans"] for epoch in report_of(downloaded)["epochs"]]
    assert kinds == (["archive", "block"] if spans == "auto" else [spans, spans])


def test_each_byte_is_fetched_once_and_before_the_first_step(
    tmp_path: Path, hub: HubProcess, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = write_config(tmp_path, hub.endpoint, {**_DOWNLOADED, "train.epochs": 2, "data.keep_clips": False})
    assert train(config) == 0
    needed_bytes = all_archives_bytes(tmp_path_factory)
    assert archive_bytes(hub) == needed_bytes
    names = [event["event"] for event in events_of(config)]
    ranges = [place for place, name in enumerate(names) if name == "range_finished"]
    assert max(ranges) < names.index("epoch_started") < names.index("step_finished")
    assert report_of(config)["network"]["bytes_needed"] == needed_bytes
    assert len([name for name in stray_files(config) if name.startswith("archives/sha256-")]) == 8


def test_a_later_run_fetches_no_archive(
    tmp_path: Path, hub: HubProcess, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = write_config(tmp_path, hub.endpoint, {**_DOWNLOADED, "train.max_steps": 2, "evaluation.clips": 4})
    assert train(config) == 0
    fetched_bytes = archive_bytes(hub)
    # What is held out of the same subsets is read from the same archives.
    assert report_of(config)["evaluation"]["num_samples"] > 0
    assert fetched_bytes == all_archives_bytes(tmp_path_factory)
    assert train(config, "--restart") == 0
    assert archive_bytes(hub) == fetched_bytes


@pytest.mark.slow
def test_killed_in_the_download_the_next_start_goes_on_with_it(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with HubProcess(root_of(sample(tmp_path_factory)), bandwidth_bytes_per_s=1_000_000) as hub:
        config = write_config(tmp_path, hub.endpoint, {**_DOWNLOADED, "train.max_steps": 2})
        with Running(config) as running:
            while not archives_on_disk(tmp_path):
                assert not running.process_ended(0.005), "it ended before it fetched an archive"
            running.kill()
        before_bytes = archive_bytes(hub)
        on_disk_bytes = archives_on_disk(tmp_path)
        assert 0 < on_disk_bytes < all_archives_bytes(tmp_path_factory)
        ended = run_process(config)
        assert ended.code == 0, ended.err
        # What was on the wire, or in a buffer, when the process died is all that came twice.
        needed_bytes = all_archives_bytes(tmp_path_factory)
        assert archive_bytes(hub) - before_bytes == needed_bytes - on_disk_bytes


@pytest.mark.slow
def test_a_resume_reads_from_disk_and_ends_as_the_quiet_run(tmp_path: Path, hub: HubProcess) -> None:
    quiet = config_in(tmp_path / "quiet", hub, {})
    assert train(quiet) == 0
    config = config_in(tmp_path / "killed", hub, {**_DOWNLOADED, "checkpoints.every_steps": 3})
    with Running(config) as running:
        running.wait_for("checkpoint_saved", 2)
        running.kill()
    fetched_bytes = archive_bytes(hub)
    assert train(config, "--resume") == 0
    assert archive_bytes(hub) == fetched_bytes
    assert digests_of(config) == digests_of(quiet)
    assert weights_of(config) == weights_of(quiet)


def test_a_budget_that_cannot_hold_all_is_refused_before_anything_is_fetched(
    tmp_path: Path, hub: HubProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, hub.endpoint, {**_DOWNLOADED, "data.disk_budget": "3900kB"})
    assert train(config) == 1
    message = capsys.readouterr().err
    assert "streaming_mode is false, so 8 archives (1.32 MB) must lie on disk before the first step" in message
    assert "set disk_budget to" in message
    assert archive_bytes(hub) == 0
    assert files_below(tmp_path / "cache") == []
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_disk_never_holds_more_than_the_budget_with_archives_on_it(tmp_path: Path, hub: HubProcess) -> None:
    budget_bytes = 7_200_000
    changes = {**_DOWNLOADED, "data.disk_budget": budget_bytes, "data.lanes": 4, "checkpoints.every_steps": 4}
    config = write_config(tmp_path, hub.endpoint, changes)
    with DiskPoll([tmp_path / "run", tmp_path / "cache"]) as poll, Running(config) as running:
        ended = running.end()
    assert ended.code == 0, ended.err
    report = report_of(config)
    assert poll.most_bytes <= report["disk"]["high_water_bytes"] <= budget_bytes
    assert report["disk_plan"]["other_bytes"]["archives"] >= 1_320_000
