"""What the processes of a machine share of the Hub: clients in threads here, each a process to the file."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from reelstream.cancel import Cancellation, Cancelled
from reelstream.errors import AccessDeniedError, NetworkError
from reelstream.telemetry.events import AddressResolved, Retried
from reelstream.testing import FakeClock, Recorder
from reelstream.transport import HubClient
from reelstream.transport.addresses import Address
from reelstream.transport.shared import LARGEST_FILE_BYTES, SharedAddresses
from unit.transport.transport_fakes import FakeHub


class OthersClock(FakeClock):
    """Time that passes by waiting, and lets others do something meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: list[object] = []

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if self.meanwhile:
            action = self.meanwhile.pop(0)
            assert callable(action)
            action()
        return super().wait(event, seconds)


def read_all(client: HubClient, hub: FakeHub) -> bytes:
    remote = client.open(hub.repository, hub.file)
    return b"".join(remote.read(0, len(hub.content), Cancellation()))


@pytest.fixture
def hub() -> FakeHub:
    return FakeHub(bytes(range(100)), clock=OthersClock())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hub.json"


def a_dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    child.wait()
    return child.pid


def test_what_one_process_was_told_the_others_need_not_ask(hub: FakeHub, path: Path) -> None:
    recorder = Recorder()
    clients = [hub.client(recorder, shared=path) for _ in range(3)]
    assert [read_all(client, hub) for client in clients] == [hub.content] * 3
    assert hub.num_resolves == 1
    assert sum(isinstance(event, AddressResolved) for event in recorder.events) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_processes_that_want_a_file_at_once_make_one_request(hub: FakeHub, path: Path) -> None:
    asked, waited = threading.Event(), threading.Event()

    def slowly(request: httpx2.Request) -> httpx2.Response:
        asked.set()
        assert waited.wait(30)
        return hub.resolve(request)

    hub.at_hub = [slowly]
    clock = hub.clock
    assert isinstance(clock, OthersClock)
    clock.meanwhile = [lambda: None, waited.set, lambda: first.result(30)]
    first: Future[bytes]
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(read_all, hub.client(shared=path), hub)
        assert asked.wait(30)
        assert read_all(hub.client(shared=path), hub) == hub.content
    assert hub.num_resolves == 1


def test_an_address_is_asked_for_anew_once_it_has_aged_for_all(hub: FakeHub, path: Path) -> None:
    read_all(hub.client(shared=path), hub)
    hub.clock.now_s += 3590
    read_all(hub.client(shared=path), hub)
    read_all(hub.client(shared=path), hub)
    assert hub.num_resolves == 2


def test_a_refused_address_is_renewed_once_for_all(hub: FakeHub, path: Path) -> None:
    clients = [hub.client(shared=path) for _ in range(3)]
    for client in clients:
        read_all(client, hub)
    hub.revoked.add(1)
    assert [read_all(client, hub) for client in clients] == [hub.content] * 3
    assert hub.num_resolves == 2


def test_only_the_address_that_was_refused_is_dropped(path: Path) -> None:
    shared = SharedAddresses(path, FakeClock())
    first, second = (Address(url=f"https://cdn/{n}", at_hub=False, fresh_until_s=2e6) for n in range(2))
    shared.put("a", second, Cancellation())
    shared.drop("a", first)
    with shared.turn("a", Cancellation()) as found:
        assert found is not None
        assert found.url == second.url
    shared.drop("a", second)
    with shared.turn("a", Cancellation()) as found:
        assert found is None


def test_an_old_address_of_another_process_that_is_refused_too_is_no_error(hub: FakeHub, path: Path) -> None:
    client = hub.client(shared=path)
    read_all(client, hub)
    read_all(hub.client(), hub)
    # Another process has put one that is refused as well, after this one got its own.
    other = SharedAddresses(path, hub.clock)
    hub.revoked |= {1, 2}
    url = next(iter(json.loads(path.read_text())["files"]))
    stale = f"https://cdn.example/object?Expires={hub.clock.now_s + 3600:.0f}&number=2&Signature=s"
    other.put(url, Address(url=stale, at_hub=False, fresh_until_s=hub.clock.now_s + 3000), Cancellation())
    assert read_all(client, hub) == hub.content


def test_an_address_just_signed_that_is_refused_is_an_error(hub: FakeHub, path: Path) -> None:
    hub.at_cdn = [lambda request: httpx2.Response(403)] * 4
    with pytest.raises(AccessDeniedError, match="freshly signed"):
        read_all(hub.client(shared=path), hub)


def test_where_the_hub_asks_one_process_to_wait_the_others_wait_as_well(hub: FakeHub, path: Path) -> None:
    hub.at_hub = [lambda request: httpx2.Response(429, headers={"retry-after": "120"})]
    recorder = Recorder()
    impatient = hub.client(give_up_after_s=60, shared=path)
    with pytest.raises(NetworkError, match="429"):
        read_all(impatient, hub)
    asked_at_s = hub.clock.now_s
    num_asked = len(hub.requests)
    read_all(hub.client(recorder, shared=path), hub)
    assert hub.clock.now_s - asked_at_s >= 120
    assert len([request for request in hub.requests[num_asked:] if request.url.host == "hub.example"]) == 1
    waits = [event for event in recorder.events if isinstance(event, Retried)]
    assert "another process" in waits[0].reason


def test_a_process_that_died_while_asking_holds_nobody_up(hub: FakeHub, path: Path) -> None:
    read_all(hub.client(shared=path), hub)
    content = json.loads(path.read_text())
    url = next(iter(content["files"]))
    until = hub.clock.now_s + 40
    for pid in (a_dead_pid(), os.getpid()):
        path.write_text(
            json.dumps(content | {"files": {}, "asking": {url: {"owner": "gone", "pid": pid, "until": until}}})
        )
        before_s = hub.clock.now_s
        assert read_all(hub.client(shared=path), hub) == hub.content
        # One whose number another process has now is waited for, but not for ever.
        assert hub.clock.now_s - before_s <= 41
    assert hub.num_resolves == 3


def test_waiting_for_another_process_can_be_called_off(path: Path) -> None:
    clock = OthersClock()
    cancellation = Cancellation()
    with SharedAddresses(path, clock).turn("a", Cancellation()) as found:
        assert found is None
        clock.meanwhile = [cancellation.cancel]
        with pytest.raises(Cancelled), SharedAddresses(path, clock).turn("a", cancellation):
            pass
    assert json.loads(path.read_text())["asking"] == {}


def test_a_turn_that_fails_is_the_next_ones(path: Path) -> None:
    clock = FakeClock()
    with pytest.raises(NetworkError), SharedAddresses(path, clock).turn("a", Cancellation()):
        raise NetworkError("no answer")
    with SharedAddresses(path, clock).turn("a", Cancellation()) as found:
        assert found is None
    assert clock.waits_s == []


def test_a_silence_of_days_is_not_believed(hub: FakeHub, path: Path) -> None:
    SharedAddresses(path, hub.clock).keep_silent(86_400, Cancellation())
    read_all(hub.client(shared=path), hub)
    assert hub.clock.waits_s == []


DAMAGED = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[]",
    b"null",
    b'{"version": 9}',
    b'{"version": 1, "silent_until": "soon", "files": {}, "asking": {}}',
    b'{"version": 1, "silent_until": 0, "files": [], "asking": {}}',
    b'{"version": 1, "silent_until": 0, "files": {"a": {"url": 1}}, "asking": {}}',
    b'{"version": 1, "silent_until": 0, "files": {}, "asking": {"a": 5}}',
    b"[" * 200_000,
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_no_error_and_is_made_good(hub: FakeHub, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert read_all(hub.client(shared=path), hub) == hub.content
    assert read_all(hub.client(shared=path), hub) == hub.content
    assert hub.num_resolves == 1


def unusable(kind: str, path: Path) -> Iterator[Path]:
    if kind == "no folder":
        yield path.parent / "gone" / "hub.json"
    elif kind == "a folder":
        path.mkdir()
        yield path
    elif kind == "a link":
        (path.parent / "elsewhere").write_text("mine")
        path.symlink_to(path.parent / "elsewhere")
        yield path
        assert (path.parent / "elsewhere").read_text() == "mine"
    else:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield path
        os.close(descriptor)


@pytest.mark.parametrize("kind", ["no folder", "a folder", "a link", "locked for ever"])
def test_where_the_file_cannot_be_used_a_process_asks_by_itself(hub: FakeHub, path: Path, kind: str) -> None:
    for usable in unusable(kind, path):
        assert read_all(hub.client(shared=usable), hub) == hub.content
    assert hub.num_resolves == 1


def test_the_file_stays_small_and_keeps_what_lives_longest(path: Path) -> None:
    clock = FakeClock()
    shared = SharedAddresses(path, clock)
    for number in range(200):
        address = Address(
            url=f"https://cdn/{number}?{'s' * 1500}", at_hub=False, fresh_until_s=clock.now_s + 100 + number
        )
        shared.put(f"file {number}", address, Cancellation())
    assert path.stat().st_size <= LARGEST_FILE_BYTES
    kept = json.loads(path.read_text())["files"]
    assert "file 199" in kept
    assert "file 0" not in kept
    assert len(kept) > 50
    clock.now_s += 1000
    shared.put("new", Address(url="u", at_hub=True, fresh_until_s=clock.now_s + 9), Cancellation())
    assert list(json.loads(path.read_text())["files"]) == ["new"]


def test_a_lock_that_a_forked_child_has_inherited_is_let_go_of(path: Path) -> None:
    shared = SharedAddresses(path, FakeClock())
    with shared._locked(Cancellation()) as descriptor:
        assert descriptor is not None
        copy = os.dup(descriptor)
    with shared._locked(Cancellation()) as descriptor:
        assert descriptor is not None
    os.close(copy)
