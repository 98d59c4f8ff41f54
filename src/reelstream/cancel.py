"""One way to call off work that waits in other threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


class Cancelled(Exception):  # noqa: N818 - not an error: somebody asked for it
    """The work was called off by its owner; never shown to users."""


class Cancellation:
    """Set once, from any thread; wakes whoever waits on `event` and whoever registered a callback."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._next_key = 0

    @property
    def cancelled(self) -> bool:
        """Whether the work is called off."""
        return self.event.is_set()

    def raise_if_cancelled(self) -> None:
        """Raise `Cancelled` where the work is called off."""
        if self.event.is_set():
            raise Cancelled

    def cancel(self) -> None:
        """Call the work off; each callback registered now is called once, later ones at their registration."""
        with self._lock:
            self.event.set()
            callbacks, self._callbacks = list(self._callbacks.values()), {}
        for callback in callbacks:
            callback()

    @contextlib.contextmanager
    def on_cancel(self, callback: Callable[[], None]) -> Iterator[None]:
        """Have `callback` called at cancellation, as long as the block runs; at once where it has happened."""
        with self._lock:
            already = self.event.is_set()
            key = self._next_key
            self._next_key += 1
            if not already:
                self._callbacks[key] = callback
        if already:
            callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.pop(key, None)
