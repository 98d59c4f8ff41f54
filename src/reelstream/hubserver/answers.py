"""Answers as values: decided here and in the sites, sent elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from reelstream.hubserver.ranges import ByteRange, parse_range


@dataclass(slots=True)
class FilePart:
    """Bytes of an open file, as the body of an answer."""

    descriptor: int
    bytes: ByteRange

    def close(self) -> None:
        """Close the file; more than once does no harm."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


@dataclass(slots=True, kw_only=True)
class Answer:
    """Status, headers and body of a response."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | FilePart = b""
    counted_path: str | None = None
    """`org/name/path` under which it is counted; None where it is for no file that exists."""

    @property
    def size_bytes(self) -> int:
        """Length of the body."""
        return self.body.bytes.size_bytes if isinstance(self.body, FilePart) else len(self.body)

    def close(self) -> None:
        """Close the file, if it holds one."""
        if isinstance(self.body, FilePart):
            self.body.close()


def json_answer(document: Any, headers: Mapping[str, str] | None = None, *, status: int = 200) -> Answer:
    """Return an answer with a JSON body."""
    body = json.dumps(document, ensure_ascii=False).encode()
    return Answer(
        status=status, headers={"Content-Type": "application/json; charset=utf-8", **(headers or {})}, body=body
    )


def hub_error(status: int, code: str | None, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Return a refusal of the Hub: `X-Error-Code` and `X-Error-Message` are what its client reads.

    The message goes into a header, so it must be plain ASCII.
    """
    named = {"X-Error-Message": message} | ({"X-Error-Code": code} if code is not None else {})
    return json_answer({"error": message}, {**named, **(headers or {})}, status=status)


def text_answer(status: int, text: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer with a body of plain text."""
    return Answer(
        status=status, headers={"Content-Type": "text/plain; charset=utf-8", **(headers or {})}, body=text.encode()
    )


def storage_error(status: int, code: str, message: str) -> Answer:
    """Return a refusal of the object store behind the CDN: an XML body, as S3 writes it."""
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Answer(status=status, headers={"Content-Type": "application/xml"}, body=text.encode())


def file_answer(part: FilePart, asked: Mapping[str, str], headers: Mapping[str, str], *, counted_path: str) -> Answer:
    """Return the answer to a GET of a file: whole (200), a part (206), or none (416).

    Args:
        part: The open, whole file; the answer takes it over.
        asked: The request's headers (`Range`, `If-Range`).
        headers: The answer's headers; `ETag` is compared with `If-Range`.
        counted_path: As in `Answer`.
    """
    size_bytes = part.bytes.end
    wanted = parse_range(asked.get("Range"))
    if wanted is None or asked.get("If-Range", headers["ETag"]) != headers["ETag"]:
        return Answer(status=200, headers=headers, body=part, counted_path=counted_path)
    chosen = wanted.within(size_bytes)
    if chosen is None:
        part.close()
        missed = {**headers, "Content-Range": f"bytes */{size_bytes}"}
        return Answer(status=416, headers=missed, counted_path=counted_path)
    part.bytes = chosen
    content_range = f"bytes {chosen.first}-{chosen.end - 1}/{size_bytes}"
    return Answer(status=206, headers={**headers, "Content-Range": content_range}, body=part, counted_path=counted_path)


def disposition(path: str) -> str:
    """Return the `Content-Disposition` that names a file as the Hub does."""
    name = quote(path.rpartition("/")[2], safe="")
    return f"inline; filename*=UTF-8''{name}; filename=\"{name}\";"
