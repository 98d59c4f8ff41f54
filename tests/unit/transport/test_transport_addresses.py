from __future__ import annotations

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from reelstream.cancel import Cancellation, Cancelled
from reelstream.errors import NetworkError
from reelstream.testing import FakeClock
from reelstream.transport.addresses import Address, AddressBook, fresh_for_s, lifetime_s

NOW_S = 1_445_412_480.0  # 2015-10-21T07:28:00Z


def policy(epoch_s: float) -> str:
    text = json.dumps({"Statement": [{"Condition": {"DateLessThan": {"AWS:EpochTime": epoch_s}}}]})
    return base64.b64encode(text.encode()).decode().translate(str.maketrans("+=/", "-_~"))


def web_token(epoch_s: float) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": epoch_s}).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJIUzI1NiJ9.{claims}.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        ("X-Amz-Date=20151021T072700Z&X-Amz-Expires=3600&X-Amz-Signature=s", 3540),
        ("x-amz-date=20151021T072800Z&x-amz-expires=900", 900),
        (f"Expires={NOW_S + 1800:.0f}&Signature=s", 1800),
        (f"expires={NOW_S + 5:.0f}", 5),
        (f"expires={(NOW_S + 5.5) * 1000:.0f}", 5.5),
        ("expires=Wed,%2021%20Oct%202015%2007:38:00%20GMT", 600),
        (f"Policy={policy(NOW_S + 1200)}&Key-Pair-Id=k", 1200),
        (f"jwt={web_token(NOW_S + 60)}", 60),
        # Silent, nonsense, or by a wrong clock: the usual hour.
        ("", 3600),
        ("Expires=soon", 3600),
        ("X-Amz-Date=yesterday&X-Amz-Expires=60", 3600),
        ("Policy=nonsense", 3600),
        ("Policy=bnVsbA__", 3600),
        ("jwt=ey.e30.x", 3600),
        ("jwt=ey.bnVsbA.x", 3600),
        (f"Expires={NOW_S - 10:.0f}", 3600),
        ("Expires=nan", 3600),
    ],
)
def test_the_lifetime_that_an_address_names(query: str, seconds: float) -> None:
    assert lifetime_s(f"https://cdn.example/object?{query}", wall_s=NOW_S) == pytest.approx(seconds)


def test_an_address_is_renewed_a_minute_or_a_tenth_before_its_end() -> None:
    assert fresh_for_s(3600) == 3540
    assert fresh_for_s(10) == 9


def address(until_s: float = 1e12) -> Address:
    return Address(url="https://cdn.example/object?secret=1", at_hub=False, fresh_until_s=until_s)


def never() -> Address:
    raise AssertionError("resolved without need")


def fail() -> Address:
    raise NetworkError("no answer", "wait")


def test_an_address_is_kept_until_it_has_aged() -> None:
    clock = FakeClock()
    book = AddressBook(clock)
    first = book.address("a", lambda: address(clock.now_s + 10), Cancellation())
    assert book.address("a", never, Cancellation()) is first
    clock.now_s += 10
    assert book.address("a", address, Cancellation()) is not first


def test_files_have_addresses_of_their_own() -> None:
    book = AddressBook(FakeClock())
    assert book.address("a", address, Cancellation()) is not book.address("b", address, Cancellation())


def test_only_the_refused_address_is_dropped() -> None:
    book = AddressBook(FakeClock())
    old = book.address("a", address, Cancellation())
    book.drop("a", old)
    new = book.address("a", address, Cancellation())
    book.drop("a", old)
    assert book.address("a", never, Cancellation()) is new


def test_an_address_shows_no_query() -> None:
    assert "secret" not in repr(address())


def test_a_failed_resolve_is_tried_again_by_the_next_who_asks() -> None:
    book = AddressBook(FakeClock())
    with pytest.raises(NetworkError):
        book.address("a", fail, Cancellation())
    assert book.address("a", address, Cancellation())


class Waiters:
    """Threads that wait for the address which one other thread resolves."""

    def __init__(self, book: AddressBook, pool: ThreadPoolExecutor) -> None:
        self.resolving = threading.Event()
        self.finish = threading.Event()
        self._book = book
        self._pool = pool

    def slow(self) -> Address:
        self.resolving.set()
        self.finish.wait()
        return address()

    def slow_failure(self) -> Address:
        self.slow()
        return fail()

    def slow_cancellation(self) -> Address:
        self.slow()
        raise Cancelled


def wait_until_waiting(book: AddressBook, number: int) -> None:
    """Return once so many threads wait in the book: each registers itself with the condition."""
    while True:
        with book._changed:
            if len(book._changed._waiters) >= number:  # type: ignore[attr-defined]
                return


def test_those_who_wait_share_the_leaders_error_in_instances_of_their_own() -> None:
    book = AddressBook(FakeClock())
    with ThreadPoolExecutor(3) as pool:
        waiters = Waiters(book, pool)
        leader = pool.submit(book.address, "a", waiters.slow_failure, Cancellation())
        waiters.resolving.wait()
        followers = [pool.submit(book.address, "a", never, Cancellation()) for _ in range(2)]
        wait_until_waiting(book, 2)
        waiters.finish.set()
        errors = [future.exception() for future in (leader, *followers)]
    assert all(isinstance(error, NetworkError) for error in errors)
    assert len({id(error) for error in errors}) == 3


def test_where_the_leader_is_called_off_one_who_waits_takes_over() -> None:
    book = AddressBook(FakeClock())
    with ThreadPoolExecutor(2) as pool:
        waiters = Waiters(book, pool)
        leader = pool.submit(book.address, "a", waiters.slow_cancellation, Cancellation())
        waiters.resolving.wait()
        follower = pool.submit(book.address, "a", address, Cancellation())
        wait_until_waiting(book, 1)
        waiters.finish.set()
        assert isinstance(leader.exception(), Cancelled)
        assert isinstance(follower.result(), Address)


def test_waiting_for_another_thread_can_be_called_off() -> None:
    book = AddressBook(FakeClock())
    with ThreadPoolExecutor(2) as pool:
        waiters = Waiters(book, pool)
        leader = pool.submit(book.address, "a", waiters.slow, Cancellation())
        waiters.resolving.wait()
        cancellation = Cancellation()
        follower = pool.submit(book.address, "a", never, cancellation)
        wait_until_waiting(book, 1)
        cancellation.cancel()
        assert isinstance(follower.exception(), Cancelled)
        waiters.finish.set()
        assert isinstance(leader.result(), Address)
