"""The one order on every number of ranks, whatever is asked for beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reelstream.data import StreamingVideoDataset
from reelstream.prefetch import spans
from reelstream.telemetry import events
from unit.data.data_kit import Served, is_balanced, key
from unit.data.ranks_in_threads import Outcome, joined, run_ranks, small_stream, without_error

pytestmark = pytest.mark.timeout(100)


@pytest.mark.parametrize(
    "changes",
    [
        {"parts": 2, "spans": "cut", "cut_size": 250_000, "lanes": 2},
        {"keep_clips": True},
        {"media": "path", "check": "none"},
        {"media": "bytes", "check": "open", "disk_budget": 3_000_000},
        {"streaming_mode": False},
        {"split": "training", "held_out_clips": 4},
        {"limit": 9, "spans": "cut", "cut_size": 250_000},
        {"limit": 11, "parts": 2, "spans": "cut", "cut_size": 250_000, "lanes": 2},
    ],
    ids=" ".join,
)
def test_two_epochs_are_the_same_for_every_number_of_ranks(
    good: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr(spans, "_LEAST_CLIPS_OF_LIMITED_LANE", 2)

    def work(dataset: StreamingVideoDataset, outcome: Outcome) -> None:
        for _ in range(2):
            for sample in dataset:
                outcome.keys.append(key(sample))
                sample.pop("lease", None)

    orders = []
    for world_size in (1, changes.get("lanes", 4)):
        make_options = small_stream(good, tmp_path / str(world_size), **changes)
        outcomes = without_error(run_ranks(world_size, work, make_options))
        for outcome in outcomes:
            assert all(map(is_balanced, outcome.recorder.of(events.EpochBooked)))
        orders.append(joined(outcomes))
        if changes.get("streaming_mode", True):
            runs = tmp_path / str(world_size) / "runs"
            assert not runs.exists() or not list(runs.iterdir())
    assert all(order == orders[0] for order in orders)
