from __future__ import annotations

import signal
import threading

import pytest

from reelstream.train.interrupt import Interrupted, Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_raises_with_its_name(number: signal.Signals) -> None:
    with Interrupts(), pytest.raises(Interrupted) as caught:
        signal.raise_signal(number)
    assert caught.value.signal_name == number.name


def test_it_is_no_error_to_handlers_of_errors() -> None:
    assert not issubclass(Interrupted, Exception)


def test_once_deferred_one_signal_waits_and_a_second_one_does_not() -> None:
    with Interrupts() as interrupts:
        interrupts.defer()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)


def test_the_handlers_before_it_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_in_other_threads_it_does_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with Interrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
