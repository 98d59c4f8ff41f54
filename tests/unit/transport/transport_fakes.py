"""A Hub and its CDN inside the process, and a clock whose waits take no time."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx2

from reelstream.telemetry import Telemetry
from reelstream.testing import FakeClock, Recorder
from reelstream.transport import HubClient
from reelstream.types import Repository, RepositoryFile

HUB = "https://hub.example"
CDN = "https://cdn.example"
TOKEN = "hf_verysecrettoken"
COMMIT = "c" * 40

Handler = Callable[[httpx2.Request], httpx2.Response]


class BrokenStream(httpx2.SyncByteStream):
    """A body that ends with an error after some of its chunks."""

    def __init__(self, chunks: list[bytes], error: Exception | None = None) -> None:
        self._chunks = chunks
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        if self._error is not None:
            raise self._error


@dataclass
class FakeHub:
    """Serves one file as the Hub and its CDN do: the Hub signs addresses, the CDN checks them.

    `at_hub` and `at_cdn` may hold handlers that take the next requests' place, first in first out.
    """

    content: bytes
    clock: FakeClock = field(default_factory=FakeClock)
    lifetime_s: float = 3600.0
    at_hub: list[Handler] = field(default_factory=list)
    at_cdn: list[Handler] = field(default_factory=list)
    requests: list[httpx2.Request] = field(default_factory=list)
    revoked: set[int] = field(default_factory=set)
    num_signed: int = 0
    served_bytes: int = 0
    path: str = "media/a b.tar.gz"

    @property
    def file(self) -> RepositoryFile:
        return RepositoryFile(
            path=self.path, size_bytes=len(self.content), sha256=hashlib.sha256(self.content).hexdigest()
        )

    @property
    def repository(self) -> Repository:
        return Repository(repo_id="owner/data", commit=COMMIT, files=(self.file,))

    @property
    def cdn_ranges(self) -> list[str]:
        return [request.headers["range"] for request in self.requests if request.url.host == "cdn.example"]

    @property
    def num_resolves(self) -> int:
        return sum(request.url.host == "hub.example" for request in self.requests)

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if request.url.host == "hub.example":
            return self.at_hub.pop(0)(request) if self.at_hub else self.resolve(request)
        return self.at_cdn.pop(0)(request) if self.at_cdn else self.serve(request)

    def resolve(self, request: httpx2.Request) -> httpx2.Response:
        assert "range" not in request.headers
        self.num_signed += 1
        expires_s = self.clock.wall() + self.lifetime_s
        location = f"{CDN}/object?Expires={expires_s:.0f}&number={self.num_signed}&Signature=secretsignature"
        return httpx2.Response(302, headers={"location": location})

    def serve(
        self, request: httpx2.Request, error: Exception | None = None, sent: int | None = None
    ) -> httpx2.Response:
        if "authorization" in request.headers:
            return httpx2.Response(400, text="only one kind of authorization")
        expired = self.clock.wall() >= float(request.url.params["Expires"])
        if expired or int(request.url.params["number"]) in self.revoked:
            return httpx2.Response(403, text="expired")
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers["range"])
        assert match is not None
        first, last = int(match[1]), int(match[2])
        body = self.content[first : last + 1]
        self.served_bytes += len(body[:sent])
        headers = {"content-range": f"bytes {first}-{last}/{len(self.content)}", "content-length": str(len(body))}
        return httpx2.Response(206, headers=headers, stream=BrokenStream([body[:sent]] if body[:sent] else [], error))

    def client(self, recorder: Recorder | None = None, **options: object) -> HubClient:
        telemetry = Telemetry(*([recorder] if recorder else []), clock=self.clock)
        settings: dict[str, object] = {
            "endpoint": HUB,
            "token": TOKEN,
            "telemetry": telemetry,
            "clock": self.clock,
            "transport": httpx2.MockTransport(self.handle),
        }
        return HubClient(**(settings | options))  # type: ignore[arg-type]
