"""A folder of a run's own, locked while the run lives, reclaimed by the next start when it did not end well.

```
CACHE_DIR/
└── runs/
    └── run-<12 hex digits>/    locked (flock on the folder itself) as long as its run lives
        ├── clip-<n>            a whole clip
        └── clip-<n>.part       a clip that is being written
```

The lock is the kernel's and dies with the process, so no lock file is ever left behind. Only files with these very
names are deleted; anything else in the folder is somebody else's and stays, folder and all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from pathlib import Path
from types import TracebackType
from typing import Self

from reelstream.errors import DiskError

_RUN_NAME = re.compile(r"^run-[0-9a-f]{12}$")
_OUR_FILE = re.compile(r"^clip-[0-9]+(\.part)?$")


class RunFolder:
    """A new, locked folder below `cache_dir`; leftovers of dead runs beside it are reclaimed first.

    Use it as a context manager; leaving it deletes the folder.

    Raises:
        DiskError: Where the folder cannot be made or locked.
    """

    def __init__(self, cache_dir: Path) -> None:
        self._runs = cache_dir / "runs"
        self._made: list[Path] = []
        try:
            self._made = _make_folders(self._runs)
            self.reclaimed_bytes = sum(_reclaim(folder) for folder in _run_folders(self._runs))
            self.path, self._descriptor = _make_locked(self._runs)
        except OSError as error:
            raise DiskError(
                f"the cache folder {cache_dir} cannot be used: {error.strerror or error}",
                "name one that you may write to by cache_dir",
            ) from error

    def close(self) -> None:
        """Delete our files and the folder, and release the lock; a second call does nothing."""
        if self._descriptor < 0:
            return
        _delete_ours(self.path)
        os.close(self._descriptor)
        self._descriptor = -1
        # Leave no empty folders where there were none; others may be using them.
        for folder in {self._runs: None, **dict.fromkeys(reversed(self._made))}:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _make_folders(path: Path) -> list[Path]:
    """Make a folder with those above it; return the ones that were not there, the uppermost first."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def _run_folders(runs: Path) -> list[Path]:
    return sorted(entry for entry in runs.iterdir() if _RUN_NAME.match(entry.name) and not entry.is_symlink())


def _make_locked(runs: Path) -> tuple[Path, int]:
    while True:
        path = runs / f"run-{secrets.token_hex(6)}"
        path.mkdir(mode=0o700)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        # Between mkdir and flock another start may have taken the folder for a leftover: then it is gone or locked.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return path, descriptor
        os.close(descriptor)


def _reclaim(folder: Path) -> int:
    """Delete a dead run's files; return the bytes that they took. A living run's folder is left alone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _delete_ours(folder)
    except BlockingIOError:
        return 0
    finally:
        os.close(descriptor)


def _delete_ours(folder: Path) -> int:
    freed_bytes = 0
    with contextlib.suppress(FileNotFoundError):
        for entry in folder.iterdir():
            if _OUR_FILE.match(entry.name) and not entry.is_dir():
                freed_bytes += entry.lstat().st_blocks * 512
                entry.unlink(missing_ok=True)
        # Fails where somebody else's file is inside: then the folder is theirs now.
        with contextlib.suppress(OSError):
            folder.rmdir()
    return freed_bytes
