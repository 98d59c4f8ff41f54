"""What the Hub's answers mean: from status and headers to the error that a user can act on. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from reelstream.errors import AccessDeniedError, HubError, NotFoundOnHubError
from reelstream.transport.failure import without_secrets
from reelstream.types import RepositoryKind

_CONTENT_RANGE = re.compile(r"^\s*bytes\s+(\d+)-(\d+)/(\d+|\*)\s*$", re.IGNORECASE)
_INVALID_TOKEN_MESSAGE = "Invalid credentials in Authorization header"  # noqa: S105 - the Hub's words, no token


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What was asked for: the words for errors and events."""

    endpoint: str
    repo_id: str
    revision: str | None
    path: str | None = None
    signed_in: bool = False
    """Whether a token went along."""
    kind: RepositoryKind = "dataset"

    def __str__(self) -> str:
        where = f"{self.repo_id}@{self.revision[:12]}" if self.revision else self.repo_id
        return f"{self.path} of {where}" if self.path else where

    @property
    def label(self) -> str:
        """The name in events: the file's path, or the repository's id."""
        return self.path or self.repo_id

    @property
    def page(self) -> str:
        """The repository's page, where its terms can be accepted."""
        prefix = "datasets/" if self.kind == "dataset" else ""
        return f"{self.endpoint}/{prefix}{self.repo_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer that waiting does not change."""

    status: int
    code: str
    """The Hub's `X-Error-Code`, or empty."""
    message: str
    """The Hub's `X-Error-Message`, or the beginning of the body, fit to be shown."""

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str], body: bytes) -> Refusal:
        """Return the refusal that an answer states; header names are in lower case."""
        message = headers.get("x-error-message") or body.decode("utf-8", errors="replace")
        return cls(status=status, code=headers.get("x-error-code", ""), message=without_secrets(message))

    def __str__(self) -> str:
        return f"{self.status}: {self.message}" if self.message else str(self.status)


def refusal_error(refusal: Refusal, subject: Subject) -> HubError:
    """Return the error for a refusal by the Hub itself; the codes are those `huggingface_hub` goes by."""
    return _error_by_code(refusal, subject) or _error_by_status(refusal, subject)


def _error_by_code(refusal: Refusal, subject: Subject) -> HubError | None:
    if refusal.code == "RepoNotFound":
        return _no_such_repository(subject)
    if refusal.code == "RevisionNotFound":
        return NotFoundOnHubError(
            f"the repository {subject.repo_id} has no revision {subject.revision!r}",
            f"see its branches, tags and commits at {subject.page}/commits",
        )
    if refusal.code == "EntryNotFound":
        return _no_such_file(subject)
    if refusal.code == "GatedRepo":
        return AccessDeniedError(f"the repository {subject.repo_id} is gated ({refusal})", _how_to_get_access(subject))
    if refusal.message.startswith(_INVALID_TOKEN_MESSAGE):
        return AccessDeniedError(
            f"{subject.endpoint} does not know the token that was sent ({refusal})",
            "make a new one in your account's settings, then `hf auth login`, or set HF_TOKEN",
        )
    return None


def _error_by_status(refusal: Refusal, subject: Subject) -> HubError:
    if refusal.status in {401, 403}:
        return AccessDeniedError(f"{subject.endpoint} refused {subject} ({refusal})", _how_to_get_access(subject))
    if refusal.status == 404:
        return _no_such_file(subject) if subject.path else _no_such_repository(subject)
    return HubError(f"{subject.endpoint} answered {subject} with {refusal}")


def _no_such_repository(subject: Subject) -> NotFoundOnHubError:
    hint = f"check the name at {subject.page}"
    if not subject.signed_in:
        hint += "; where it is private, `hf auth login` first, or set HF_TOKEN"
    return NotFoundOnHubError(f"there is no {subject.kind} repository {subject.repo_id} at {subject.endpoint}", hint)


def _no_such_file(subject: Subject) -> NotFoundOnHubError:
    return NotFoundOnHubError(f"there is no file {subject}", f"see its files at {subject.page}/tree/main")


def _how_to_get_access(subject: Subject) -> str:
    terms = f"open {subject.page}, sign in and accept its terms"
    if subject.signed_in:
        return f"{terms} with the account that the token belongs to, and let the token read gated repositories"
    return f"{terms}, then `hf auth login`, or set HF_TOKEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedRange:
    """The bytes [first_byte, end_byte) that an answer says it holds."""

    first_byte: int
    end_byte: int


def served_range(
    status: int, headers: Mapping[str, str], *, first_byte: int, end_byte: int, file_size_bytes: int
) -> ServedRange:
    """Return which bytes an answer to `Range: first_byte-(end_byte - 1)` holds.

    A 206 may hold less than was asked for, never something else. A 200 holds the whole file, so it serves where the
    range begins at the file's first byte; what lies before another range is not read and thrown away, as that could
    be gigabytes.

    Raises:
        ValueError: Where the answer cannot be used, with the reason.
    """
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding not in {"", "identity"}:
        raise ValueError(f"it is encoded with {encoding}, against what was asked")
    if status == 200:
        return _served_whole(headers, first_byte=first_byte, file_size_bytes=file_size_bytes)
    if status != 206:
        raise ValueError(f"its status is {status}")
    match = _CONTENT_RANGE.match(headers.get("content-range", ""))
    if match is None:
        raise ValueError(f"its Content-Range is {headers.get('content-range')!r}")
    if match.group(3) != "*" and int(match.group(3)) != file_size_bytes:
        raise ValueError(f"the file has {match.group(3)} bytes there, and {file_size_bytes} in the repository's list")
    served = ServedRange(first_byte=int(match.group(1)), end_byte=int(match.group(2)) + 1)
    if served.first_byte != first_byte or not first_byte < served.end_byte <= end_byte:
        raise ValueError(f"it holds bytes {served.first_byte}-{served.end_byte - 1}, not {first_byte}-{end_byte - 1}")
    return served


def _served_whole(headers: Mapping[str, str], *, first_byte: int, file_size_bytes: int) -> ServedRange:
    if first_byte != 0:
        raise ValueError("it holds the whole file: ranges are not served there")
    length = headers.get("content-length", str(file_size_bytes))
    if length != str(file_size_bytes):
        raise ValueError(f"the file has {length} bytes there, and {file_size_bytes} in the repository's list")
    return ServedRange(first_byte=0, end_byte=file_size_bytes)
