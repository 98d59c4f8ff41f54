from __future__ import annotations

import json

import httpx2
import pytest

from reelstream.cancel import Cancellation, Cancelled
from reelstream.errors import AccessDeniedError, ConfigError, HubError, NetworkError, NotFoundOnHubError
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import Retried
from reelstream.testing import Recorder
from reelstream.transport import HubClient
from reelstream.transport.lines import Origin, proxy_for
from reelstream.types import Repository
from unit.transport.transport_fakes import COMMIT, HUB, TOKEN, FakeHub, Handler


def entry(path: str, size: int, sha256: str | None = None) -> dict[str, object]:
    lfs = {"lfs": {"oid": sha256, "size": size, "pointerSize": 130}} if sha256 else {}
    return {"type": "file", "path": path, "size": 130 if sha256 else size, "oid": "0" * 40, **lfs}


def about(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, json={"id": "owner/data", "sha": COMMIT, "siblings": []})


def tree(*entries: dict[str, object], following: str | None = None) -> Handler:
    headers = {"link": f'<{following}>; rel="next"'} if following else {}
    return lambda request: httpx2.Response(200, json=list(entries), headers=headers)


def answer(status: int, code: str = "", message: str = "", body: str = "") -> Handler:
    headers = {name: value for name, value in {"X-Error-Code": code, "X-Error-Message": message}.items() if value}
    return lambda request: httpx2.Response(status, headers=headers, text=body)


def pin(hub: FakeHub, *handlers: Handler, repo_id: str = "owner/data", revision: str | None = None) -> Repository:
    hub.at_hub = list(handlers)
    with hub.client() as client:
        return client.repository(repo_id, revision)


def test_a_repository_is_pinned_and_all_pages_of_its_files_are_listed() -> None:
    hub = FakeHub(b"")
    page = f"{HUB}/api/datasets/owner/data/tree/{COMMIT}?recursive=true&cursor=2"
    repository = pin(
        hub,
        about,
        tree(entry("b.json", 12), {"type": "directory", "path": "a", "oid": "1"}, following=page),
        tree(entry("a/x_videos_1.tar.gz", 5_300_000_000, "f" * 64)),
    )
    assert repository.commit == COMMIT
    assert [(file.path, file.size_bytes, file.sha256) for file in repository.files] == [
        ("a/x_videos_1.tar.gz", 5_300_000_000, "f" * 64),
        ("b.json", 12, None),
    ]
    assert [request.url.path for request in hub.requests] == [
        "/api/datasets/owner/data",
        f"/api/datasets/owner/data/tree/{COMMIT}",
        f"/api/datasets/owner/data/tree/{COMMIT}",
    ]
    assert {request.headers["authorization"] for request in hub.requests} == {f"Bearer {TOKEN}"}


def test_a_revision_is_one_part_of_the_address() -> None:
    hub = FakeHub(b"")
    pin(hub, about, tree(), revision="refs/convert/parquet")
    assert hub.requests[0].url.raw_path == b"/api/datasets/owner/data/revision/refs%2Fconvert%2Fparquet"


def test_a_page_at_another_host_is_not_asked() -> None:
    hub = FakeHub(b"")
    pin(hub, about, tree(entry("a", 1), following="https://elsewhere.example/tree"))
    assert {request.url.host for request in hub.requests} == {"hub.example"}


def test_metadata_is_tried_again() -> None:
    hub = FakeHub(b"")
    recorder = Recorder()
    hub.at_hub = [answer(503), answer(429), about, answer(500), tree(entry("a", 1))]
    with hub.client(recorder) as client:
        assert len(client.repository("owner/data").files) == 1
    assert [(event.path, event.attempt) for event in recorder.events if isinstance(event, Retried)] == [
        ("owner/data", 1),
        ("owner/data", 2),
        ("owner/data", 1),
    ]


@pytest.mark.parametrize(
    ("handler", "error", "words"),
    [
        (answer(404, "RepoNotFound"), NotFoundOnHubError, "no dataset repository owner/data"),
        (answer(401, "RepoNotFound"), NotFoundOnHubError, "no dataset repository owner/data"),
        (answer(404), NotFoundOnHubError, "no dataset repository owner/data"),
        (answer(404, "RevisionNotFound"), NotFoundOnHubError, "no revision 'v9'"),
        (answer(403, "GatedRepo", "Access is restricted"), AccessDeniedError, "is gated (403: Access is restricted)"),
        (answer(401, "GatedRepo"), AccessDeniedError, "accept its terms"),
        (answer(401), AccessDeniedError, "accept its terms"),
        (answer(401, "", "Invalid credentials in Authorization header"), AccessDeniedError, "hf auth login"),
        (answer(400, body="<p>bad &mdash; request"), HubError, "with 400: bad"),
    ],
)
def test_refusals_say_what_is_wrong_and_what_to_do(handler: Handler, error: type[HubError], words: str) -> None:
    with pytest.raises(error) as caught:
        pin(FakeHub(b""), handler, revision="v9")
    assert words in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_without_a_token_the_hint_names_the_way_to_one() -> None:
    hub = FakeHub(b"")
    hub.at_hub = [answer(401, "GatedRepo")]
    with hub.client(token=False) as client, pytest.raises(AccessDeniedError) as caught:
        client.repository("owner/data")
    assert "HF_TOKEN" in caught.value.hint
    assert f"{HUB}/datasets/owner/data" in caught.value.hint
    assert "authorization" not in hub.requests[0].headers


@pytest.mark.parametrize(
    "handler",
    [
        lambda request: httpx2.Response(200, text="<html>"),
        lambda request: httpx2.Response(200, json={"id": "owner/data"}),
        lambda request: httpx2.Response(302, headers={"location": "https://elsewhere.example/"}),
        lambda request: httpx2.Response(302, headers={"location": "ftp://elsewhere.example/"}),
        lambda request: httpx2.Response(302),
    ],
)
def test_answers_that_are_no_description_are_refused(handler: Handler) -> None:
    with pytest.raises(HubError):
        pin(FakeHub(b""), handler)


@pytest.mark.parametrize("listing", [{"error": 1}, [{"type": "file"}], ["a"], 3, [{"type": "file", "path": "a"}]])
def test_listings_in_an_unknown_form_are_refused(listing: object) -> None:
    with pytest.raises(HubError, match="form that is not known"):
        pin(FakeHub(b""), about, lambda request: httpx2.Response(200, text=json.dumps(listing)))


def test_redirects_in_circles_end() -> None:
    hub = FakeHub(b"")
    circle = [
        lambda request: httpx2.Response(307, headers={"location": "/api/datasets/b"}),
        lambda request: httpx2.Response(307, headers={"location": "/api/datasets/a"}),
    ]
    with pytest.raises(HubError, match="circles"):
        pin(hub, *(circle * 10))


@pytest.mark.parametrize("repo_id", ["", "a/b/c", "-x/y", "a b/c"])
def test_names_that_no_repository_can_have_are_refused(repo_id: str) -> None:
    hub = FakeHub(b"")
    with pytest.raises(ConfigError, match="owner/name"):
        pin(hub, about, tree(), repo_id=repo_id)
    assert hub.requests == []


@pytest.mark.parametrize("endpoint", ["hub.example", "ftp://hub.example", "http://"])
def test_an_endpoint_that_is_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="HF_ENDPOINT"):
        HubClient(endpoint=endpoint, telemetry=Telemetry())


def test_endpoint_and_token_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{HUB}/")
    monkeypatch.setenv("HF_TOKEN", "hf_fromenvironment")
    hub = FakeHub(b"")
    hub.at_hub = [about, tree()]
    with hub.client(endpoint=None, token=None) as client:
        client.repository("owner/data")
    assert client.endpoint == HUB
    assert hub.requests[0].headers["authorization"] == "Bearer hf_fromenvironment"


def test_a_token_that_is_insisted_on_and_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with FakeHub(b"").client(token=True) as client, pytest.raises(AccessDeniedError, match="has none"):
        client.repository("owner/data")


def test_offline_mode_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub = FakeHub(b"")
    with pytest.raises(NetworkError, match="offline mode"):
        pin(hub, about)
    assert hub.requests == []


def test_listing_can_be_called_off() -> None:
    hub = FakeHub(b"")
    cancellation = Cancellation()
    cancellation.cancel()
    with hub.client() as client, pytest.raises(Cancelled):
        client.repository("owner/data", cancellation=cancellation)


def test_proxies_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    hub = Origin.of("https://hub.example/x")
    assert proxy_for(hub) is None
    monkeypatch.setenv("ALL_PROXY", "proxy.example:3128")
    assert proxy_for(hub) == "http://proxy.example:3128"
    monkeypatch.setenv("HTTPS_PROXY", "http://secure.example:1")
    assert proxy_for(hub) == "http://secure.example:1"
    assert proxy_for(Origin.of("http://hub.example")) == "http://proxy.example:3128"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,hub.example")
    assert proxy_for(hub) is None


def test_origins_tell_ports_and_schemes_apart() -> None:
    assert Origin.of("https://Hub.Example/a") == Origin.of("https://hub.example:443/b")
    assert Origin.of("https://hub.example") != Origin.of("http://hub.example")
    assert Origin.of("http://127.0.0.1:8000") != Origin.of("http://127.0.0.1:8001")
