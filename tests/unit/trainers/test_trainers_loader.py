"""StreamLoader: whole steps, an epoch at a time, and a state behind what was consumed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from reelstream.data import Sample, StreamingVideoDataset
from reelstream.errors import ConfigError
from reelstream.trainers import StreamLoader
from reelstream.types import Position


class Numbers:
    """A dataset of numbers, as far as a loader looks."""

    def __init__(self, num_samples: int) -> None:
        self.num_samples = num_samples
        self.epoch = 0
        self.consumed = 0

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[Sample]:
        for number in range(self.consumed, self.num_samples):
            yield cast("Sample", {"id": f"{self.epoch}.{number}", "position": Position(self.epoch, 0, number)})
        self.epoch, self.consumed = self.epoch + 1, 0

    def gather_state(self, after: Position | None) -> dict[str, Any]:
        return {"epoch": after.epoch if after else 0, "consumed": after.slot + 1 if after else 0}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.consumed = state["epoch"], state["consumed"]


def loader_of(dataset: Numbers, **options: Any) -> StreamLoader[list[str]]:
    settings: dict[str, Any] = {"batch_size": 3, **options}
    return StreamLoader(
        cast("StreamingVideoDataset", dataset), collate=lambda samples: [sample["id"] for sample in samples], **settings
    )


def test_an_iteration_is_an_epoch_to_its_last_sample() -> None:
    loader = loader_of(Numbers(7))
    assert list(loader) == [["0.0", "0.1", "0.2"], ["0.3", "0.4", "0.5"], ["0.6"]]
    assert list(loader)[-1] == ["1.6"]
    assert len(loader) == 3


def test_what_is_left_of_an_epoch_is_dealt_to_the_batches_of_one_last_step() -> None:
    loader = loader_of(Numbers(17), accumulate=4)
    assert [len(batch) for batch in loader] == [3, 3, 3, 3, 2, 1, 1, 1]
    assert len(loader) == 8


def test_fewer_samples_than_a_step_has_batches_are_left_out_and_told() -> None:
    loader = loader_of(Numbers(15), accumulate=4)
    with pytest.warns(UserWarning, match="3 samples at the end of epoch 1 cannot be dealt to 4 batches"):
        assert [len(batch) for batch in loader] == [3, 3, 3, 3]


def test_an_incomplete_step_is_dropped_in_silence_where_that_is_asked_for() -> None:
    loader = loader_of(Numbers(17), accumulate=2, drop_last=True)
    assert [len(batch) for batch in loader] == [3, 3, 3, 3]
    assert len(loader) == 4


def test_a_state_goes_on_behind_the_last_batch_that_was_yielded() -> None:
    loader = loader_of(Numbers(12))
    iterator = iter(loader)
    next(iterator), next(iterator)
    state = loader.state_dict()
    resumed = loader_of(Numbers(12))
    resumed.load_state_dict(state)
    assert list(resumed) == list(iterator) == [["0.6", "0.7", "0.8"], ["0.9", "0.10", "0.11"]]


def test_where_consumption_is_marked_batches_taken_ahead_do_not_count() -> None:
    loader = loader_of(Numbers(12))
    iterator = iter(loader)
    next(iterator)
    loader.mark_consumed()
    next(iterator)
    assert loader.state_dict() == {"epoch": 0, "consumed": 3}


def test_looking_for_more_takes_nothing_away() -> None:
    loader = loader_of(Numbers(6))
    iterator = iter(loader)
    next(iterator)
    assert loader.has_more()
    assert next(iterator) == ["0.3", "0.4", "0.5"]
    assert not loader.has_more()
    assert list(iterator) == []


def test_the_state_before_the_first_batch_is_the_beginning() -> None:
    assert loader_of(Numbers(6)).state_dict() == {"epoch": 0, "consumed": 0}


def test_numbers_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="accumulate must be at least 1, not 0"):
        loader_of(Numbers(6), accumulate=0)
