from __future__ import annotations

import queue
import signal
import threading

import pytest

from reelstream.interrupt import Interrupted, Interrupts, SignalReceiver
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import CheckpointPushed, CheckpointSaved, StepFinished
from reelstream.train.deadline import REASON, Deadline, Needs, farewell_s, process_age_s
from reelstream.train.stop import StopRequest


class SteppedClock:
    """Time that stands still until a test moves it; what waits is woken at each move."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._moved = threading.Condition()

    def monotonic(self) -> float:
        with self._moved:
            return self._now_s

    def wall(self) -> float:
        return self.monotonic()

    def move_to(self, now_s: float) -> None:
        with self._moved:
            self._now_s = now_s
            self._moved.notify_all()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        with self._moved:
            until_s = self._now_s + seconds
            while self._now_s < until_s and not event.is_set():
                # The event may be set by a thread that does not know of this clock.
                self._moved.wait(0.01)
        return event.is_set()


class Listener(SignalReceiver):
    def __init__(self) -> None:
        super().__init__()
        self.wishes: queue.Queue[str] = queue.Queue()

    def request(self, reason: str) -> None:
        self.wishes.put(reason)

    def _take_signal(self, number: signal.Signals) -> None:
        raise AssertionError("no signal comes")

    def _take_wish(self, reason: str) -> None:
        raise AssertionError("wishes are taken as they come")


def step(train_s: float) -> StepFinished:
    return StepFinished(step=1, epoch=0, loss=1.0, learning_rate=0.1, num_samples=1, data_wait_s=100.0, train_s=train_s)


def test_the_room_is_the_longest_step_and_save_and_push_with_some_slack() -> None:
    needs = Needs(pushes=True)
    for event in (
        *(step(2.0), step(4.0), step(3.0)),
        *(CheckpointSaved(step=1, size_bytes=1, wait_s=10.0), CheckpointSaved(step=2, size_bytes=1, wait_s=8.0)),
        CheckpointPushed(step=1, size_bytes=1, wait_s=30.0),
    ):
        needs.note(event)
    assert needs.room_s(39_600.0) == 1.25 * (4 + 10 + 30) + 60


def test_before_the_first_save_its_size_tells() -> None:
    needs = Needs(pushes=False)
    needs.expect(3_000_000_000)
    assert needs.room_s(39_600.0) == 1.25 * 60 + 60
    pushed = Needs(pushes=True)
    pushed.expect(3_000_000_000)
    assert pushed.room_s(39_600.0) == 1.25 * (60 + 600) + 60
    assert pushed.room_s(100.0) == 1.25 * (60 + 20) + 5


@pytest.mark.parametrize(("max_time_s", "expected_s"), [(20.0, 5.0), (1000.0, 10.0), (39_600.0, 60.0)])
def test_closing_gets_a_share_within_bounds(max_time_s: float, expected_s: float) -> None:
    assert farewell_s(max_time_s) == expected_s


def test_the_innermost_receiver_is_told_once_and_in_time() -> None:
    clock, outer, inner = SteppedClock(), Listener(), Listener()
    with Deadline(100.0, clock=clock, age_s=30.0) as deadline, deadline.telling(outer):
        telemetry = Telemetry(deadline)
        telemetry.emit(step(10.0))
        with deadline.telling(inner):
            # 100 - 30 - 1.25 x 10 - 5
            assert deadline.wait_s() == 52.5
            clock.move_to(52.4)
            assert inner.wishes.empty()
            clock.move_to(52.5)
            assert inner.wishes.get(timeout=60) == REASON
        clock.move_to(60.0)
        assert deadline.left_s == 5.0
    assert inner.wishes.empty()
    assert outer.wishes.empty()


def test_without_an_end_nothing_is_wished() -> None:
    with Deadline(None) as deadline, StopRequest() as stop, deadline.telling(stop):
        assert deadline.left_s is None
        assert not stop.requested
        assert all(thread.name != "reelstream-deadline" for thread in threading.enumerate())


def test_before_the_first_step_the_work_is_interrupted_where_it_waits() -> None:
    never = threading.Lock()
    never.acquire()
    with Interrupts() as interrupts, Deadline(1.0, age_s=100.0) as deadline:
        with pytest.raises(Interrupted) as caught, deadline.telling(interrupts):
            never.acquire()
        assert caught.value.reason == REASON


def test_time_counts_from_the_start_of_the_process() -> None:
    assert 0 < process_age_s() < 86_400
