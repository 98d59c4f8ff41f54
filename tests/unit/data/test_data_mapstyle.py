"""The map-style face against a hub on loopback."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from reelstream.data import StreamingLLaVAVideo, StreamingLLaVAVideoDataset, StreamingVideoDataset, mapstyle
from reelstream.errors import ConfigError, OutOfReachError
from reelstream.telemetry import Telemetry, events
from reelstream.testing import Recorder
from unit.data.data_kit import Served, assert_nothing_runs, is_balanced, key, keys

pytestmark = pytest.mark.timeout(120)

Options = Callable[..., dict[str, Any]]


def make(served: Served, values: dict[str, Any], **changes: Any) -> StreamingLLaVAVideo:
    return StreamingLLaVAVideo(served.repo_id, served.subsets[0], **{**values, **changes})


def order_of(served: Served, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    with StreamingVideoDataset(served.repo_id, served.subsets[0], **values) as dataset:
        return keys(dataset)


def in_loader(dataset: StreamingLLaVAVideo) -> list[Any]:
    return list(DataLoader(dataset, shuffle=False, batch_size=None))


def test_a_loader_gets_the_epochs_order_and_the_same_again(good: Served, options: Options, tmp_path: Path) -> None:
    expected = order_of(good, options(good))
    with make(good, options(good)) as dataset:
        assert len(dataset) == len(expected)
        assert keys(in_loader(dataset)) == expected
        assert keys(in_loader(dataset)) == expected
        assert dataset.num_repeated == 0
    assert_nothing_runs(tmp_path / "cache")


def test_batches_of_several_can_be_collated_by_hand(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        loader: Any = DataLoader(dataset, shuffle=False, batch_size=4, collate_fn=list)
        assert sum(len(batch) for batch in loader) == len(dataset)


def test_a_sample_can_be_had_again_while_its_window_is_in_use(good: Served, options: Options) -> None:
    with make(good, options(good, lanes=1, cache_size=16)) as dataset:
        # The window of 16 clips comes after those of 1, 2, 4 and 8.
        samples = {place: dataset[place] for place in range(len(dataset) - 30)}
        again = [place for place in samples if place > len(samples) - 5]
        for place in again:
            sample = dataset[place]
            assert key(sample) == key(samples[place])
            assert torch.equal(sample["frames"], samples[place]["frames"])
        assert key(dataset[len(samples)])[0].slot == len(samples)


def test_far_behind_is_out_of_reach_and_says_what_to_do(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        for place in range(len(dataset) - 1):
            dataset[place]
        for place in (0, 5):
            with pytest.raises(OutOfReachError, match="shuffle=False"):
                dataset[place]
        # No harm done.
        assert dataset[len(dataset) - 1]


def test_from_the_end_to_the_beginning_starts_the_next_pass(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        first = key(dataset[0])
        last = key(dataset[-1])
        assert key(dataset[len(dataset) - 1]) == last
        assert key(dataset[0]) == first
        dataset.reset()
        assert key(dataset[0]) == first


def test_the_next_pass_has_the_same_order_although_all_members_are_known_by_then(
    good: Served, options: Options
) -> None:
    # Blocks of two clips or three: read by them, the clips would come in another order.
    with make(good, options(good), block_size=150_000) as dataset:
        assert keys(in_loader(dataset)) == keys(in_loader(dataset))


def test_a_jump_ahead_passes_over_what_lies_between(good: Served, options: Options) -> None:
    expected = order_of(good, options(good))
    with make(good, options(good)) as dataset:
        assert key(dataset[40]) == expected[40]
        assert key(dataset[-1]) == expected[-1]


@pytest.mark.parametrize("place", [100_000, -100_000])
def test_places_that_do_not_exist_are_refused(good: Served, options: Options, place: int) -> None:
    with make(good, options(good)) as dataset, pytest.raises(IndexError, match="beyond"):
        dataset[place]


def test_places_that_bad_clips_leave_empty_are_filled_by_repeats_and_booked(flawed: Served, options: Options) -> None:
    recorder = Recorder()
    dataset = StreamingLLaVAVideo(
        flawed.repo_id, flawed.subsets, **options(flawed, max_bad_share=1.0, telemetry=Telemetry(recorder))
    )
    with dataset:
        samples = in_loader(dataset)
        (booked,) = recorder.of(events.EpochBooked)
        assert len(samples) == len(dataset) == booked.num_catalog
        assert is_balanced(booked)
        assert booked.num_repeated == dataset.num_repeated == len(dataset) - booked.num_delivered > 0
    delivered = {key(sample) for sample in samples[: booked.num_delivered]}
    assert len(delivered) == booked.num_delivered
    repeats = [key(sample) for sample in samples[booked.num_delivered :]]
    assert set(repeats) <= delivered
    # Not one sample again and again.
    assert len(set(repeats)) > 1


def test_a_pass_is_booked_when_its_last_place_is_had(good: Served, options: Options) -> None:
    recorder = Recorder()
    with make(good, options(good), telemetry=Telemetry(recorder)) as dataset:
        in_loader(dataset)
        in_loader(dataset)
    booked, finished = recorder.of(events.EpochBooked), recorder.of(events.EpochFinished)
    assert len(booked) == len(finished) == 2
    assert booked[0] == booked[1]
    assert booked[0].num_delivered == booked[0].num_catalog


@pytest.mark.parametrize("limit", [3, 9])
def test_a_limit_makes_it_shorter(good: Served, options: Options, limit: int) -> None:
    with make(good, options(good), limit=limit) as dataset:
        samples = in_loader(dataset)
        assert len(samples) == len(dataset)
        assert len({sample["clip"] for sample in samples}) <= limit


def test_a_worker_process_is_refused_with_what_to_do(
    good: Served, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a worker; a real one that fails takes torch five seconds to end.
    monkeypatch.setattr(mapstyle, "get_worker_info", object)
    with make(good, options(good)) as dataset, pytest.raises(ConfigError, match="num_workers=0"):
        dataset[0]


def test_cleanup_leaves_nothing_and_may_be_followed_by_more(good: Served, options: Options, tmp_path: Path) -> None:
    dataset = make(good, options(good))
    first = key(dataset[0])
    dataset.cleanup()
    assert_nothing_runs(tmp_path / "cache")
    assert key(dataset[0]) == first
    dataset.close()
    assert_nothing_runs(tmp_path / "cache")


def test_without_prefetching_the_order_is_the_same(good: Served, options: Options) -> None:
    expected = order_of(good, options(good))
    with make(good, options(good), prefetch=False) as dataset:
        assert keys(in_loader(dataset)) == expected


def test_a_copy_by_pickle_begins_at_the_beginning(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        first = key(dataset[0])
        dataset[3]
        copy = pickle.loads(pickle.dumps(dataset))
        with copy:
            assert key(copy[0]) == first


def test_the_longer_name_is_the_same_class() -> None:
    assert StreamingLLaVAVideoDataset is StreamingLLaVAVideo
