"""Commits to a repository of the Hub, made by its own client in a process of its own.

`huggingface_hub` knows how the Hub takes files (LFS, Xet, in parts), but waits where it cannot be called off, and its
threads outlive their caller: a training run that must leave in time could not. A child process can be ended at any
moment; what it had sent is found by the next one, and nothing of it shows before its commit.

```
parent                                    child: `python -m reelstream.transport.upload_child`
  ── the order, one line of JSON ───────►   make the repository, upload, commit
  ── (its input stays open: it leaves once the parent is gone)
  ◄── the outcome, one line of JSON ─────
```
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reelstream.cancel import Cancellation, Cancelled
from reelstream.errors import AccessDeniedError, DiskError, HubError, NetworkError, NotFoundOnHubError
from reelstream.transport.failure import without_secrets
from reelstream.types import RepositoryKind
from reelstream.units import format_bytes, format_seconds

_PUBLIC_HUB = "https://huggingface.co"
# A push that is slower than this is one that hangs.
_LEAST_BYTES_PER_S = 50_000
_LEAST_LIMIT_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitOrder:
    """What is to be committed to the main branch, all at once."""

    repo_id: str
    message: str
    kind: RepositoryKind = "model"
    files: Mapping[str, Path] = field(default_factory=dict)
    """What is added or replaced: path in the repository, and where the bytes lie."""
    deleted_files: tuple[str, ...] = ()
    deleted_folders: tuple[str, ...] = ()
    create: bool = False
    """Make the repository where there is none."""
    private: bool = True
    """Whether a repository that is made is private."""


def commit(
    order: CommitOrder, *, endpoint: str, token: str | bool | None = None, cancellation: Cancellation | None = None
) -> None:
    """Make a commit; with nothing to add or delete, only what `create` says.

    Args:
        order: What.
        endpoint: The Hub.
        token: As of `HubClient`; it goes to that host only.
        cancellation: Ends the work at once.

    Raises:
        AccessDeniedError: Where the Hub wants a token, or another one.
        NotFoundOnHubError: Where there is no such repository.
        NetworkError: Where the Hub cannot be reached, or takes the bytes so slowly that they will never be there.
        HubError: Where it refuses in another way.
        DiskError: Where a file cannot be read, or is gone.
        Cancelled: Where the work is called off.
    """
    cancellation = cancellation or Cancellation()
    for file in order.files.values():
        if not file.is_file():
            raise DiskError(f"a file to upload to {order.repo_id} is gone: {file}")
    limit_s = _time_limit_s(order)
    with _child(endpoint) as child:
        timer = threading.Timer(limit_s, child.kill)
        timer.name = "reelstream-upload-limit"
        timer.start()
        try:
            with cancellation.on_cancel(child.kill):
                answer = _talk(child, {**_as_json(order), "endpoint": endpoint, "token": token})
        finally:
            timer.cancel()
            timer.join()
    cancellation.raise_if_cancelled()
    if answer is None:
        late = f"it was not done after {format_seconds(limit_s)}" if timer.finished.is_set() else "it ended too early"
        raise NetworkError(f"the upload to {order.repo_id} failed: {late}", "is the way to the Hub very slow?")
    if "error" in answer:
        raise _error_of(answer, order, endpoint)


def _time_limit_s(order: CommitOrder) -> float:
    size_bytes = 0
    for file in order.files.values():
        with contextlib.suppress(OSError):
            size_bytes += file.stat().st_size
    return _LEAST_LIMIT_S + size_bytes / _LEAST_BYTES_PER_S


def _as_json(order: CommitOrder) -> dict[str, Any]:
    plain = {each.name: getattr(order, each.name) for each in dataclasses.fields(order)}
    return {**plain, "files": {path: str(file) for path, file in order.files.items()}}


def _child(endpoint: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    if endpoint != _PUBLIC_HUB:
        # The client would not ask whether a Hub has Xet.
        environment["HF_HUB_DISABLE_XET"] = "1"
    return subprocess.Popen(
        [sys.executable, "-m", "reelstream.transport.upload_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        # A Ctrl-C of the terminal is for the parent, which then says what becomes of this.
        process_group=0,
    )


def _talk(child: subprocess.Popen[bytes], order: dict[str, Any]) -> dict[str, Any] | None:
    """Send the order; return the outcome, None where the child ended without one."""
    assert child.stdin is not None
    assert child.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(json.dumps(order).encode() + b"\n")
        child.stdin.flush()
    lines = child.stdout.read().splitlines()
    try:
        answer = json.loads(lines[-1])
    except (IndexError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


def _error_of(answer: dict[str, Any], order: CommitOrder, endpoint: str) -> Exception:
    said = without_secrets(str(answer.get("error")))
    status = answer.get("status")
    size_bytes = sum(file.stat().st_size for file in order.files.values() if file.is_file())
    subject = f"{order.repo_id} at {endpoint}"
    match answer.get("kind"):
        case "file":
            return DiskError(f"a file to upload to {subject} cannot be read: {said}")
        case "network":
            return NetworkError(f"{subject} could not be reached with {format_bytes(size_bytes)}: {said}")
    if status in {401, 403}:
        return AccessDeniedError(
            f"{subject} may not be written to ({status}: {said})",
            "`hf auth login` with a token that may write, or set HF_TOKEN",
        )
    if status == 404:
        return NotFoundOnHubError(f"there is no {order.kind} repository {subject} ({said})", "check its name")
    if isinstance(status, int) and (status >= 500 or status in {408, 412, 425, 429}):
        return NetworkError(f"{subject} did not take the upload ({status}: {said})")
    return HubError(f"{subject} refused the upload ({said})")


__all__ = ["Cancelled", "CommitOrder", "commit"]
