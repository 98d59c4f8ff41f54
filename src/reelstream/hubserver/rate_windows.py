"""The `RateLimit` headers of the Hub: fixed windows of five minutes."""

from __future__ import annotations

import math

from reelstream.clock import Clock

API_QUOTA = 500
"""API calls per window for a client that is signed out, as the Hub documents them."""

RESOLVERS_QUOTA = 3000
"""File resolves per window for a client that is signed out."""

WINDOW_S = 300


class RateWindow:
    """Counts requests and says what the Hub would say of them; refuses none.

    The number that remains never falls below 1, because 0 would tell a well-behaved client to wait for a server that
    would have answered.

    Args:
        name: `api` or `resolvers`.
        quota: Requests per window.
        clock: Tells when a window ends.
    """

    def __init__(self, name: str, quota: int, clock: Clock) -> None:
        self._name = name
        self._quota = quota
        self._clock = clock
        self._ends_at_s = float("-inf")
        self._used = 0

    def count(self) -> dict[str, str]:
        """Count one request; return its headers."""
        now_s = self._clock.monotonic()
        if now_s >= self._ends_at_s:
            self._ends_at_s = now_s + WINDOW_S
            self._used = 0
        self._used += 1
        remaining = max(1, self._quota - self._used)
        return {
            "RateLimit": f'"{self._name}";r={remaining};t={math.ceil(self._ends_at_s - now_s)}',
            "RateLimit-Policy": f'"fixed window";"{self._name}";q={self._quota};w={WINDOW_S}',
        }
