"""How far the annotations have been read, told while nothing else happens yet."""

from __future__ import annotations

from collections.abc import Callable

from reelstream.clock import Clock, SystemClock
from reelstream.units import format_bytes


class AnnotationsProgress:
    """Tells every few seconds how much of the annotations has been read, since the first byte trains nothing yet."""

    _INTERVAL_S = 3.0

    def __init__(self, tell: Callable[[str], None], clock: Clock | None = None) -> None:
        self._tell = tell
        self._clock = clock or SystemClock()
        self._read_bytes = 0
        self._told_s: float | None = None

    def __call__(self, size_bytes: int) -> None:
        """Count bytes that were just read."""
        self._read_bytes += size_bytes
        now_s = self._clock.monotonic()
        if self._told_s is None:
            self._tell("reading the annotations; the catalog made of them stays in cache_dir for the next run")
        elif now_s - self._told_s < self._INTERVAL_S:
            return
        else:
            self._tell(f"{format_bytes(self._read_bytes)} of annotations read")
        self._told_s = now_s
