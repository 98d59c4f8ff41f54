"""Epochs of archives, cuts and blocks; parts, limits, clips that stay; resumes where nothing is at hand."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reelstream.data import StreamingVideoDataset
from reelstream.errors import ConfigError, StateError
from reelstream.hubserver import HubProcess
from reelstream.sampledata import SampleOptions, make_sample
from reelstream.telemetry import Telemetry, events
from reelstream.testing import Recorder
from reelstream.types import FrameSampling
from unit.data.data_kit import Served, assert_nothing_runs, contents, is_balanced, keys

Options = Callable[..., dict[str, Any]]
_FRAMES = FrameSampling(fps=1.0, max_frames=2, size=32)
_KINDS: dict[str, dict[str, Any]] = {
    "archive": {"spans": "archive"},
    "cut": {"spans": "cut", "cut_size": "1MB"},
    "block": {"spans": "block", "block_size": "1500kB"},
}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Clips of some 700 kB, each with a seek point of its own, in archives that can be cut."""
    options = SampleOptions(
        num_clips=26, seed=3, clip_bytes=700_000, min_duration_s=1, max_duration_s=2, num_heldout=2, num_archives=4
    )
    summary = make_sample(tmp_path_factory.mktemp("hub"), options)
    with HubProcess(summary.folder.parent.parent) as hub:
        yield Served(hub.endpoint, summary)


def archive_bytes(served: Served) -> int:
    """Return the bytes of archives that the hub has sent so far."""
    with urllib.request.urlopen(f"{served.endpoint}/_stats") as answer:
        paths = json.load(answer)["paths"]
    return sum(figures["bytes_sent"] for path, figures in paths.items() if path.endswith((".tar.gz", ".zip", ".tar")))


def published_bytes(served: Served) -> int:
    """Return the bytes of the archives to train on."""
    folder = served.summary.folder
    return sum(path.stat().st_size for subset in served.subsets for path in (folder / subset).glob("*.tar.gz"))


def make(served: Served, options: dict[str, Any], recorder: Recorder | None = None) -> StreamingVideoDataset:
    subsets = options.pop("subsets", served.subsets)
    return StreamingVideoDataset(
        served.repo_id, subsets, telemetry=Telemetry(*([recorder] if recorder else [])), **options
    )


@pytest.fixture
def learned(large: Served, tmp_path: Path) -> Path:
    """A cache folder with the indexes of all archives, learned by an epoch."""
    cache_dir = tmp_path / "learned"
    with make(large, {"endpoint": large.endpoint, "cache_dir": cache_dir, "frames": _FRAMES}) as dataset:
        for _ in dataset:
            pass
    return cache_dir


@pytest.mark.parametrize("kind", _KINDS)
def test_each_kind_of_spans_serves_each_sample_once_and_costs_what_it_must(
    kind: str, large: Served, options: Options, learned: Path
) -> None:
    recorder = Recorder()
    chosen = options(large, **_KINDS[kind], disk_budget="60MB", cache_dir=learned, keep_clips=False)
    before = archive_bytes(large)
    with make(large, chosen, recorder) as dataset:
        served = contents(dataset)
    with make(large, options(large, disk_budget="60MB")) as dataset:
        assert served == contents(dataset)
    (booked,) = recorder.of(events.EpochBooked)
    assert is_balanced(booked)
    assert booked.num_delivered == booked.num_catalog
    (started,) = recorder.of(events.EpochStarted)
    assert started.span_kind == kind
    received = sum(event.received_bytes for event in recorder.of(events.RangeFinished) if "tar.gz" in event.path)
    assert received <= archive_bytes(large) - before
    if kind == "archive":
        assert received == published_bytes(large)
    if kind == "block":
        assert received <= 1.06 * published_bytes(large)
    if kind == "cut":
        # About a clip and a half at each border, of clips that are half a cut.
        assert published_bytes(large) < received <= 2.2 * published_bytes(large)


@pytest.mark.parametrize("kind", _KINDS)
def test_a_resume_in_the_middle_of_spans_gives_the_same_order_wherever_it_goes_on(
    kind: str, large: Served, options: Options, learned: Path, tmp_path: Path
) -> None:
    chosen = options(large, **_KINDS[kind], disk_budget="60MB", lanes=3, keep_clips=False)
    if kind == "block":
        shutil.copytree(learned / "indexes", chosen["cache_dir"] / "indexes")
    with make(large, dict(chosen)) as dataset:
        quiet = keys(dataset)
    for served_before in (1, len(quiet) // 3, 2 * len(quiet) // 3):
        with make(large, dict(chosen)) as dataset:
            iterator = iter(dataset)
            begun = keys(next(iterator) for _ in range(served_before))
            state = json.loads(json.dumps(dataset.state_dict()))
        # An empty machine; an epoch of blocks needs its indexes.
        empty = tmp_path / f"empty-{served_before}"
        if kind == "block":
            shutil.copytree(learned / "indexes", empty / "indexes")
        recorder = Recorder()
        with make(large, {**chosen, "cache_dir": empty}, recorder) as dataset:
            dataset.load_state_dict(state)
            assert begun + keys(dataset) == quiet
        received = sum(event.received_bytes for event in recorder.of(events.RangeFinished) if "tar.gz" in event.path)
        if kind == "archive" and served_before > 1:
            # What was used up is not read again.
            assert received < 0.95 * published_bytes(large)
        assert_nothing_runs(empty)


def test_an_epoch_of_blocks_is_not_resumed_without_its_indexes(
    large: Served, options: Options, learned: Path, tmp_path: Path
) -> None:
    with make(large, options(large, **_KINDS["block"], disk_budget="60MB", cache_dir=learned)) as dataset:
        next(iter(dataset))
        state = dataset.state_dict()
    with make(large, options(large, disk_budget="60MB", cache_dir=tmp_path / "empty")) as dataset:
        dataset.load_state_dict(state)
        with pytest.raises(StateError, match="indexes are not here"):
            next(iter(dataset))


def test_blocks_of_unknown_members_are_refused_with_the_command_that_learns_them(
    large: Served, options: Options
) -> None:
    chosen = options(large, disk_budget="60MB", spans="block")
    with make(large, chosen) as dataset, pytest.raises(ConfigError) as refused:
        next(iter(dataset))
    assert "reelstream index" in str(refused.value.hint)


def test_a_second_epoch_fetches_nothing_where_all_clips_stay(large: Served, options: Options) -> None:
    recorder = Recorder()
    with make(large, options(large, disk_budget="60MB"), recorder) as dataset:
        first = contents(dataset)
        before = archive_bytes(large)
        assert contents(dataset) == first
        assert archive_bytes(large) == before
        assert {event.span_kind for event in recorder.of(events.EpochStarted)} == {"archive", "block"} or {
            event.span_kind for event in recorder.of(events.EpochStarted)
        } == {"cut", "block"}
    assert len(recorder.of(events.ClipReused)) == len({event.path for event in recorder.of(events.ClipReused)})
    assert_nothing_runs(Path(options(large)["cache_dir"]))


def test_a_second_epoch_fetches_the_rest_where_a_part_of_the_clips_stays(large: Served, options: Options) -> None:
    recorder = Recorder()
    # Two full windows a lane leave a part of the budget to clips that stay.
    chosen = options(large, disk_budget="14MB", cache_size=4, lanes=2)
    with make(large, chosen, recorder) as dataset:
        for _ in dataset:
            pass
        kept_bytes = recorder.of(events.ClipsKept)[-1].size_bytes
        before = archive_bytes(large)
        for _ in dataset:
            pass
        moved = archive_bytes(large) - before
    assert kept_bytes > 0.1 * published_bytes(large)
    assert moved <= 1.06 * (published_bytes(large) - 0.95 * kept_bytes)
    saved_bytes = sum(event.saved_bytes for event in recorder.of(events.ClipReused))
    assert moved + saved_bytes <= 1.08 * published_bytes(large)


@pytest.mark.parametrize("kind", ["archive", "cut"])
def test_a_limit_costs_about_as_many_clips(kind: str, large: Served, options: Options) -> None:
    before = archive_bytes(large)
    with make(large, options(large, **_KINDS[kind], limit=6, disk_budget="60MB")) as dataset:
        first = {sample["clip"] for sample in dataset}
        moved = archive_bytes(large) - before
        assert {sample["clip"] for sample in dataset} == first
    mean_bytes = published_bytes(large) / 24
    assert len(first) == 6
    assert moved <= 10 * mean_bytes


@pytest.mark.parametrize("keep", [True, False])
def test_parts_are_trained_on_one_after_the_other_and_cost_their_own_bytes(
    keep: bool, large: Served, options: Options
) -> None:
    recorder = Recorder()
    chosen = options(large, parts=2, epochs_per_part=2, disk_budget="60MB", cut_size="3MB", keep_clips=keep)
    with make(large, chosen, recorder) as dataset:
        epochs = []
        for _ in range(4):
            before = archive_bytes(large)
            epochs.append((contents(dataset), archive_bytes(large) - before))
    with make(large, options(large, disk_budget="60MB")) as dataset:
        everything = contents(dataset)
    assert epochs[0][0] == epochs[1][0]
    assert epochs[2][0] == epochs[3][0]
    assert sorted(epochs[0][0] + epochs[2][0]) == everything
    assert [event.span_kind for event in recorder.of(events.EpochStarted)] == ["cut", "block", "cut", "block"]
    assert epochs[0][1] + epochs[2][1] <= 1.6 * published_bytes(large)
    for _, moved in (epochs[1], epochs[3]):
        assert moved == 0 if keep else 0 < moved <= 0.7 * published_bytes(large)
    assert all(is_balanced(booked) for booked in recorder.of(events.EpochBooked))


def test_a_part_is_named_like_a_subset(large: Served, options: Options) -> None:
    name = large.subsets[0]
    chosen = options(large, parts=2, disk_budget="60MB", cut_size="3MB")
    found = []
    for part in (1, 2):
        with make(large, {**chosen, "subsets": [f"{name}_part{part}"]}) as dataset:
            found += contents(dataset)
    with make(large, options(large, disk_budget="60MB", subsets=[name])) as dataset:
        assert sorted(found) == contents(dataset)
    with make(large, {**chosen, "subsets": [f"{name}_part3"]}) as dataset, pytest.raises(ConfigError):
        next(iter(dataset))
