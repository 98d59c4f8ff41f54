from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from reelstream.cancel import Cancellation, Cancelled
from reelstream.errors import AccessDeniedError, HubError, NetworkError, NotFoundOnHubError
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import AddressResolved, RangeFinished, Retried
from reelstream.testing import Recorder
from unit.transport.transport_fakes import CDN, TOKEN, BrokenStream, FakeHub

CONTENT = bytes(range(256)) * 40


def read_all(hub: FakeHub, first: int = 0, end: int | None = None, recorder: Recorder | None = None) -> bytes:
    with hub.client(recorder) as client:
        file = client.open(hub.repository, hub.file)
        return b"".join(file.read(first, len(hub.content) if end is None else end, Cancellation()))


def status(code: int, **headers: str) -> httpx2.Response:
    return httpx2.Response(code, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_a_range_yields_exactly_its_bytes() -> None:
    hub = FakeHub(CONTENT)
    assert read_all(hub, 100, 5000) == CONTENT[100:5000]
    assert hub.cdn_ranges == ["bytes=100-4999"]


def test_an_empty_range_asks_nothing() -> None:
    hub = FakeHub(CONTENT)
    assert read_all(hub, 7, 7) == b""
    assert hub.requests == []


def test_resolve_is_asked_without_a_range_and_paths_are_quoted() -> None:
    hub = FakeHub(CONTENT)
    read_all(hub)
    resolve = hub.requests[0]
    assert resolve.method == "HEAD"
    assert "range" not in resolve.headers
    assert resolve.url.raw_path.decode().endswith(f"/resolve/{'c' * 40}/media/a%20b.tar.gz")


def test_the_token_goes_to_the_hub_only() -> None:
    hub = FakeHub(CONTENT)
    read_all(hub)
    assert [request.headers.get("authorization") for request in hub.requests] == [f"Bearer {TOKEN}", None]
    assert {request.headers["accept-encoding"] for request in hub.requests} == {"identity"}


def test_one_address_serves_many_ranges() -> None:
    hub = FakeHub(CONTENT)
    with hub.client() as client:
        file = client.open(hub.repository, hub.file)
        again = client.open(hub.repository, hub.file)
        for start in range(0, 1000, 100):
            b"".join(file.read(start, start + 100, Cancellation()))
            b"".join(again.read(start, start + 100, Cancellation()))
    assert hub.num_resolves == 1


def test_an_address_is_renewed_shortly_before_it_expires() -> None:
    hub = FakeHub(CONTENT)
    with hub.client() as client:
        file = client.open(hub.repository, hub.file)
        b"".join(file.read(0, 10, Cancellation()))
        hub.clock.now_s += 3600 - 61
        b"".join(file.read(0, 10, Cancellation()))
        assert hub.num_resolves == 1
        hub.clock.now_s += 2
        b"".join(file.read(0, 10, Cancellation()))
        assert hub.num_resolves == 2


def test_a_refused_address_is_resolved_anew_without_waiting() -> None:
    hub = FakeHub(CONTENT)
    recorder = Recorder()
    with hub.client(recorder) as client:
        file = client.open(hub.repository, hub.file)
        b"".join(file.read(0, 10, Cancellation()))
        hub.revoked = {1}
        assert b"".join(file.read(0, 100, Cancellation())) == CONTENT[:100]
    assert hub.num_resolves == 2
    assert hub.clock.waits_s == []
    assert sum(isinstance(event, AddressResolved) for event in recorder.events) == 2


def test_a_refusal_right_after_a_fresh_resolve_is_an_error_with_its_body_and_without_secrets() -> None:
    hub = FakeHub(CONTENT)
    body = f"Auth failed: {CDN}/object?Signature=secretsignature&x=1 {TOKEN} " + "x" * 5000
    hub.at_cdn = [lambda request: httpx2.Response(403, text=body)] * 2
    with pytest.raises(AccessDeniedError) as caught:
        read_all(hub)
    assert "Auth failed" in str(caught.value)
    assert "secretsignature" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert hub.num_resolves == 2


def test_a_broken_range_goes_on_at_its_byte() -> None:
    hub = FakeHub(CONTENT)
    hub.at_cdn = [
        lambda request: hub.serve(request, httpx2.ReadError("reset"), sent=1000),
        lambda request: hub.serve(request, None, sent=500),
        lambda request: hub.serve(request, httpx2.ReadTimeout("stalled"), sent=1),
    ]
    recorder = Recorder()
    assert read_all(hub, 100, 9000, recorder) == CONTENT[100:9000]
    assert hub.cdn_ranges == ["bytes=100-8999", "bytes=1100-8999", "bytes=1600-8999", "bytes=1601-8999"]
    assert [event.attempt for event in recorder.events if isinstance(event, Retried)] == [1, 1, 1]
    finished = [event for event in recorder.events if isinstance(event, RangeFinished)]
    assert [(event.first_byte, event.received_bytes) for event in finished] == [
        (100, 1000),
        (1100, 500),
        (1600, 1),
        (1601, 7399),
    ]


def test_a_break_after_the_last_byte_is_no_failure() -> None:
    hub = FakeHub(CONTENT)
    hub.at_cdn = [lambda request: hub.serve(request, httpx2.ReadError("reset"))]
    assert read_all(hub) == CONTENT
    assert hub.clock.waits_s == []


def test_received_bytes_are_counted() -> None:
    hub = FakeHub(CONTENT)
    telemetry = Telemetry()
    with hub.client(telemetry=telemetry) as client:
        b"".join(client.open(hub.repository, hub.file).read(10, 5010, Cancellation()))
    assert telemetry.received_bytes == 5000


def test_chunks_are_at_most_256_kib() -> None:
    hub = FakeHub(bytes(700 * 1024))
    with hub.client() as client:
        sizes = [len(chunk) for chunk in client.open(hub.repository, hub.file).read(0, 700 * 1024, Cancellation())]
    assert max(sizes) == 256 * 1024
    assert sum(sizes) == 700 * 1024


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
def test_passing_statuses_are_tried_again(code: int) -> None:
    hub = FakeHub(CONTENT)
    hub.at_cdn = [lambda request: status(code)] * 3
    hub.at_hub = [lambda request: status(code)] * 2
    assert read_all(hub) == CONTENT
    assert len(hub.clock.waits_s) == 5


def test_retry_after_is_obeyed() -> None:
    hub = FakeHub(CONTENT)
    hub.at_hub = [lambda request: status(429, retry_after="42", ratelimit='"resolvers";r=0;t=300')]
    assert read_all(hub) == CONTENT
    assert 42 <= hub.clock.waits_s[0] <= 43


def test_a_429_without_retry_after_waits_for_the_rate_limits_reset() -> None:
    hub = FakeHub(CONTENT)
    hub.at_hub = [lambda request: httpx2.Response(429, html="<html>busy", headers={"RateLimit": '"api";r=0;t=55'})]
    assert read_all(hub) == CONTENT
    assert 55 <= hub.clock.waits_s[0] <= 56


def test_failures_end_in_an_error_when_patience_is_out() -> None:
    hub = FakeHub(CONTENT)
    hub.at_cdn = [lambda request: status(503)] * 10_000
    with pytest.raises(NetworkError, match=r"cdn\.example answered 503"):
        read_all(hub)
    assert 500 < sum(hub.clock.waits_s) <= 600


def test_a_network_that_never_answered_is_given_up_soon() -> None:
    def unknown_host(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("[Errno -2] Name or service not known")

    hub = FakeHub(CONTENT)
    hub.at_hub = [unknown_host] * 1000
    with pytest.raises(NetworkError, match="Name or service not known") as caught:
        read_all(hub)
    assert "HF_ENDPOINT" in caught.value.hint
    assert sum(hub.clock.waits_s) <= 30


def test_a_host_that_stays_silent_once_the_network_has_answered_is_waited_for_longer() -> None:
    def silent(request: httpx2.Request) -> httpx2.Response:
        hub.clock.now_s += 30
        raise httpx2.ReadTimeout("silence")

    hub = FakeHub(CONTENT)
    hub.at_hub = [silent] * 5
    hub.at_cdn = [silent] * 5
    assert read_all(hub) == CONTENT


@pytest.mark.parametrize(
    ("code", "error"), [(401, AccessDeniedError), (403, AccessDeniedError), (404, NotFoundOnHubError), (416, HubError)]
)
def test_refusals_by_the_hub_are_not_tried_again(code: int, error: type[HubError]) -> None:
    hub = FakeHub(CONTENT)
    hub.at_hub = [lambda request: status(code)]
    with pytest.raises(error):
        read_all(hub)
    assert hub.num_resolves == 1


def test_files_that_the_hub_serves_itself_are_ranged_there_with_the_token() -> None:
    hub = FakeHub(CONTENT)

    def direct(request: httpx2.Request) -> httpx2.Response:
        if request.method == "HEAD":
            return status(200, content_length=str(len(CONTENT)))
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        assert request.headers["range"] == "bytes=5-9"
        return httpx2.Response(206, content=CONTENT[5:10], headers={"content-range": f"bytes 5-9/{len(CONTENT)}"})

    hub.at_hub = [direct, direct]
    assert read_all(hub, 5, 10) == CONTENT[5:10]


def test_redirects_within_the_hub_are_followed_with_the_token() -> None:
    hub = FakeHub(CONTENT)
    hub.at_hub = [lambda request: status(307, location="/datasets/renamed/data/resolve/main/x")]
    assert read_all(hub) == CONTENT
    assert hub.requests[1].url.path == "/datasets/renamed/data/resolve/main/x"
    assert hub.requests[1].headers["authorization"] == f"Bearer {TOKEN}"


def whole(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, content=CONTENT)


def test_the_whole_file_in_answer_to_a_range_serves_its_beginning() -> None:
    hub = FakeHub(CONTENT)
    hub.at_cdn = [whole, whole]
    assert read_all(hub) == CONTENT
    assert read_all(hub, 0, 300) == CONTENT[:300]


@pytest.mark.parametrize(
    "answer",
    [
        whole,
        lambda request: httpx2.Response(206, content=b"x" * 100, headers={"content-range": "bytes 100-199/999"}),
        lambda request: httpx2.Response(
            206, content=b"x" * 100, headers={"content-range": f"bytes 0-99/{len(CONTENT)}"}
        ),
        lambda request: httpx2.Response(206, content=b"x" * 100),
        lambda request: httpx2.Response(200, content=b"<html>sign in to the hotel's network"),
        lambda request: httpx2.Response(
            206,
            stream=BrokenStream([b"x" * 10]),
            headers={"content-range": f"bytes 100-199/{len(CONTENT)}", "content-encoding": "gzip"},
        ),
        lambda request: status(302, location="https://elsewhere.example/"),
    ],
)
def test_answers_that_are_not_the_range_are_refused(answer: object) -> None:
    hub = FakeHub(CONTENT)
    hub.at_cdn = [answer]  # type: ignore[list-item]
    with pytest.raises(NetworkError, match="cannot be used"):
        read_all(hub, 100, 200)
    assert hub.clock.waits_s == []


def test_a_cancelled_read_asks_nothing() -> None:
    hub = FakeHub(CONTENT)
    cancellation = Cancellation()
    cancellation.cancel()
    with hub.client() as client, pytest.raises(Cancelled):
        next(client.open(hub.repository, hub.file).read(0, 10, cancellation))
    assert hub.requests == []


def test_cancellation_ends_a_back_off() -> None:
    hub = FakeHub(CONTENT)
    cancellation = Cancellation()

    def cancel(request: httpx2.Request) -> httpx2.Response:
        cancellation.cancel()
        return status(503)

    hub.at_cdn = [cancel]
    with hub.client() as client, pytest.raises(Cancelled):
        next(client.open(hub.repository, hub.file).read(0, 10, cancellation))


def test_many_threads_share_one_resolve() -> None:
    hub = FakeHub(CONTENT)
    all_started = threading.Barrier(8)

    def read(start: int) -> bytes:
        all_started.wait()
        return b"".join(file.read(start, start + 100, Cancellation()))

    with hub.client() as client, ThreadPoolExecutor(8) as pool:
        file = client.open(hub.repository, hub.file)
        starts = range(0, 800, 100)
        assert list(pool.map(read, starts)) == [CONTENT[start : start + 100] for start in starts]
    assert hub.num_resolves == 1


def test_a_child_process_gets_connections_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FakeHub(CONTENT)
    with hub.client() as client:
        file = client.open(hub.repository, hub.file)
        b"".join(file.read(0, 10, Cancellation()))
        monkeypatch.setattr("os.getpid", lambda: -1)
        assert b"".join(file.read(0, 10, Cancellation())) == CONTENT[:10]
        assert hub.num_resolves == 2
        client.close()
        monkeypatch.undo()


def test_nothing_that_is_shown_holds_a_secret() -> None:
    hub = FakeHub(CONTENT)
    recorder = Recorder()
    hub.at_cdn = [lambda request: hub.serve(request, httpx2.ReadError(str(request.url)), sent=10)]
    with hub.client(recorder) as client:
        file = client.open(hub.repository, hub.file)
        b"".join(file.read(0, 100, Cancellation()))
        shown = f"{client!r} {client} {file!r} {file._access.address(Cancellation())!r} {recorder.events!r}"
    assert TOKEN not in shown
    assert "secretsignature" not in shown


def test_errors_survive_pickling() -> None:
    hub = FakeHub(CONTENT)
    hub.at_hub = [lambda request: status(404)]
    with pytest.raises(NotFoundOnHubError) as caught:
        read_all(hub)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
