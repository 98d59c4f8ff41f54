from __future__ import annotations

import signal
import threading

import pytest

from reelstream.train.stop import StopRequest, StopWaiting


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_wish_that_waits_for_the_step(number: signal.Signals) -> None:
    with StopRequest() as stop:
        signal.raise_signal(number)
        assert stop.signal_name == number.name


def test_a_signal_ends_a_wait_at_once() -> None:
    with StopRequest() as stop:
        with pytest.raises(StopWaiting), stop.waiting():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(StopWaiting), stop.waiting():
            raise AssertionError("a wait begins although the run is to stop")


def test_the_second_signal_does_not_wait() -> None:
    with StopRequest():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_handlers_of_before_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_take_no_signals() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def run() -> None:
        with StopRequest() as stop, stop.waiting():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]
