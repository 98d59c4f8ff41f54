"""Ctrl-C and SIGTERM as a wish that the loop obeys at the end of its step."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from reelstream.train.interrupt import SignalReceiver


class StopWaiting(Exception):  # noqa: N818 - not an error: somebody asked for it
    """Raised inside `StopRequest.waiting` when the wish arrives there."""


class StopRequest(SignalReceiver):
    """Receives SIGINT and SIGTERM as long as the block runs; in other threads than the main one, nothing.

    The first signal is a wish: `requested` becomes true, and a `waiting` block that is being waited in is left at
    once, since it may last for minutes. The second one raises `KeyboardInterrupt` wherever it hits: checkpoints are
    durable or invisible, so nothing breaks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.signal_name: str | None = None
        self._waiting = False

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.signal_name is not None

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Let a signal end the block with `StopWaiting`; nothing in it may need to be finished."""
        if self.requested:
            raise StopWaiting
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name
        if self._waiting:
            self._waiting = False
            raise StopWaiting
