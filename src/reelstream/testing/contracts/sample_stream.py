"""What holds for every `SampleStream`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from itertools import islice

import pytest

from reelstream.cancel import Cancelled
from reelstream.testing.order import SeenSample
from reelstream.train.stream import SampleStream


class SampleStreamContract:
    """An order of samples that can be left and taken up again; an epoch has 12 samples or more."""

    def make_stream(self) -> SampleStream:
        """Return a new stream: always the same configuration."""
        raise NotImplementedError

    @contextlib.contextmanager
    def stream(self) -> Iterator[SampleStream]:
        """Give a new stream, and close it where it can be closed."""
        stream = self.make_stream()
        try:
            yield stream
        finally:
            close = getattr(stream, "close", None)
            if close is not None:
                close()

    def test_the_order_of_an_epoch_is_the_same_for_all_streams_and_another_one_for_each_epoch(self) -> None:
        """Whenever it is served."""
        orders = []
        for epochs in ([0, 1], [1, 0]):
            with self.stream() as stream:
                found = {}
                for epoch in epochs:
                    stream.set_epoch(epoch)
                    found[epoch] = [SeenSample.of(sample) for sample in stream]
                orders.append(found)
        assert orders[0] == orders[1]
        first, second = ([(seen.clip, seen.id) for seen in orders[0][epoch]] for epoch in (0, 1))
        assert sorted(first) == sorted(second)
        assert first != second

    def test_positions_are_of_the_epoch_and_all_different(self) -> None:
        """Each lane's slots ascend."""
        with self.stream() as stream:
            stream.set_epoch(3)
            positions = [sample["position"] for sample in stream]
        assert {position.epoch for position in positions} == {3}
        lanes = {position.lane for position in positions}
        for lane in lanes:
            slots = [position.slot for position in positions if position.lane == lane]
            assert slots == sorted(set(slots))

    @pytest.mark.parametrize("number", [1, 5, 11])
    def test_a_state_resumes_right_after_its_sample(self, number: int) -> None:
        """In another stream, through JSON; `set_epoch` for the epoch that runs changes nothing."""
        with self.stream() as stream:
            order = [SeenSample.of(sample) for sample in stream]
        with self.stream() as stream:
            iterator = iter(stream)
            for sample in islice(iterator, number):
                state = json.loads(json.dumps(stream.state_dict(sample["position"])))
        with self.stream() as stream:
            stream.load_state_dict(state)
            stream.set_epoch(0)
            assert [SeenSample.of(sample) for sample in stream] == order[number:]

    def test_setting_the_running_epoch_again_goes_on(self) -> None:
        """In the middle of an iteration."""
        with self.stream() as stream:
            order = [SeenSample.of(sample) for sample in stream]
        with self.stream() as stream:
            stream.set_epoch(0)
            iterator = iter(stream)
            begun = [SeenSample.of(sample) for sample in islice(iterator, 4)]
            stream.set_epoch(0)
            assert begun + [SeenSample.of(sample) for sample in iterator] == order

    def test_a_stream_that_is_called_off_ends_its_iteration(self) -> None:
        """It does not look like the end of the data."""
        with self.stream() as stream:
            iterator = iter(stream)
            next(iterator)
            stream.cancel()
            with pytest.raises(Cancelled):
                for _ in iterator:
                    pass
