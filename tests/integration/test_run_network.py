"""What a run asks of the Hub, counted at the server: each byte once, also where the network is bad."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from integration.run_kit import (
    REPO_ID,
    SUBSETS,
    digests_of,
    events_of,
    losses_of,
    report_of,
    root_of,
    sample,
    train,
    write_config,
)
from reelstream.hubserver import HubProcess
from reelstream.testing import archive_ranges


def _sizes(root: Path) -> dict[str, int]:
    folders = [root / REPO_ID / subset for subset in SUBSETS]
    return {f.relative_to(root).as_posix(): f.stat().st_size for folder in folders for f in folder.glob("*.tar.gz")}


def _assert_each_byte_once(hub: HubProcess, root: Path) -> None:
    ranges = archive_ranges(hub.stats())
    for path, size_bytes in _sizes(root).items():
        covered = 0
        for first, end in ranges.pop(path):
            assert first == covered, f"{path}: a range begins at {first}, those before it end at {covered}"
            covered = end
        assert covered == size_bytes, f"{path}: {covered} of {size_bytes} bytes came"
    assert not ranges


def test_each_archive_byte_is_fetched_once_an_epoch(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = root_of(sample(tmp_path_factory))
    with HubProcess(root) as hub:
        # Two lanes and a small budget: several ranges an archive.
        config = write_config(tmp_path, hub.endpoint, {"data.disk_budget": "6MB", "data.lanes": 2})
        assert train(config) == 0
        _assert_each_byte_once(hub, root)
        stats = hub.stats()
    report = report_of(config)
    archives = {path: record for path, record in stats["paths"].items() if path.endswith(".tar.gz")}
    assert report["network"]["bytes_needed"] == sum(record["bytes_sent"] for record in archives.values())
    # The rest are annotations.
    assert report["network"]["bytes_received"] == sum(record["bytes_sent"] for record in stats["paths"].values())
    assert {record["resolves"] for record in archives.values()} == {1}
    assert report["network"]["retries"] == 0


# Each archive is hit by something, and none of it needs a long wait.
_BROKEN = [
    {"on": "cdn", "kind": "cut_short", "match": "*_videos_1.tar.gz", "after_bytes": 40_000, "times": 3},
    {"on": "cdn", "kind": "reset", "match": "*_videos_2.tar.gz", "after_bytes": 1_000, "times": 2},
]
_REFUSED = [
    {"on": "cdn", "kind": "status", "status": 503, "headers": {"Retry-After": "0"}, "times": 3},
    {"on": "resolve", "kind": "status", "status": 429, "headers": {"Retry-After": "0"}, "times": 2},
    {"on": "api", "kind": "status", "status": 429, "headers": {"Retry-After": "1"}, "times": 1},
]
_EXPIRED = [
    {"on": "cdn", "kind": "expire", "match": f"{subset}/*_videos_{number}.tar.gz"}
    for subset in SUBSETS
    for number in (1, 2)
]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the configuration of a run without faults."""
    with HubProcess(root_of(sample(tmp_path_factory))) as hub:
        config = write_config(tmp_path_factory.mktemp("quiet"), hub.endpoint, {"data.lanes": 2})
        assert train(config) == 0
    return config


@pytest.mark.parametrize(
    ("faults", "least_retries"),
    [(_BROKEN, 5), (_REFUSED, 6), (_EXPIRED, 0)],
    ids=["broken ranges", "refusals that ask to wait", "expired addresses"],
)
def test_a_bad_network_changes_neither_the_order_nor_a_loss_and_costs_no_byte_twice(
    faults: Sequence[dict[str, Any]],
    least_retries: int,
    quiet: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = root_of(sample(tmp_path_factory))
    with HubProcess(root, faults=True) as hub:
        config = write_config(tmp_path, hub.endpoint, {"data.lanes": 2})
        hub.set_faults(faults)
        assert train(config) == 0
        _assert_each_byte_once(hub, root)
        stats = hub.stats()
    assert digests_of(config) == digests_of(quiet)
    assert losses_of(config) == losses_of(quiet)
    report = report_of(config)
    assert report["network"]["retries"] >= least_retries
    assert report["network"]["retries"] == len(events_of(config, "retried"))
    if faults is _EXPIRED:
        archives = [record for path, record in stats["paths"].items() if path.endswith(".tar.gz")]
        assert sum(record["resolves"] for record in archives) == len(archives) + len(_EXPIRED)


def test_a_network_that_stays_away_costs_no_step(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    with HubProcess(root_of(sample(tmp_path_factory)), faults=True) as hub:
        changes = {"data.lanes": 1, "data.give_up_after": "1s", "checkpoints.every_steps": None}
        for name in ("quiet", "cut_off"):
            (tmp_path / name).mkdir()
        quiet = write_config(tmp_path / "quiet", hub.endpoint, changes)
        assert train(quiet) == 0
        third = events_of(quiet, "span_finished")[2]["path"]

        config = write_config(tmp_path / "cut_off", hub.endpoint, changes)
        hub.set_faults([{"on": "cdn", "kind": "status", "status": 503, "match": third, "times": 1_000}])
        capsys.readouterr()
        assert train(config) == 1
        message = capsys.readouterr().err
        assert third in message
        assert "answered 503" in message
        assert "can be resumed once the network is back" in message
        steps = report_of(config)["steps"]
        assert steps > 1
        assert report_of(config)["checkpoints"]["last_step"] == steps
        assert report_of(config)["samples"]["balanced"]

        hub.set_faults([])
        assert train(config, "--resume") == 0
    assert events_of(config, "run_started")[-1]["resumed_at_step"] == steps
    assert digests_of(config) == digests_of(quiet)
    assert losses_of(config) == losses_of(quiet)
