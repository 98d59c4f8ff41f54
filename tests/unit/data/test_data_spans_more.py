"""Parts, limits and clips that stay over several epochs, sessions and datasets of one budget."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reelstream.cache import DiskBudget
from reelstream.data import Sample, StreamingVideoDataset
from reelstream.errors import ArchiveError, ConfigError
from reelstream.hubserver import HubProcess
from reelstream.prefetch.options import StreamOptions
from reelstream.sampledata import SampleOptions, make_sample
from reelstream.telemetry import Telemetry, events
from reelstream.testing import Recorder
from reelstream.types import FrameSampling
from unit.data.data_kit import Served, assert_nothing_runs

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def cuttable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Archives of some 2 MB."""
    options = SampleOptions(
        num_clips=26, seed=3, clip_bytes=300_000, min_duration_s=1, max_duration_s=2, num_heldout=2, num_archives=4
    )
    summary = make_sample(tmp_path_factory.mktemp("hub"), options)
    with HubProcess(summary.folder.parent.parent) as hub:
        yield Served(hub.endpoint, summary)


def opened(
    served: Served, folder: Path, *, budget: DiskBudget | None = None, recorder: Recorder | None = None, **changes: Any
) -> StreamingVideoDataset:
    values: dict[str, Any] = {
        "repo_id": served.repo_id,
        "subsets": tuple(served.subsets),
        "endpoint": served.endpoint,
        "cache_dir": folder / "cache",
        "disk_budget": 60_000_000,
        "cache_size": 8,
        "frames": FrameSampling(fps=1.0, max_frames=2, size=32),
        "decode_threads": 2,
        **changes,
    }
    telemetry = Telemetry(*([recorder] if recorder else []))
    return StreamingVideoDataset.from_options(StreamOptions(**values), telemetry=telemetry, budget=budget)


def clips_of(samples: Iterable[Sample]) -> set[tuple[str, str]]:
    return {(sample["subset"], sample["clip"]) for sample in samples}


def test_what_stays_gives_its_room_back_when_the_dataset_is_closed(good: Served, tmp_path: Path) -> None:
    budget = DiskBudget(60_000_000)
    dataset = opened(good, tmp_path, budget=budget)
    for _ in range(2):
        assert clips_of(dataset)
        assert budget.account("clips").used_bytes > 0
        dataset.cleanup()
        assert budget.account("clips").used_bytes == 0
    assert_nothing_runs(tmp_path / "cache")


def test_clips_of_a_killed_run_give_way_to_another_dataset_of_the_same_budget(good: Served, tmp_path: Path) -> None:
    left = tmp_path / "cache" / "runs" / "run-0123456789ab"
    left.mkdir(parents=True)
    for number in range(30):
        (left / f"clip-{number}-{secrets.token_hex(16)}-{secrets.token_hex(16)}").write_bytes(bytes(100_000))
    budget = DiskBudget(4_500_000)
    training = opened(good, tmp_path, budget=budget, disk_budget=4_500_000)
    held_out = opened(
        good, tmp_path, budget=budget, disk_budget=4_500_000, subsets=(good.held_out,), annotations=("mc",)
    )
    with training, held_out:
        # As in a run that is resumed, and asks its held-out questions before the first step.
        assert training.session.budget.account("clips").used_bytes > 2_000_000
        assert held_out.session
        hung = threading.Timer(30, held_out.cancel)
        hung.start()
        try:
            assert clips_of(held_out)
        finally:
            hung.cancel()


def test_parts_are_the_same_whatever_was_learned_between_their_epochs(cuttable: Served, tmp_path: Path) -> None:
    found = []
    for epoch in range(6):
        # Each by a dataset of its own, as in workers of a DataLoader.
        with opened(cuttable, tmp_path, parts=3, epochs_per_part=2, cut_size=300_000) as dataset:
            dataset.set_epoch(epoch)
            found.append(clips_of(dataset))
    assert found[0::2] == found[1::2]
    assert sum(map(len, found[0::2])) == len(set.union(*found)) == 26


def test_limited_parts_take_turns_and_each_has_the_same_clips_again(cuttable: Served, tmp_path: Path) -> None:
    options: dict[str, Any] = {"parts": 2, "limit": 4, "cut_size": 500_000}
    with opened(cuttable, tmp_path, **options) as dataset:
        first, second, third, fourth = (clips_of(dataset) for _ in range(4))
    assert (first, second) == (third, fourth)
    assert not first & second
    with opened(cuttable, tmp_path / "other", **options) as dataset:
        dataset.set_epoch(1)
        assert clips_of(dataset) == second


def test_nothing_stays_where_no_later_epoch_could_use_it(cuttable: Served, tmp_path: Path) -> None:
    for changes in ({"limit": 4}, {"spans": "archive"}):
        recorder = Recorder()
        with opened(cuttable, tmp_path, recorder=recorder, **changes) as dataset:
            clips_of(dataset)
        assert [event.num_clips for event in recorder.of(events.ClipsKept)] == [0]


def test_the_length_counts_the_parts_that_are_named(cuttable: Served, tmp_path: Path) -> None:
    subset = cuttable.subsets[0]
    with opened(cuttable, tmp_path, subsets=(subset,)) as dataset:
        whole = len(dataset)
    with opened(cuttable, tmp_path, parts=4, subsets=tuple(f"{subset}_part{part}" for part in (1, 2, 3))) as dataset:
        assert len(dataset) == round(whole * 3 / 4)
    with opened(cuttable, tmp_path, parts=4, subsets=(subset,)) as dataset:
        assert len(dataset) == round(whole / 4)


def test_a_subset_is_not_named_whole_and_in_parts(cuttable: Served, tmp_path: Path) -> None:
    subset = cuttable.subsets[0]
    with (
        opened(cuttable, tmp_path, parts=2, subsets=(f"{subset}_part1", subset)) as dataset,
        pytest.raises(ConfigError, match="and parts of it as well"),
    ):
        len(dataset)


def test_a_damaged_zip_is_skipped_where_that_is_asked_for(tmp_path: Path) -> None:
    options = SampleOptions(
        num_clips=12, seed=1, clip_bytes=60_000, min_duration_s=1, max_duration_s=2, num_archives=3, packing="zip"
    )
    summary = make_sample(tmp_path / "hub", options)
    damaged = min(summary.folder.rglob("*.zip"))
    damaged.write_bytes(damaged.read_bytes()[:-200])
    with HubProcess(summary.folder.parent.parent) as hub:
        served = Served(hub.endpoint, summary)
        with opened(served, tmp_path, on_bad_archive="skip") as dataset:
            assert 0 < len(clips_of(dataset)) < 12
        with opened(served, tmp_path) as dataset, pytest.raises(ArchiveError):
            clips_of(dataset)


def test_a_dataset_takes_the_place_of_an_older_one_that_nobody_iterates_any_more(
    cuttable: Served, tmp_path: Path
) -> None:
    """In a notebook the older one is held by the traceback of the cell that was interrupted."""
    with opened(cuttable, tmp_path) as older, opened(cuttable, tmp_path, seed=1) as other:
        for dataset in (older, other):
            assert list(dataset)
            assert len(dataset.session._kept) > 0
        with opened(cuttable, tmp_path) as newer:
            assert next(iter(newer))
            assert len(older.session._kept) == 0
            # One of other options is somebody else's.
            assert len(other.session._kept) > 0
        assert len(list(older)) > 0
