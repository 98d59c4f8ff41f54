"""One cap on the bytes per second of all connections together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from reelstream.clock import Clock

BURST_S = 0.05
"""What an idle link may send at once: 50 ms of its rate, so that timers need not be exact."""

LARGEST_TURN_BYTES = 64 * 1024
"""The most that a connection sends before the others have their turn."""

_SMALLEST_TURN_BYTES = 1024


class TokenBucket:
    """The arithmetic of a token bucket; its only state is the moment at which the link is free.

    (The generic cell rate algorithm: exact over any length of time, since what a late sender lost within the
    burst is made good at once, and nothing is rounded on the way.)

    Args:
        bytes_per_s: The rate; above 0.
    """

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at_s = float("-inf")

    def reserve(self, size_bytes: int, now_s: float) -> float:
        """Book `size_bytes` behind all that was booked before; return the seconds to wait until they may be sent."""
        start_s = max(self._free_at_s, now_s - BURST_S)
        self._free_at_s = start_s + size_bytes / self._bytes_per_s
        return max(0.0, self._free_at_s - now_s)

    @property
    def turn_bytes(self) -> int:
        """How much one connection should book at a time: as much as the burst, within bounds."""
        return max(_SMALLEST_TURN_BYTES, min(LARGEST_TURN_BYTES, int(self._bytes_per_s * BURST_S)))


class Throttle:
    """Lets connections send in turns.

    Each connection books one turn, waits for it, sends, and books the next one behind the turns that others booked
    meanwhile: so n busy connections get a share of 1/n each.

    Args:
        bytes_per_s: The cap, or None for none.
        clock: Tells the time.
        sleep: Waits; `asyncio.sleep` but in tests.
    """

    def __init__(
        self, bytes_per_s: int | None, clock: Clock, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._bucket = TokenBucket(bytes_per_s) if bytes_per_s is not None else None
        self._clock = clock
        self._sleep = sleep

    @property
    def turn_bytes(self) -> int:
        """The most bytes to send in one turn."""
        return self._bucket.turn_bytes if self._bucket is not None else LARGEST_TURN_BYTES

    async def turn(self, size_bytes: int) -> None:
        """Wait until `size_bytes` (at most `turn_bytes`) may be sent."""
        if self._bucket is None:
            return
        wait_s = self._bucket.reserve(size_bytes, self._clock.monotonic())
        if wait_s > 0:
            await self._sleep(wait_s)
