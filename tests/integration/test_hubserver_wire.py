"""The hub and its CDN on the wire: ranges, signed addresses, faults, counts."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from integration.hubserver_calls import Reply, ask, asking, write_files
from reelstream.errors import HubError
from reelstream.hubserver import HubProcess
from reelstream.hubserver.repositories import RepositoryShelf
from reelstream.hubserver.settings import ServeSettings

CONTENT = random.Random(2).randbytes(900_000)
TEXT = b"0123456789" * 10
ARCHIVE = "/datasets/org/name/resolve/main/sub/a_videos_1.tar.gz"
NOTES = "/datasets/org/name/resolve/main/notes.txt"
KEY = "org/name/sub/a_videos_1.tar.gz"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    write_files(root / "org/name", {"sub/a_videos_1.tar.gz": CONTENT, "notes.txt": TEXT})
    write_files(root, {"secret.json": b"secret", "org/secret.json": b"secret"})
    return root


@pytest.fixture(scope="module")
def running(root: Path) -> Iterator[HubProcess]:
    with HubProcess(root, faults=True) as hub:
        yield hub


@pytest.fixture
def hub(running: HubProcess) -> HubProcess:
    running.set_faults([])
    running.reset_stats()
    return running


def resolve(hub: HubProcess, headers: dict[str, str] | None = None) -> str:
    reply = ask(hub.endpoint + ARCHIVE, headers)
    assert reply.status == 302
    return str(reply.headers["Location"])


def test_a_large_file_is_redirected_to_another_port(hub: HubProcess) -> None:
    for method in ("GET", "HEAD"):
        reply = ask(hub.endpoint + ARCHIVE, method=method)
        assert reply.status == 302
        assert urlsplit(reply.headers["Location"]).port != urlsplit(hub.endpoint).port
        assert reply.headers["X-Linked-Size"] == "900000"
        assert len(reply.headers["X-Repo-Commit"]) == 40
        assert reply.headers["RateLimit"].startswith('"resolvers";r=')
    assert ask(hub.endpoint + "/api/datasets/org/name").headers["RateLimit"].startswith('"api";r=')


def test_an_unbound_address_serves_the_whole_and_any_range(hub: HubProcess) -> None:
    address = resolve(hub)
    assert ask(address).body == CONTENT
    for first, last in ((0, 0), (5, 70_000), (899_000, 2_000_000)):
        reply = ask(address, {"Range": f"bytes={first}-{last}"})
        assert reply.status == 206
        assert reply.body == CONTENT[first : last + 1]
        assert reply.headers["Content-Range"] == f"bytes {first}-{min(last, 899_999)}/900000"


def test_the_cdn_has_an_etag_of_its_own(hub: HubProcess) -> None:
    linked = ask(hub.endpoint + ARCHIVE).headers["X-Linked-Etag"]
    reply = ask(resolve(hub), method="HEAD")
    assert reply.headers["ETag"] not in {linked, None}
    assert reply.headers["Content-Length"] == "900000"
    assert reply.headers["Accept-Ranges"] == "bytes"
    assert reply.body == b""


def test_a_range_is_served_if_the_file_is_the_same_and_else_the_whole(hub: HubProcess) -> None:
    address = resolve(hub)
    etag = ask(address, method="HEAD").headers["ETag"]
    assert ask(address, {"Range": "bytes=0-9", "If-Range": etag}).status == 206
    reply = ask(address, {"Range": "bytes=0-9", "If-Range": '"another"'})
    assert (reply.status, reply.body) == (200, CONTENT)


def test_a_range_beyond_the_end_is_refused_with_the_size(hub: HubProcess) -> None:
    for url, size in ((resolve(hub), 900_000), (hub.endpoint + NOTES, 100)):
        reply = ask(url, {"Range": "bytes=900000-"})
        assert reply.status == 416
        assert reply.headers["Content-Range"] == f"bytes */{size}"


def test_an_address_resolved_with_a_range_serves_that_range_only(hub: HubProcess) -> None:
    address = resolve(hub, {"Range": "bytes=10-19"})
    assert ask(address, {"Range": "bytes=10-19"}).body == CONTENT[10:20]
    for headers in ({"Range": "bytes=10-20"}, {"Range": "bytes=0-"}, {}):
        reply = ask(address, headers)
        assert (reply.status, reply.body) == (403, b"Auth failed: invalid range")


def test_a_changed_address_is_refused(hub: HubProcess) -> None:
    address = resolve(hub)
    for forged in (
        address.replace("expires=", "expires=9"),
        address.partition("?")[0],
        address.replace("a_videos", "b"),
    ):
        assert ask(forged).status == 403


def test_a_token_on_the_cdn_is_refused(hub: HubProcess) -> None:
    reply = ask(resolve(hub), {"Authorization": "Bearer hf_x"})
    assert reply.status == 400
    assert b"Only one auth mechanism allowed" in reply.body


def test_an_address_expires(root: Path) -> None:
    assert asyncio.run(_ask_before_and_after_expiry(root)) == [200, 200, 403]


class HurriedClock:
    """The wall is moved by hand; everything else is as it is."""

    late_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time() + self.late_s

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)


async def _ask_before_and_after_expiry(root: Path) -> list[int]:
    from reelstream.hubserver.server import open_hub

    clock, statuses = HurriedClock(), []
    with RepositoryShelf(root, clock=clock) as shelf:
        async with open_hub(ServeSettings(root=root, address_ttl_s=60), shelf, clock=clock) as opened:
            located: Reply = await asyncio.to_thread(ask, opened.endpoint + ARCHIVE)
            for late_s in (0, 50, 61):
                clock.late_s = late_s
                reply = await asyncio.to_thread(ask, located.headers["Location"])
                statuses.append(reply.status)
    return statuses


def test_a_small_file_is_served_directly_with_ranges(hub: HubProcess) -> None:
    assert ask(hub.endpoint + NOTES).body == TEXT
    reply = ask(hub.endpoint + NOTES, {"Range": "bytes=3-5"})
    assert (reply.status, reply.body) == (206, b"345")
    assert ask(hub.endpoint + NOTES, method="HEAD").headers["Content-Length"] == "100"


@pytest.mark.parametrize(
    "path",
    [
        "/datasets/org/name/resolve/main/../../secret.json",
        "/datasets/org/name/resolve/main/..%2f..%2fsecret.json",
        "/datasets/org/name/resolve/main/%2e%2e/%2e%2e/secret.json",
        "/datasets/org/name/resolve/main//etc/passwd",
        "/datasets/org/name/resolve/main/sub/../notes.txt",
        "/datasets/org/name/resolve/main/notes.txt%00",
        "/datasets/org/../resolve/main/secret.json",
        "/datasets/../org/resolve/main/secret.json",
        "/datasets/./org/resolve/main/secret.json",
        "/datasets/org%2fname/../resolve/main/secret.json",
        "/api/datasets/org/../tree/main",
        "/api/datasets/../../tree/main",
        "/../secret.json",
        "/%ff",
    ],
)
def test_nothing_outside_of_the_repositories_is_served(hub: HubProcess, path: str) -> None:
    reply = ask(hub.endpoint + path)
    assert reply.status in {401, 404}
    assert b"secret" not in reply.body
    cdn = urlsplit(resolve(hub)).netloc
    assert ask(f"http://{cdn}{path}").status in {403, 404}


def test_paths_info_takes_json_and_refuses_nonsense(hub: HubProcess) -> None:
    url = f"{hub.endpoint}/api/datasets/org/name/paths-info/main"
    json_type = {"Content-Type": "application/json"}
    reply = ask(url, json_type, method="POST", body=b'{"paths": ["notes.txt"], "expand": true}')
    assert [entry["path"] for entry in reply.document] == ["notes.txt"]
    for body in (b"", b"[]", b"{}", b'{"paths": [1]}', b"\xff"):
        assert ask(url, json_type, method="POST", body=body).status == 400
    assert ask(url, method="POST", body=b"expand=1").status == 400
    assert ask(url).status == 405


def test_a_changed_file_gives_a_new_commit_and_ends_its_old_addresses(tmp_path: Path) -> None:
    write_files(tmp_path / "org/name", {"sub/a_videos_1.tar.gz": b"old", "notes.txt": TEXT})
    with HubProcess(tmp_path) as hub:
        before = ask(hub.endpoint + ARCHIVE)
        write_files(tmp_path / "org/name", {"sub/a_videos_1.tar.gz": b"newer"})
        assert ask(before.headers["Location"]).status == 404
        after = ask(hub.endpoint + ARCHIVE)
        assert after.headers["X-Repo-Commit"] != before.headers["X-Repo-Commit"]
        assert ask(after.headers["Location"]).body == b"newer"
        old_commit = before.headers["X-Repo-Commit"]
        reply = ask(f"{hub.endpoint}/api/datasets/org/name/revision/{old_commit}")
        assert (reply.status, reply.headers["X-Error-Code"]) == (404, "RevisionNotFound")


def test_ranges_are_counted_with_what_was_sent(hub: HubProcess) -> None:
    address = resolve(hub)
    ask(address, {"Range": "bytes=0-99"})
    ask(address, {"Range": "bytes=-5"})
    ask(address, method="HEAD")
    record = hub.stats()["paths"][KEY]
    assert record["ranges"] == [
        {"first": 0, "last": 99, "bytes_sent": 100},
        {"first": 899_995, "last": 899_999, "bytes_sent": 5},
    ]
    assert (record["requests"], record["resolves"], record["bytes_sent"]) == (4, 1, 105)


def test_a_client_that_leaves_is_not_counted_to_the_end(tmp_path: Path) -> None:
    size_bytes = 64_000_000
    write_files(tmp_path / "org/name", {"sub/a_videos_1.tar.gz": b""})
    with (tmp_path / "org/name/sub/a_videos_1.tar.gz").open("wb") as stream:
        stream.truncate(size_bytes)
    with HubProcess(tmp_path) as hub:
        with asking(resolve(hub)) as response:
            assert len(response.read(1000)) == 1000
        # The hub learns of it on the way; what it had sent by then stays far below the whole.
        assert 1000 <= hub.stats()["paths"][KEY]["bytes_sent"] < size_bytes // 2
        assert "Traceback" not in hub.talk


def test_counts_are_zeroed_by_either_call(hub: HubProcess) -> None:
    for method, path in (("POST", "/_reset"), ("DELETE", "/_stats")):
        ask(hub.endpoint + NOTES)
        assert hub.stats()["totals"]["requests"] == 1
        assert ask(hub.endpoint + path, method=method).status == 200
        assert hub.stats()["totals"]["requests"] == 0


def test_a_status_on_order_comes_as_often_as_ordered(hub: HubProcess) -> None:
    rule = {
        "match": "*.gz",
        "on": "resolve",
        "kind": "status",
        "status": 429,
        "headers": {"Retry-After": "7"},
        "times": 2,
    }
    hub.set_faults([rule])
    replies = [ask(hub.endpoint + ARCHIVE) for _ in range(3)]
    assert [reply.status for reply in replies] == [429, 429, 302]
    assert replies[0].headers["Retry-After"] == "7"
    hub.set_faults([{"on": "api", "kind": "status", "body": "down"}])
    reply = ask(f"{hub.endpoint}/api/datasets/org/name")
    assert (reply.status, reply.body) == (503, b"down")


def test_a_reset_on_order_breaks_the_connection_after_so_many_bytes(hub: HubProcess) -> None:
    hub.set_faults([{"on": "cdn", "kind": "reset", "after_bytes": 100_000}])
    address, received = resolve(hub), b""
    with asking(address) as response, pytest.raises(ConnectionResetError):
        while block := response.read1(65536):
            received += block
    assert received == CONTENT[: len(received)]
    assert hub.stats()["paths"][KEY]["ranges"] == [{"first": 0, "last": 899_999, "bytes_sent": 100_000}]
    assert ask(address).body == CONTENT


@pytest.mark.parametrize(
    ("kind", "error"), [("reset", ConnectionResetError), ("cut_short", http.client.RemoteDisconnected)]
)
def test_a_connection_can_break_before_the_headers(hub: HubProcess, kind: str, error: type[Exception]) -> None:
    for where, url in (
        ("cdn", resolve(hub)),
        ("resolve", hub.endpoint + ARCHIVE),
        ("api", hub.endpoint + "/api/datasets/org/name"),
    ):
        hub.set_faults([{"on": where, "kind": kind}])
        with pytest.raises(error):
            ask(url)


def test_a_body_cut_short_on_order_ends_in_good_order_but_too_early(hub: HubProcess) -> None:
    hub.set_faults([{"on": "cdn", "kind": "cut_short", "after_bytes": 1234}])
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(resolve(hub))
    assert caught.value.partial == CONTENT[:1234]


def test_a_stall_on_order_lasts_until_the_client_leaves(hub: HubProcess) -> None:
    hub.set_faults([{"on": "cdn", "kind": "stall", "after_bytes": 10}])
    parts = urlsplit(resolve(hub))
    assert parts.hostname is not None
    with socket.create_connection((parts.hostname, parts.port or 0), timeout=60) as connection:
        connection.sendall(f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        received = b""
        while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < 10:
            received += connection.recv(4096)
        connection.setblocking(False)
        # Others are served meanwhile, and nothing more has come here.
        assert ask(hub.endpoint + NOTES).body == TEXT
        with pytest.raises(BlockingIOError):
            connection.recv(1)
    assert received.partition(b"\r\n\r\n")[2] == CONTENT[:10]


def test_an_expiry_on_order_looks_like_a_real_one(hub: HubProcess) -> None:
    hub.set_faults([{"on": "cdn", "kind": "expire"}])
    address = resolve(hub)
    reply = ask(address)
    assert reply.status == 403
    assert b"Request has expired" in reply.body
    assert ask(address).status == 200


def test_faults_are_shown_and_wrong_ones_refused(hub: HubProcess) -> None:
    hub.set_faults([{"on": "cdn", "kind": "reset", "times": 2}])
    assert ask(hub.endpoint + "/_faults").document[0]["times"] == 2
    with pytest.raises(HubError, match=r"400 .*fault rules\[0\]\[on\]"):
        hub.set_faults([{"on": "moon", "kind": "reset"}])
    assert ask(hub.endpoint + "/_faults", method="DELETE").document == []


def test_faults_are_not_to_be_had_unless_asked_for(root: Path) -> None:
    with HubProcess(root) as hub, pytest.raises(HubError, match="404"):
        hub.set_faults([])


@pytest.mark.parametrize("host", ["]bad[", "a:b", ""])
def test_a_host_header_that_is_none_is_a_bad_request(hub: HubProcess, host: str) -> None:
    assert ask(hub.endpoint + ARCHIVE, {"Host": host}).status == 400


def test_redirects_and_next_pages_go_to_the_name_by_which_the_client_knows_the_hub(hub: HubProcess) -> None:
    reply = ask(hub.endpoint + ARCHIVE, {"Host": "hub.example:8080"})
    assert urlsplit(reply.headers["Location"]).hostname == "hub.example"
    reply = ask(f"{hub.endpoint}/api/datasets/org/name/tree/main?limit=1", {"Host": "hub.example:8080"})
    assert reply.headers["Link"].startswith("<http://hub.example:8080/api/datasets/org/name/tree/main?limit=1&cursor=")


def test_a_cap_and_a_delay_change_no_byte(root: Path) -> None:
    with HubProcess(root, bandwidth_bytes_per_s=20_000_000, latency_s=0.001) as hub:
        assert ask(resolve(hub)).body == CONTENT


def test_other_unknown_controls_are_not_found(hub: HubProcess) -> None:
    reply = ask(hub.endpoint + "/_unknown")
    assert reply.status == 404
    assert "error" in json.loads(reply.body)
