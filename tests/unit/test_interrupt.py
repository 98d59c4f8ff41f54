from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest

from reelstream.interrupt import EXIT_UNFINISHED, STOP_SIGNALS, Interrupted, Interrupts, exit_code_of


class _Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.now_s

    def wait(self, event: threading.Event, seconds: float) -> bool:
        raise AssertionError("nothing waits")


def _in_a_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_raises_with_its_name(number: signal.Signals) -> None:
    with Interrupts(), pytest.raises(Interrupted) as caught:
        signal.raise_signal(number)
    assert caught.value.reason == number.name


def test_it_is_no_error_to_handlers_of_errors() -> None:
    assert not issubclass(Interrupted, Exception)


def test_once_deferred_signals_wait_and_only_a_later_ctrl_c_does_not() -> None:
    clock = _Clock()
    with Interrupts(clock=clock) as interrupts:
        interrupts.defer()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)  # forwarded: the same wish
        clock.now_s = 2.0
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)


def test_the_handlers_before_it_are_put_back() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with Interrupts():
        assert not {signal.getsignal(number) for number in STOP_SIGNALS} & {*before}
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_in_other_threads_it_does_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with Interrupts() as interrupts:
            seen.append(signal.getsignal(signal.SIGINT))
            interrupts.request("nobody is waiting here")

    _in_a_thread(work)
    assert seen == [before]


def test_a_wish_of_another_thread_breaks_a_lock_that_the_main_thread_waits_for() -> None:
    never = threading.Lock()
    never.acquire()
    with Interrupts() as interrupts, pytest.raises(Interrupted) as caught:
        thread = threading.Thread(target=lambda: interrupts.request("train.max_time"))
        thread.start()
        never.acquire()
    thread.join()
    assert caught.value.reason == "train.max_time"


def test_a_wish_after_the_block_harms_nobody() -> None:
    with Interrupts() as interrupts:
        pass
    _in_a_thread(lambda: interrupts.request("too late"))


@pytest.mark.parametrize(
    ("reason", "code"),
    [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", EXIT_UNFINISHED), ("train.max_time", EXIT_UNFINISHED)],
)
def test_an_exit_code_tells_scripts_what_can_go_on(reason: str, code: int) -> None:
    assert exit_code_of(reason) == code
