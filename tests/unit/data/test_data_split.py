"""A stream of one side of a split: what it serves, what its books say, what it fetches, and how it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reelstream.data import StreamingVideoDataset
from reelstream.errors import ConfigError, StateError
from reelstream.prefetch.options import StreamOptions
from reelstream.telemetry import Telemetry, events
from reelstream.testing import Recorder
from reelstream.types import FrameSampling
from unit.data.data_kit import Served, assert_nothing_runs, contents, is_balanced, keys
from unit.data.ranks_in_threads import Outcome, joined, run_ranks

Options = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.timeout(60)

SHARE = 0.3


def opened(served: Served, options: Options, recorder: Recorder | None = None, **changes: Any) -> StreamingVideoDataset:
    telemetry = Telemetry(*([recorder] if recorder else []))
    return StreamingVideoDataset(served.repo_id, served.subsets, telemetry=telemetry, **options(served, **changes))


def learn(served: Served, options: Options) -> list[tuple[Any, ...]]:
    """Read all archives once, so that it is known where clips lie; return what they hold."""
    with opened(served, options) as dataset:
        return contents(dataset)


@pytest.mark.parametrize("spans", ["archive", "cut", "block"])
def test_the_two_sides_serve_each_sample_once_and_their_books_say_what_is_left_out(
    good: Served, options: Options, spans: str
) -> None:
    whole = learn(good, options)
    served: dict[str, list[tuple[Any, ...]]] = {}
    booked: dict[str, events.EpochBooked] = {}
    for side in ("training", "held_out"):
        recorder = Recorder()
        with opened(good, options, recorder, split=side, held_out_share=SHARE, spans=spans) as dataset:
            served[side] = contents(dataset)
            assert len(dataset) == len(served[side])
        (booked[side],) = recorder.of(events.EpochBooked)
    assert sorted(served["training"] + served["held_out"]) == whole
    names = {side: {clip.rpartition("/")[2] for _, clip, _ in of} for side, of in served.items()}
    assert names["training"]
    assert names["held_out"]
    assert not names["training"] & names["held_out"]
    assert booked["training"].left_out == {"held_out": len(served["held_out"])}
    assert booked["held_out"].left_out == {"trained_on": len(served["training"])}
    for side in served:
        assert is_balanced(booked[side])
        assert booked[side].num_catalog == len(whole)


def test_held_out_clips_of_a_stream_are_not_written_to_disk(good: Served, options: Options) -> None:
    recorder = Recorder()
    with opened(good, options, recorder, split="training", held_out_share=SHARE, spans="archive") as dataset:
        clips = {(sample["subset"], sample["clip"]) for sample in dataset}
    assert {(event.subset, event.path) for event in recorder.of(events.ClipArrived)} == clips


def test_of_known_archives_only_the_clips_of_the_side_are_fetched(good: Served, options: Options) -> None:
    learn(good, options)
    recorder = Recorder()
    with opened(
        good, options, recorder, split="held_out", held_out_share=SHARE, spans="block", keep_clips=False
    ) as dataset:
        clips = {(sample["subset"], sample["clip"]) for sample in dataset}
    arrived = recorder.of(events.ClipArrived)
    received_bytes = sum(event.received_bytes for event in recorder.of(events.RangeFinished))
    assert {(event.subset, event.path) for event in arrived} == clips
    assert received_bytes < 1.5 * sum(event.size_bytes for event in arrived)


def test_a_number_of_samples_takes_some_of_the_held_out_clips_the_same_ones_each_time(
    good: Served, options: Options
) -> None:
    learn(good, options)
    rule: dict[str, Any] = {"split": "held_out", "held_out_share": SHARE, "spans": "block"}
    with opened(good, options, **rule) as dataset:
        whole = contents(dataset)
    some = []
    orders: list[dict[str, Any]] = [{"seed": 0, "shuffle": False}, {"seed": 5}]
    for changes in orders:
        with opened(good, options, **rule, **changes, held_out_samples=len(whole) // 2) as dataset:
            some.append(contents(dataset))
    assert some[0] == some[1]
    assert 0 < len(some[0]) <= len(whole) // 2
    assert set(some[0]) < set(whole)


def test_a_stream_goes_on_with_the_split_of_its_state(good: Served, options: Options) -> None:
    split: dict[str, Any] = {"split": "training", "held_out_share": SHARE, "spans": "cut", "cut_size": "250kB"}
    with opened(good, options, **split) as dataset:
        whole = keys(dataset)
    with opened(good, options, **split) as dataset:
        begun = [key for _, key in zip(range(40), keys_one_by_one(dataset), strict=False)]
        state = dataset.state_dict()
    with opened(good, options, **split) as dataset:
        dataset.load_state_dict(state)
        assert begun + keys(dataset) == whole
    assert_nothing_runs(dataset.options.cache_dir)


def keys_one_by_one(dataset: StreamingVideoDataset) -> Any:
    for sample in dataset:
        yield from keys([sample])


@pytest.mark.parametrize(
    "other", [{}, {"split": "training", "held_out_share": 0.4}, {"split": "held_out", "held_out_share": SHARE}]
)
def test_a_state_of_another_split_is_refused_with_a_sentence(
    good: Served, options: Options, other: dict[str, Any]
) -> None:
    with opened(good, options, split="training", held_out_share=SHARE) as dataset:
        state = dataset.state_dict()
    with (
        opened(good, options, **other) as dataset,
        pytest.raises(StateError, match=r"the saved data state has split = training, held_out_share 0\.3, this run"),
    ):
        dataset.load_state_dict(state)


def test_a_share_that_holds_out_nothing_is_refused_when_the_dataset_is_opened(good: Served, options: Options) -> None:
    with (
        opened(good, options, split="training", held_out_share=1e-9) as dataset,
        pytest.raises(ConfigError, match="holds out none of 24 clips"),
    ):
        len(dataset)
    assert_nothing_runs(dataset.options.cache_dir)


def test_ranks_share_the_training_side_in_the_order_of_one(good: Served, tmp_path: Path) -> None:
    def stream(rank: int) -> StreamOptions:
        return StreamOptions(
            repo_id=good.repo_id,
            subsets=tuple(good.subsets),
            endpoint=good.endpoint,
            cache_dir=cache_dir,
            disk_budget=8_000_000,
            cache_size=8,
            frames=FrameSampling(fps=1.0, max_frames=2, size=32),
            decode_threads=1,
            lanes=4,
            tail="repeat",
            split="training",
            held_out_share=SHARE,
        )

    def serve(dataset: StreamingVideoDataset, outcome: Outcome) -> None:
        for _ in range(2):
            outcome.keys += keys(dataset)

    orders = []
    for world_size in (1, 2):
        cache_dir = tmp_path / str(world_size)
        outcomes = run_ranks(world_size, serve, stream)
        assert [outcome.error for outcome in outcomes] == [None] * world_size
        orders.append(joined(outcomes))
        for booked in outcomes[0].recorder.of(events.EpochBooked):
            assert is_balanced(booked)
            assert booked.left_out["held_out"] > 0
    assert orders[0] == orders[1]


def test_contradictions_are_refused_at_once(good: Served, options: Options) -> None:
    with pytest.raises(ConfigError, match="split is all"):
        opened(good, options, held_out_share=SHARE)
