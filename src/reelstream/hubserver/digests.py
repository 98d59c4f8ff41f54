"""Digests of files, computed once and remembered beside the repositories.

The memory is one JSON file in the served folder, hidden, so outside of every repository:

```
{"version": 1, "digests": {"org/name/path": [size_bytes, mtime_ns, sha256, git_oid or null], ...}}
```

A served folder that cannot be written to is served all the same; its digests are then computed at each start.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from reelstream.cancel import Cancellation
from reelstream.hubserver.git_objects import blob_oid
from reelstream.hubserver.large_files import is_large

MEMORY_NAME = ".reelstream-digests.json"
_VERSION = 1
_BLOCK_BYTES = 1 << 20
_ATTEMPTS = 3


class Digest(NamedTuple):
    """A file's digests, and the state of the file that they belong to."""

    size_bytes: int
    mtime_ns: int
    sha256: str
    git_oid: str | None
    """The id of git's blob, of files that are not large."""


class DigestMemory:
    """Remembers the digest of each file as long as size and modification time stay the same.

    May be used from several threads.

    Args:
        root: The served folder.
    """

    def __init__(self, root: Path) -> None:
        self._file = root / MEMORY_NAME
        self._digests: dict[str, Digest] = {}
        self._lock = threading.Lock()
        self._changed = False

    def load(self) -> None:
        """Read what an earlier server left; what cannot be read counts as nothing."""
        with contextlib.suppress(OSError, ValueError, TypeError, LookupError, AttributeError):
            document = json.loads(self._file.read_bytes())
            if document.get("version") == _VERSION:
                self._digests = {name: Digest(*fields) for name, fields in document["digests"].items()}

    def get(self, name: str, size_bytes: int, mtime_ns: int) -> Digest | None:
        """Return the digest of the file `name` (`org/name/path`) in this state, where it is known."""
        known = self._digests.get(name)
        return known if known is not None and known[:2] == (size_bytes, mtime_ns) else None

    def put(self, name: str, digest: Digest) -> None:
        """Remember a digest."""
        with self._lock:
            self._digests[name] = digest
            self._changed = True

    def keep_only(self, repo_id: str, paths: Collection[str]) -> None:
        """Forget the files of a repository that it holds no longer."""
        prefix = f"{repo_id}/"
        with self._lock:
            gone = [name for name in self._digests if name.startswith(prefix) and name[len(prefix) :] not in paths]
            for name in gone:
                del self._digests[name]
            self._changed |= bool(gone)

    def save(self) -> None:
        """Write the memory in one piece, where it changed and where the folder lets us."""
        with self._lock:
            if not self._changed:
                return
            self._changed = False
            text = json.dumps({"version": _VERSION, "digests": self._digests}, ensure_ascii=False)
            with contextlib.suppress(OSError):
                _replace(self._file, text.encode())


def compute_digest(file: Path, path: str, cancellation: Cancellation) -> Digest:
    """Read a file and return its digests, with the state in which it was read.

    Args:
        file: Where it lies.
        path: Its path in the repository, which tells whether it is large.
        cancellation: Ends the work early, with `Cancelled`.

    Raises:
        OSError: Where it cannot be read.
    """
    for _ in range(_ATTEMPTS):
        with file.open("rb", buffering=0) as stream:
            before = os.fstat(stream.fileno())
            sha256, content = hashlib.sha256(), bytearray()
            keep = not is_large(path, before.st_size)
            for block in _blocks(stream.fileno(), cancellation):
                sha256.update(block)
                if keep:
                    content += block
            after = os.fstat(stream.fileno())
        if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
            break
    # A file that never rests is served as it was read last; the next request looks again.
    git_oid = blob_oid(bytes(content)) if keep else None
    return Digest(before.st_size, before.st_mtime_ns, sha256.hexdigest(), git_oid)


def _blocks(descriptor: int, cancellation: Cancellation) -> Iterator[bytes]:
    while block := os.read(descriptor, _BLOCK_BYTES):
        cancellation.raise_if_cancelled()
        yield block


def _replace(target: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f"{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
