"""When to try again: pure arithmetic, no waiting.

Exponential back-off with full jitter (wait a random share of `base * 2^n`), so that many readers that failed
together do not come back together; see "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_TOO_MANY_REQUESTS = 429
# Request timeout, too early, too many requests: the same request may work later.
_PASSING_CLIENT_ERRORS = frozenset({408, 425, _TOO_MANY_REQUESTS})
# `"resolvers";r=0;t=55, "api";r=400;t=120`: remaining requests, and seconds until the count starts anew.
_RATE_LIMIT_REMAINING = re.compile(r";\s*r\s*=\s*(\d+)")
_RATE_LIMIT_RESET = re.compile(r";\s*t\s*=\s*(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long a failing request is tried again, in seconds."""

    base_s: float = 1.0
    """The longest first wait; each further one may be twice as long."""
    cap_s: float = 60.0
    """The longest wait that nobody asked for."""
    give_up_after_s: float = 600.0
    """Failures without any progress for so long are an error."""
    first_contact_s: float = 30.0
    """The same while no host has ever answered: there is more likely no network, or a wrong name, than a bad day."""

    def __post_init__(self) -> None:
        if not 0 < self.base_s <= self.cap_s:
            raise ValueError(f"base_s must be above 0 and at most cap_s, not {self.base_s} and {self.cap_s}")
        if self.give_up_after_s < 0 or self.first_contact_s < 0:
            raise ValueError("give_up_after_s and first_contact_s must not be negative")


class RetryState:
    """The failures of one piece of work since it last made progress.

    Args:
        policy: The limits.
        draw: Returns a random number in [0, 1); the jitter.
    """

    def __init__(self, policy: RetryPolicy, draw: Callable[[], float]) -> None:
        self._policy = policy
        self._draw = draw
        self._failing_since_s: float | None = None
        self.num_failures = 0

    def progressed(self) -> None:
        """Note that something was achieved: the next failure is a first one again."""
        self._failing_since_s = None
        self.num_failures = 0

    def failed(self, now_s: float, *, asked_s: float | None = None, first_contact: bool = False) -> float | None:
        """Note a failure.

        Args:
            now_s: Monotonic seconds. The time to give up is counted from the first failure, not from the last byte:
                a consumer that was busy for an hour has lost no patience with the network.
            asked_s: The wait that the server asked for; obeyed, with a little jitter on top.
            first_contact: Whether no host has ever answered.

        Returns:
            The seconds to wait before the next try; None where it is time to give up.
        """
        self.num_failures += 1
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        wait_s = wait_before_retry_s(self._policy, self.num_failures, self._draw(), asked_s)
        patience_s = self._policy.give_up_after_s
        if first_contact:
            patience_s = min(patience_s, self._policy.first_contact_s)
        return wait_s if now_s + wait_s - self._failing_since_s <= patience_s else None


def wait_before_retry_s(policy: RetryPolicy, num_failures: int, share: float, asked_s: float | None) -> float:
    """Return the wait after the `num_failures`-th failure in a row, `share` in [0, 1) being the jitter."""
    if asked_s is not None:
        return asked_s + share * policy.base_s
    # The exponent is capped as well, since 2.0**1024 overflows.
    longest_s = min(policy.cap_s, policy.base_s * 2.0 ** min(num_failures - 1, 64))
    return share * longest_s


def is_passing(status: int) -> bool:
    """Return whether an answer with this status may become a better one by waiting."""
    return status in _PASSING_CLIENT_ERRORS or status >= 500


def asked_wait_s(status: int, headers: Mapping[str, str], wall_s: float) -> float | None:
    """Return the seconds that a server asks to wait, or None where it does not say.

    `Retry-After` (seconds, or an HTTP date) comes first. `RateLimit` counts for a 429 only: the Hub sends it with
    every answer.

    Args:
        status: The answer's status.
        headers: Its headers, names in lower case.
        wall_s: Now, in seconds since the epoch.
    """
    asked_s = _parse_retry_after(headers.get("retry-after", "").strip(), wall_s)
    if asked_s is None and status == _TOO_MANY_REQUESTS:
        asked_s = _parse_rate_limit(headers.get("ratelimit", ""))
    return asked_s


def _parse_retry_after(text: str, wall_s: float) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = email.utils.parsedate_to_datetime(text)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
        seconds = moment.timestamp() - wall_s
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _parse_rate_limit(text: str) -> float | None:
    exhausted_s: list[float] = []
    others_s: list[float] = []
    for policy in text.split(","):
        reset = _RATE_LIMIT_RESET.search(policy)
        if reset is None:
            continue
        remaining = _RATE_LIMIT_REMAINING.search(policy)
        exhausted = remaining is not None and int(remaining.group(1)) == 0
        (exhausted_s if exhausted else others_s).append(float(reset.group(1)))
    return max(exhausted_s or others_s, default=None)
