from __future__ import annotations

import asyncio
import heapq
import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelstream.hubserver.bandwidth import BURST_S, LARGEST_TURN_BYTES, Throttle, TokenBucket


def test_an_idle_link_sends_one_burst_at_once() -> None:
    bucket = TokenBucket(1000)
    assert bucket.reserve(50, now_s=10.0) == 0.0
    assert bucket.reserve(100, now_s=10.0) == pytest.approx(0.1)


def test_a_busy_link_keeps_its_rate() -> None:
    bucket = TokenBucket(1000)
    waits_s = [bucket.reserve(100, now_s=0.0) for _ in range(20)]
    assert waits_s[-1] == pytest.approx(20 * 0.1 - BURST_S)


def test_a_late_sender_catches_up_by_no_more_than_the_burst() -> None:
    bucket = TokenBucket(1000)
    bucket.reserve(50, now_s=0.0)
    assert bucket.reserve(50, now_s=100.0) == 0.0
    assert bucket.reserve(50, now_s=100.0) == pytest.approx(0.05)


@given(
    rate=st.integers(1_000, 10**9),
    sends=st.lists(st.tuples(st.floats(0, 1), st.integers(1, LARGEST_TURN_BYTES)), min_size=1, max_size=50),
)
def test_no_stretch_of_time_carries_more_than_its_rate_and_one_burst(rate: int, sends: list[tuple[float, int]]) -> None:
    bucket, now_s, sent = TokenBucket(rate), 0.0, []
    for pause_s, size_bytes in sends:
        now_s += pause_s
        sent.append((now_s + bucket.reserve(size_bytes, now_s), size_bytes))
    for first, last in itertools.combinations(range(len(sent)), 2):
        carried = sum(size_bytes for _, size_bytes in sent[first + 1 : last + 1])
        # One turn may be under way when the stretch begins.
        allowed = (sent[last][0] - sent[first][0] + BURST_S) * rate
        assert carried <= allowed * (1 + 1e-9) + 1e-3


@pytest.mark.parametrize(
    ("rate", "expected"), [(100, 1024), (100_000, 5_000), (10_000_000, LARGEST_TURN_BYTES), (10**9, LARGEST_TURN_BYTES)]
)
def test_a_turn_is_as_large_as_the_burst_within_bounds(rate: int, expected: int) -> None:
    assert TokenBucket(rate).turn_bytes == expected


def test_busy_connections_get_equal_shares() -> None:
    bucket = TokenBucket(1_000_000)
    turns = [0, 0, 0, 0]
    # Each connection books its next turn when its last one was sent: events in order of time.
    ready = [(0.0, connection) for connection in range(len(turns))]
    while ready[0][0] < 10.0:
        now_s, connection = heapq.heappop(ready)
        turns[connection] += 1
        heapq.heappush(ready, (now_s + bucket.reserve(bucket.turn_bytes, now_s), connection))
    # The burst lets one connection go twice before the others have come.
    assert max(turns) - min(turns) <= 2
    assert sum(turns) * bucket.turn_bytes == pytest.approx(10.0 * 1_000_000, rel=0.05)


def test_a_connection_waits_for_its_turn() -> None:
    waits_s: list[float] = []

    async def note(seconds: float) -> None:
        waits_s.append(seconds)

    async def send_three_turns() -> None:
        throttle = Throttle(1_000_000, StoppedClock(), note)
        for _ in range(3):
            await throttle.turn(throttle.turn_bytes)

    asyncio.run(send_three_turns())
    assert waits_s == pytest.approx([0.05, 0.1])


def test_without_a_cap_nobody_waits() -> None:
    async def fail(seconds: float) -> None:
        raise AssertionError(f"waited {seconds} s")

    asyncio.run(Throttle(None, StoppedClock(), fail).turn(10**9))


class StoppedClock:
    """Stands still."""

    def monotonic(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 0.0

    def wait(self, event: threading.Event, seconds: float) -> bool:
        raise AssertionError("nobody waits by this clock")
