"""Plain HTTP for the tests of the hub: what the real client would hide is shown here."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def document(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@contextlib.contextmanager
def asking(
    url: str, headers: Mapping[str, str] | None = None, *, method: str = "GET", body: bytes | None = None
) -> Iterator[http.client.HTTPResponse]:
    """Send a request on a connection of its own and hand over the response, its body unread."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    try:
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request(method, target, body, dict(headers or {}))
        with connection.getresponse() as response:
            yield response
    finally:
        connection.close()


def ask(url: str, headers: Mapping[str, str] | None = None, *, method: str = "GET", body: bytes | None = None) -> Reply:
    """Send a request; no redirect is followed."""
    with asking(url, headers, method=method, body=body) as response:
        return Reply(response.status, response.headers, response.read())


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a repository."""
    for path, content in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
