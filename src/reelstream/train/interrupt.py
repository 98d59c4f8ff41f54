"""SIGINT and SIGTERM wherever the loop does not receive them: before its first step, and while a run is put away."""

from __future__ import annotations

import abc
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupted(KeyboardInterrupt):
    """A signal ended the work at once; a `KeyboardInterrupt`, so that no handler of errors takes it for one."""

    def __init__(self, signal_name: str) -> None:
        super().__init__(signal_name)
        self.signal_name = signal_name


class SignalReceiver(abc.ABC):
    """Receives SIGINT and SIGTERM as long as its block runs; in other threads than the main one, nothing."""

    def __init__(self) -> None:
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @abc.abstractmethod
    def _receive(self, number: int, frame: FrameType | None) -> None:
        """Take a signal, in the main thread, between any two instructions."""


class Interrupts(SignalReceiver):
    """Lets SIGINT and SIGTERM raise `Interrupted` as long as the block runs; does nothing in other threads.

    Without it SIGTERM ends the process where it stands, and its files stay.
    """

    def __init__(self) -> None:
        super().__init__()
        self._deferred = False
        self._insisted = False

    def defer(self) -> None:
        """Let what comes next be finished: from here on one signal is passed over, and a second one raises."""
        self._deferred = True

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self._deferred and not self._insisted:
            self._insisted = True
            return
        raise Interrupted(signal.Signals(number).name)
