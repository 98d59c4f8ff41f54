from __future__ import annotations

import signal
import threading

import pytest

from reelstream.interrupt import STOP_SIGNALS
from reelstream.train.stop import StopRequest, StopWaiting


class _Clock:
    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.now_s

    def wait(self, event: threading.Event, seconds: float) -> bool:
        raise AssertionError("nothing waits")


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_is_a_wish_that_waits_for_the_step(number: signal.Signals) -> None:
    with StopRequest() as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert (stop.requested, stop.reason) == (True, number.name)


def test_a_signal_ends_a_wait_at_once() -> None:
    with StopRequest() as stop:
        with pytest.raises(StopWaiting), stop.waiting():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(StopWaiting), stop.waiting():
            raise AssertionError("a wait begins although the run is to stop")


def test_a_second_ctrl_c_does_not_wait_but_a_forwarded_first_one_does() -> None:
    clock = _Clock()
    with StopRequest(clock=clock) as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop.reason == "SIGINT"
        clock.now_s = 3.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_scheduler_that_signals_again_means_the_same() -> None:
    clock = _Clock()
    with StopRequest(clock=clock) as stop:
        signal.raise_signal(signal.SIGUSR1)
        clock.now_s = 300.0
        signal.raise_signal(signal.SIGTERM)
        assert stop.reason == "SIGUSR1"


def test_a_wish_from_outside_counts_as_a_signal_does() -> None:
    with StopRequest() as stop:
        stop.request("SIGTERM on rank 3")
        stop.request("another one")
        assert stop.reason == "SIGTERM on rank 3"
        with pytest.raises(StopWaiting), stop.waiting():
            raise AssertionError("a wait begins although the run is to stop")


def test_a_wish_of_another_thread_ends_a_wait_at_once() -> None:
    never = threading.Lock()
    never.acquire()
    with StopRequest() as stop:
        thread = threading.Thread(target=lambda: stop.request("train.max_time"))
        with pytest.raises(StopWaiting), stop.waiting():
            thread.start()
            never.acquire()
        thread.join()
    assert stop.reason == "train.max_time"


def test_the_handlers_of_before_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_take_no_signals_but_wishes() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def run() -> None:
        with StopRequest() as stop:
            with stop.waiting():
                seen.append(signal.getsignal(signal.SIGTERM))
            stop.request("enough")
            seen.append(stop.reason)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before, "enough"]
