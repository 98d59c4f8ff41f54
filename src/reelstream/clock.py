"""Time behind a protocol, so that what waits can be tested without waiting, and simulated."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """The seconds that pass, and a way to wait for some of them.

    A protocol because back-off, expiry and the planner's simulation must run in tests in no time.
    """

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch, as `time.time`."""
        ...

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set or `seconds` have passed; return whether it is set."""
        ...


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set or `seconds` have passed; return whether it is set."""
        return event.wait(seconds)
