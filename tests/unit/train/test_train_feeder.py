from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from reelstream.data.sample import Sample
from reelstream.errors import ConfigError, NetworkError
from reelstream.train.families import Family
from reelstream.train.feeder import Batch, BatchFeeder, EpochEnd
from reelstream.train.stream import SampleStream
from train_kit import NumberStream, smallest_model


@pytest.fixture(scope="module")
def family() -> Family:
    return smallest_model().family


def feeder_of(stream: SampleStream, family: Family, **changes: Any) -> BatchFeeder:
    keywords: dict[str, Any] = {"batch_size": 4, "first_epoch": 0, "end_epoch": 2, "resumed": False}
    return BatchFeeder(stream, family, **{**keywords, **changes})


def shapes(feeder: BatchFeeder, num_items: int) -> list[Any]:
    items = [feeder.next() for _ in range(num_items)]
    return [item.num_samples if isinstance(item, Batch) else ("end", item.epoch) for item in items]


def test_a_batch_never_spans_two_epochs(family: Family) -> None:
    with feeder_of(NumberStream(10), family) as feeder:
        assert shapes(feeder, 8) == [4, 4, 2, ("end", 0), 4, 4, 2, ("end", 1)]


def test_a_batch_carries_the_state_in_which_it_is_consumed(family: Family) -> None:
    with feeder_of(NumberStream(10), family) as feeder:
        states = [item.data_state for _ in range(8) if isinstance(item := feeder.next(), Batch)]
    assert [state["consumed"] for state in states] == [4, 8, 10, 4, 8, 10]
    assert [state["epoch"] for state in states] == [0, 0, 0, 1, 1, 1]


def test_a_resume_at_the_very_end_of_an_epoch_goes_on_with_the_next(family: Family) -> None:
    stream = NumberStream(10)
    stream.load_state_dict({"epoch": 0, "consumed": 10})
    with feeder_of(stream, family, resumed=True) as feeder:
        assert shapes(feeder, 2) == [("end", 0), 4]


def test_an_epoch_without_samples_is_an_error(family: Family) -> None:
    with feeder_of(NumberStream(0), family) as feeder, pytest.raises(ConfigError, match="no samples in epoch 0"):
        feeder.next()


def test_the_streams_error_reaches_the_trainer_behind_the_batches_made_before(family: Family) -> None:
    class Failing(NumberStream):
        def __iter__(self) -> Iterator[Sample]:
            for sample in super().__iter__():
                if len(self.pulled) > 5:
                    raise NetworkError("gone")
                yield sample

    with feeder_of(Failing(10), family) as feeder:
        assert isinstance(feeder.next(), Batch)
        with pytest.raises(NetworkError):
            feeder.next()


def test_no_more_than_two_batches_and_the_one_in_the_making_are_pulled_ahead(family: Family) -> None:
    stream = NumberStream(100)
    with feeder_of(stream, family) as feeder:
        for taken in range(1, 6):
            feeder.next()
            assert len(stream.pulled) <= 4 * (taken + 3)
    assert feeder.statistics.num_items == 5


def test_leaving_calls_off_a_stream_that_waits(family: Family) -> None:
    waiting = threading.Event()

    class Waiting(NumberStream):
        def __iter__(self) -> Iterator[Sample]:
            waiting.set()
            self.cancelled.wait()
            yield from super().__iter__()

    stream = Waiting(10)
    with feeder_of(stream, family):
        waiting.wait()
    assert stream.cancelled.is_set()
    assert not any(thread.name == "reelstream-batches" for thread in threading.enumerate())


def test_a_stream_that_has_ended_is_not_called_off(family: Family) -> None:
    stream = NumberStream(2)
    with feeder_of(stream, family, end_epoch=1) as feeder:
        while not isinstance(feeder.next(), EpochEnd):
            pass
        feeder._thread.join()
    assert not stream.cancelled.is_set()
