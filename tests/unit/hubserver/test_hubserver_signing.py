from __future__ import annotations

import threading

import pytest

from reelstream.hubserver.ranges import RangeRequest
from reelstream.hubserver.signing import AddressSigner, Refusal

PATH = "org/name/vidéo 1.tar.gz"
SHA256 = "ab" * 32


class StoppedClock:
    """Stands still until it is set."""

    now_s = 1_000_000.0

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.now_s

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.now_s += seconds
        return event.is_set()


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
def signer(clock: StoppedClock) -> AddressSigner:
    return AddressSigner(b"key", clock=clock, ttl_s=60.0)


@pytest.mark.parametrize("asked", [None, RangeRequest(0, 9), RangeRequest(5, None)])
def test_an_unbound_address_serves_any_range(signer: AddressSigner, asked: RangeRequest | None) -> None:
    assert signer.check(PATH, signer.sign(PATH, SHA256, None), asked) is None


def test_a_bound_address_serves_its_own_range(signer: AddressSigner) -> None:
    query = signer.sign(PATH, SHA256, RangeRequest(0, 9))
    assert signer.check(PATH, query, RangeRequest(0, 9)) is None


@pytest.mark.parametrize("asked", [None, RangeRequest(0, 8), RangeRequest(10, 19), RangeRequest(0, None)])
def test_a_bound_address_refuses_any_other_range_and_none(signer: AddressSigner, asked: RangeRequest | None) -> None:
    query = signer.sign(PATH, SHA256, RangeRequest(0, 9))
    assert signer.check(PATH, query, asked) is Refusal.WRONG_RANGE


def test_an_address_is_served_until_it_expires(signer: AddressSigner, clock: StoppedClock) -> None:
    query = signer.sign(PATH, SHA256, None)
    clock.now_s += 59.9
    assert signer.check(PATH, query, None) is None
    clock.now_s += 0.1
    assert signer.check(PATH, query, None) is Refusal.EXPIRED


def test_nothing_of_an_address_can_be_changed(signer: AddressSigner) -> None:
    query = signer.sign(PATH, SHA256, RangeRequest(0, 9))
    without_range = {name: value for name, value in query.items() if name != "range"}
    forgeries = [
        {**query, "expires": "9999999999999"},
        {**query, "sha256": "cd" * 32},
        {**query, "range": "bytes=0-"},
        {**query, "more": "1"},
        {**query, "signature": "é"},
        without_range,
        {},
    ]
    assert [signer.check(PATH, forgery, None) for forgery in forgeries] == [Refusal.BAD_SIGNATURE] * len(forgeries)
    assert signer.check("org/name/other", query, RangeRequest(0, 9)) is Refusal.BAD_SIGNATURE


def test_another_process_has_another_key(signer: AddressSigner, clock: StoppedClock) -> None:
    other = AddressSigner(b"other", clock=clock, ttl_s=60.0)
    assert other.check(PATH, signer.sign(PATH, SHA256, None), None) is Refusal.BAD_SIGNATURE
