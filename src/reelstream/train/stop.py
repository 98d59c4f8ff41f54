"""Signals and the end of `train.max_time` as a wish that the loop obeys at the end of its step."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from reelstream.clock import Clock
from reelstream.interrupt import Insistence, SignalReceiver


class StopWaiting(Exception):  # noqa: N818 - not an error: somebody asked for it
    """Raised inside `StopRequest.waiting` when the wish arrives there."""


class StopRequest(SignalReceiver):
    """Receives signals and wishes as long as the block runs; in other threads than the main one, wishes only.

    The first one makes `requested` true, and a `waiting` block that is being waited in is left at once, since it may
    last for minutes. Ctrl-C after that raises `KeyboardInterrupt` wherever it hits: checkpoints are durable or
    invisible, so nothing breaks.

    Args:
        clock: Tells a second Ctrl-C from one that was forwarded.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        super().__init__()
        self._reason: str | None = None
        self._waiting = False
        self._insistence = Insistence(clock)

    @property
    def requested(self) -> bool:
        """Whether somebody here, or by `request`, wishes that the run stops."""
        return self._reason is not None

    @property
    def reason(self) -> str | None:
        """The name of the signal, or what `request` was given; None where nobody wishes a stop."""
        return self._reason

    @property
    def signal_name(self) -> str | None:
        """The reason, which mostly is a signal's name."""
        return self._reason

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Let a wish end the block with `StopWaiting`; nothing in it may need to be finished."""
        if self.requested:
            raise StopWaiting
        self._waiting = True
        try:
            # It may have come between the two lines above.
            if self.requested:
                raise StopWaiting
            yield
        finally:
            self._waiting = False

    def _take_signal(self, number: signal.Signals) -> None:
        if self._insistence.insists(number):
            raise KeyboardInterrupt
        self._take_wish(number.name)

    def _take_wish(self, reason: str) -> None:
        if self._reason is None:
            self._reason = reason
        if self._waiting and threading.current_thread() is threading.main_thread():
            self._waiting = False
            raise StopWaiting
