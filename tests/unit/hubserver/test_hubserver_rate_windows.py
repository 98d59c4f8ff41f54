from __future__ import annotations

import threading

from reelstream.hubserver.rate_windows import RateWindow


class SteppedClock:
    """Moves when it is told to."""

    now_s = 50.0

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.now_s

    def wait(self, event: threading.Event, seconds: float) -> bool:
        raise AssertionError("nobody waits by this clock")


def test_the_headers_are_those_that_the_real_client_parses() -> None:
    from huggingface_hub.utils._http import parse_ratelimit_headers

    clock = SteppedClock()
    window = RateWindow("api", 500, clock)
    window.count()
    clock.now_s += 100
    info = parse_ratelimit_headers(window.count())
    assert info is not None
    assert (info.resource_type, info.remaining, info.reset_in_seconds) == ("api", 498, 200)
    assert (info.limit, info.window_seconds) == (500, 300)


def test_a_window_ends_and_a_new_one_begins() -> None:
    clock = SteppedClock()
    window = RateWindow("api", 500, clock)
    for _ in range(10):
        window.count()
    clock.now_s += 300
    assert window.count()["RateLimit"] == '"api";r=499;t=300'


def test_nobody_is_told_to_wait() -> None:
    window = RateWindow("api", 2, SteppedClock())
    assert [window.count()["RateLimit"] for _ in range(4)][-1] == '"api";r=1;t=300'
