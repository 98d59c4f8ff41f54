"""A folder of a run's own, locked while the run lives, taken over by the next start when it did not end well.

```
CACHE_DIR/
└── runs/
    └── run-<12 hex digits>/                locked (flock on the folder itself) as long as its run lives
        ├── clip-<n>                        a whole clip
        ├── clip-<n>-<identity>-<digest>    a whole clip that another run can know again
        ├── clip-<n>.part                   a clip that is being written
        └── hub.json                        what the processes of the machine share of the Hub (see transport)
```

The lock is the kernel's and dies with the process, so no lock file is ever left behind. Only files with these very
names are moved or deleted; anything else in the folder is somebody else's and stays, folder and all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from reelstream.cache.clips import Survivor
from reelstream.cache.names import HUB_FILE, ClipName
from reelstream.errors import DiskError

_RUN_NAME = re.compile(r"run-[0-9a-f]{12}(?:-(?P<number>[0-9]+))?")


class RunFolder:
    """A new, locked folder below `cache_dir`; what dead runs have left beside it is reclaimed.

    Use it as a context manager; leaving it deletes the folder.

    Args:
        cache_dir: Several runs may share it.
        adopt: Whether clips of dead runs that can be known again are moved into this folder instead of being deleted;
            `ClipCache.take_over` counts them, and must come before anything else is written.
        number: Which one this is of the processes that share `cache_dir`; it takes over what its like have left.
        of: How many these are; those of a larger number are taken over by number mod `of`.

    Raises:
        DiskError: Where the folder cannot be made or locked.
    """

    def __init__(self, cache_dir: Path, *, adopt: bool = False, number: int = 0, of: int = 1) -> None:
        self._runs = cache_dir / "runs"
        self._made: list[Path] = []
        self._descriptor = -1
        self.reclaimed_bytes = 0
        """What the files took that were deleted at the start."""
        self.survivors: list[Survivor] = []
        """Clips of dead runs, in this folder now, oldest run first; none unless `adopt`."""
        try:
            self._made = _make_folders(self._runs)
            dead = [folder for folder in _run_folders(self._runs) if _number_of(folder) % of == number]
            self.path, self._descriptor = _make_locked(self._runs, number)
            for folder in dead:
                with _locked_if_dead(folder) as is_dead:
                    if is_dead:
                        self.survivors += self._move_clips(folder) if adopt else []
                        self.reclaimed_bytes += _delete_ours(folder)
        except OSError as error:
            self.close()
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

    def _move_clips(self, folder: Path) -> list[Survivor]:
        """Move the clips of a dead run that say whose bytes they hold into this folder, under numbers of their own."""
        moved: list[Survivor] = []
        for path, name in sorted(_clips_in(folder), key=lambda clip: clip[1].number):
            status = path.lstat()
            if name.identity is None or not stat.S_ISREG(status.st_mode):
                continue
            number = len(self.survivors) + len(moved)
            own_path = self.path / str(ClipName.of(number, name.identity, name.digest))
            path.rename(own_path)
            moved.append(Survivor(path=own_path, number=number, identity=name.identity, size_bytes=status.st_size))
        return moved


def _make_folders(path: Path) -> list[Path]:
    """Make a folder with those above it; return the ones that were not there, the uppermost first."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def _run_folders(runs: Path) -> list[Path]:
    """Return the folders of runs, living or dead, the oldest first."""
    found = []
    for entry in runs.iterdir():
        # One that ends at this moment is gone already.
        with contextlib.suppress(FileNotFoundError):
            if _RUN_NAME.fullmatch(entry.name) and not entry.is_symlink():
                found.append((entry.lstat().st_mtime_ns, entry))
    return [entry for _, entry in sorted(found)]


def _number_of(folder: Path) -> int:
    match = _RUN_NAME.fullmatch(folder.name)
    assert match is not None, f"{folder} is no run's"
    return int(match["number"] or 0)


def _make_locked(runs: Path, number: int) -> tuple[Path, int]:
    while True:
        path = runs / (f"run-{secrets.token_hex(6)}" + (f"-{number}" if number else ""))
        path.mkdir(mode=0o700)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        # Between mkdir and flock another start may have taken the folder for a leftover: then it is gone or locked.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return path, descriptor
        os.close(descriptor)


@contextlib.contextmanager
def _locked_if_dead(folder: Path) -> Iterator[bool]:
    """Lock a run's folder, so that no other start takes it over as well; False where its run lives."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _clips_in(folder: Path) -> Iterator[tuple[Path, ClipName]]:
    try:
        entries = list(folder.iterdir())
    except FileNotFoundError:
        # Another start has taken it over in the meantime.
        return
    for entry in entries:
        name = ClipName.parse(entry.name)
        if name is not None and not (entry.is_dir() and not entry.is_symlink()):
            yield entry, name


def _delete_ours(folder: Path) -> int:
    """Delete a run's files, and the folder where nothing else is in it; return the bytes that they took."""
    freed_bytes = 0
    for path in [*(clip for clip, _ in _clips_in(folder)), folder / HUB_FILE]:
        # Not there, or (somebody's folder of that name) not ours.
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            freed_bytes += path.lstat().st_blocks * 512
            path.unlink()
    # Fails where somebody else's file is inside: then the folder is theirs now.
    with contextlib.suppress(OSError):
        folder.rmdir()
    return freed_bytes
