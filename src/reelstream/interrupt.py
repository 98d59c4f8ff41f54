"""Signals that ask a process to leave, and wishes of the same kind that no signal brings.

`SIGINT` is Ctrl-C; `SIGTERM` is what schedulers and clouds send; `SIGUSR1` and `SIGUSR2` are what Slurm is told to send
some minutes before a job's end. Unhandled, each ends the process where it stands, and its files stay.
"""

from __future__ import annotations

import abc
import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

from reelstream.clock import Clock, SystemClock

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

EXIT_UNFINISHED = 75
"""The exit code of work that was told to stop in time and can go on: `EX_TEMPFAIL`, which scripts may test for."""

_NUDGE = signal.SIGUSR2
# Who forwards Ctrl-C, as launchers of several ranks do, lets one wish arrive twice.
_ONE_WISH_S = 1.0


class Interrupted(KeyboardInterrupt):
    """The work was ended at once; a `KeyboardInterrupt`, so that no handler of errors takes it for one."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    @property
    def signal_name(self) -> str:
        """The reason, which mostly is a signal's name."""
        return self.reason


def exit_code_of(reason: str) -> int:
    """Return the exit code of a process that ended in good order for `reason`.

    130 and 143 for SIGINT and SIGTERM, as shells report them; `EXIT_UNFINISHED` for all that says "not now, but later".
    """
    return {"SIGINT": 130, "SIGTERM": 143}.get(reason, EXIT_UNFINISHED)


@contextlib.contextmanager
def unhandled_signals() -> Iterator[None]:
    """Have `STOP_SIGNALS` end the process where it stands, as long as the block runs: for calls that hear of none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, signal.SIG_DFL) for number in STOP_SIGNALS if signal.getsignal(number)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class SignalReceiver(abc.ABC):
    """Receives `STOP_SIGNALS` as long as its block runs; in other threads than the main one, wishes only."""

    def __init__(self) -> None:
        self._previous: dict[signal.Signals, Any] = {}
        self._lock = threading.Lock()
        self._wish: str | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                # None is a handler from before Python's start, which could not be put back.
                if signal.getsignal(number) is not None:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Nobody may nudge once the nudge would end the process.
        with self._lock:
            previous, self._previous = self._previous, {}
        for number, handler in previous.items():
            signal.signal(number, handler)

    def request(self, reason: str) -> None:
        """Wish that the work ends, from any thread; wakes the main thread where it waits.

        Args:
            reason: What `Interrupted` or the run's result names; a later one changes nothing.
        """
        if threading.current_thread() is threading.main_thread():
            self._take_wish(reason)
            return
        with self._lock:
            self._wish = self._wish or reason
            if _NUDGE in self._previous:
                # Only a real signal interrupts a lock that is waited for.
                signal.pthread_kill(_main_thread_id(), _NUDGE)
                return
        self._take_wish(reason)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == _NUDGE and self._wish is not None:
            wish, self._wish = self._wish, None
            self._take_wish(wish)
        else:
            self._take_signal(signal.Signals(number))

    @abc.abstractmethod
    def _take_signal(self, number: signal.Signals) -> None:
        """Take a signal, in the main thread, between any two instructions."""

    @abc.abstractmethod
    def _take_wish(self, reason: str) -> None:
        """Take a wish, in the main thread where signals are received, else in the thread that has it."""


def _main_thread_id() -> int:
    identifier = threading.main_thread().ident
    assert identifier is not None, "the main thread runs"
    return identifier


class Insistence:
    """Tells a second Ctrl-C, which means "at once", from a first wish that arrives twice.

    Only Ctrl-C insists: who sends another signal twice, as schedulers and launchers do, means it once.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._first_s: float | None = None

    def insists(self, number: signal.Signals) -> bool:
        """Note a signal; return whether it asks for more than those before it."""
        now_s = self._clock.monotonic()
        if self._first_s is None:
            self._first_s = now_s
            return False
        return number == signal.SIGINT and now_s - self._first_s >= _ONE_WISH_S


class Interrupts(SignalReceiver):
    """Lets signals and wishes raise `Interrupted` as long as the block runs; does nothing in other threads.

    Args:
        clock: Tells a second Ctrl-C from one that was forwarded.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        super().__init__()
        self._deferred = False
        self._insistence = Insistence(clock)

    def defer(self) -> None:
        """Let what comes next be finished: from here on only a Ctrl-C after another signal raises."""
        self._deferred = True

    def _take_signal(self, number: signal.Signals) -> None:
        insists = self._insistence.insists(number)
        if insists or not self._deferred:
            raise Interrupted(number.name)

    def _take_wish(self, reason: str) -> None:
        if not self._deferred and threading.current_thread() is threading.main_thread():
            raise Interrupted(reason)
