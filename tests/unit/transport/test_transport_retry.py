from __future__ import annotations

import pytest

from reelstream.transport.retry import RetryPolicy, RetryState, asked_wait_s, is_passing, wait_before_retry_s

# Wed, 21 Oct 2015 07:28:00 GMT
MOMENT_S = 1445412480.0


def test_the_longest_wait_doubles_up_to_the_cap() -> None:
    policy = RetryPolicy()
    longest = [wait_before_retry_s(policy, failures, 0.5, None) for failures in (1, 2, 3, 4, 5, 6, 7, 8, 10_000)]
    assert longest == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_the_wait_is_a_random_share_of_the_longest() -> None:
    policy = RetryPolicy()
    assert wait_before_retry_s(policy, 4, 0.0, None) == 0
    assert wait_before_retry_s(policy, 4, 0.25, None) == 2


def test_an_asked_wait_is_never_cut_short() -> None:
    policy = RetryPolicy(cap_s=5)
    assert wait_before_retry_s(policy, 1, 0.0, 300) == 300
    assert wait_before_retry_s(policy, 1, 0.5, 300) == 300.5


def test_patience_is_counted_from_the_first_failure_and_starts_anew_with_progress() -> None:
    state = RetryState(RetryPolicy(give_up_after_s=10), lambda: 0.5)
    assert state.failed(1000) == 0.5
    assert state.failed(1005) == 1
    assert state.failed(1009) is None
    state.progressed()
    assert state.failed(5000) == 0.5
    assert state.num_failures == 1


def test_a_wait_longer_than_the_patience_is_not_begun() -> None:
    state = RetryState(RetryPolicy(give_up_after_s=10), lambda: 0.5)
    assert state.failed(0, asked_s=3600) is None


def test_a_host_that_never_answered_gets_less_patience() -> None:
    policy = RetryPolicy(give_up_after_s=600, first_contact_s=30)
    state = RetryState(policy, lambda: 0.5)
    assert state.failed(0, first_contact=True) == 0.5
    assert state.failed(30, first_contact=True) is None
    assert state.failed(30, first_contact=False) is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"base_s": 0}, "base_s"), ({"cap_s": 0.5}, "cap_s"), ({"give_up_after_s": -1}, "give_up")],
)
def test_a_policy_that_contradicts_itself_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RetryPolicy(**settings)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520])
def test_statuses_that_may_pass(status: int) -> None:
    assert is_passing(status)


@pytest.mark.parametrize("status", [200, 206, 302, 400, 401, 403, 404, 410, 416])
def test_statuses_that_stay(status: int) -> None:
    assert not is_passing(status)


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"retry-after": "120"}, 120),
        (503, {"retry-after": "7"}, 7),
        (429, {"retry-after": "Wed, 21 Oct 2015 07:29:00 GMT"}, 60),
        (429, {"retry-after": "Wed, 21 Oct 2015 07:00:00 GMT"}, 0),
        (429, {"retry-after": "-5"}, 0),
        (429, {"retry-after": "soon"}, None),
        (429, {"retry-after": "inf"}, None),
        (429, {"retry-after": "nan"}, None),
        (429, {"retry-after": "soon", "ratelimit": '"api";r=0;t=55'}, 55),
        (429, {"ratelimit": '"resolvers";r=12;t=200, "api";r=0;t=55'}, 55),
        (429, {"ratelimit": '"resolvers"; r=12; t=200'}, 200),
        (429, {"ratelimit": "nonsense"}, None),
        (429, {"retry-after": "3", "ratelimit": '"api";r=0;t=55'}, 3),
        (503, {"ratelimit": '"api";r=400;t=55'}, None),
        (429, {}, None),
    ],
)
def test_the_wait_that_a_server_asks_for(status: int, headers: dict[str, str], seconds: float | None) -> None:
    assert asked_wait_s(status, headers, MOMENT_S) == seconds
