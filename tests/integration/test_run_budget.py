"""The disk, looked at from outside while a run with a tight budget goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from integration.run_kit import DiskPoll, Running, events_of, report_of, root_of, sample, stray_files, write_config
from reelstream.hubserver import HubProcess

_BUDGET_BYTES = 5_800_000


def test_the_disk_never_holds_more_than_the_budget(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with HubProcess(root_of(sample(tmp_path_factory))) as hub:
        changes = {"data.disk_budget": _BUDGET_BYTES, "data.lanes": 4, "checkpoints.every_steps": 2}
        config = write_config(tmp_path, hub.endpoint, changes)
        with DiskPoll([tmp_path / "run", tmp_path / "cache"]) as poll, Running(config) as running:
            ended = running.end()
    assert ended.code == 0, ended.err
    report = report_of(config)
    assert poll.num_polls > 50
    assert poll.most_bytes <= report["disk"]["high_water_bytes"] <= _BUDGET_BYTES == report["disk"]["budget_bytes"]
    # Tight: all clips and checkpoints together would not have fitted, and some of both was there at once.
    assert report["checkpoints"]["saved"] >= 10
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1
    assert poll.most_bytes > report["checkpoints"]["size_bytes"]
    assert report["clips"]["arrived"] == report["clips"]["deleted"] == 24
    assert len(events_of(config, "clip_deleted")) == 24
    assert stray_files(config) == []
