"""The files of indexes and learned cuts in one folder: whole or absent, whoever else uses the folder.

```
CACHE_DIR/indexes/
├── <SHA-256 of the archive>.reelindex                 a complete index; see docs/reference/archive-index.md
├── <SHA-256 of the archive>@<first byte>.reelcut      a learned cut; see `cut_file`
└── .<name>.<16 hex digits>.partial                    one being written; the folder is locked (shared) meanwhile
```

Several runs may share the folder. A file may vanish or appear at any time; only files of these names are deleted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reelstream.archive.seek.index_format import SUFFIX as INDEX_SUFFIX
from reelstream.cache import allocated_bytes
from reelstream.cache.budget import BLOCK_BYTES, block_bytes_of
from reelstream.errors import DiskError

CUT_SUFFIX = ".reelcut"

# An index is named by SHA-256, or by size and the digest of a tag.
_NAME = re.compile(
    rf"^(?P<stem>(?:[0-9]+-)?[0-9a-f]{{64}})(?:{re.escape(INDEX_SUFFIX)}|@(?P<first_byte>[0-9]+){re.escape(CUT_SUFFIX)})$"
)
_PARTIAL_NAME = re.compile(r"^\..+\.[0-9a-f]{16}\.partial$")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFile:
    """An index or a learned cut on disk."""

    path: Path
    stem: str
    """Names the archive."""
    first_byte: int | None
    """Of a learned cut; None for an index."""
    disk_bytes: int
    """What it takes on disk, at least what was reserved for it."""
    used_ns: int
    """When it was last written or used."""


def cut_name(stem: str, first_byte: int) -> str:
    """Return the name of a learned cut's file."""
    return f"{stem}@{first_byte}{CUT_SUFFIX}"


def is_kept_name(name: str) -> bool:
    """Whether a file of this name is an index or a learned cut, and lies in the folder itself."""
    return _NAME.fullmatch(name) is not None


def kept_files(folder: Path) -> list[KeptFile]:
    """Return the files in a folder, by name; none where there is no folder.

    Raises:
        DiskError: Where the folder cannot be listed.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unusable(folder, error) from error
    return [file for name in names if (file := _kept_file(folder / name)) is not None]


def _kept_file(path: Path) -> KeptFile | None:
    match = _NAME.match(path.name)
    if match is None:
        return None
    try:
        status = path.stat()
    except OSError:  # another run has removed it
        return None
    first_byte = match["first_byte"]
    return KeptFile(
        path=path,
        stem=match["stem"],
        first_byte=None if first_byte is None else int(first_byte),
        # Some file systems count late, or keep small files elsewhere.
        disk_bytes=max(allocated_bytes(status.st_size), status.st_blocks * 512),
        used_ns=status.st_mtime_ns,
    )


def plan_removals(candidates: Sequence[KeptFile], surplus_bytes: int) -> list[KeptFile] | None:
    """Return the first files that free so many bytes together; None where all of them would not."""
    removed: list[KeptFile] = []
    for file in candidates:
        if surplus_bytes <= 0:
            break
        removed.append(file)
        surplus_bytes -= file.disk_bytes
    return removed if surplus_bytes <= 0 else None


def disk_bytes_of(folder: Path, size_bytes: int) -> int:
    """Return what a file of this size takes in a folder, which need not be there yet."""
    while not folder.exists():
        folder = folder.parent
    return allocated_bytes(size_bytes, block_bytes_of(folder))


def folder_bytes(folder: Path) -> int:
    """Return what the folder itself takes, which grows with its names."""
    try:
        return max(BLOCK_BYTES, folder.stat().st_blocks * 512)
    except OSError:
        return BLOCK_BYTES


def write_file(path: Path, content: bytes, *, durable: bool) -> None:
    """Write a file so that it is there as a whole or not at all, in place of what is there.

    Args:
        path: The file; its folder is made if need be.
        content: All of it.
        durable: Whether it must outlast a crash of the machine. Without, such a crash may leave a torn one.

    Raises:
        DiskError: Where it cannot be written; nothing is left then.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent, fcntl.LOCK_SH) as descriptor:
            try:
                with partial.open("xb") as file:
                    file.write(content)
                    file.flush()
                    if durable:
                        os.fsync(file.fileno())
                partial.replace(path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            if durable:
                os.fsync(descriptor)
    except OSError as error:
        raise DiskError(
            f"{path} cannot be written: {error.strerror or error}", "make room, or choose another cache folder"
        ) from error


def touch_file(path: Path) -> None:
    """Note that a file is used now; others are removed before it."""
    with contextlib.suppress(OSError):
        os.utime(path)


def remove_file(path: Path) -> None:
    """Remove a file, if it is still there and can be removed."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes were writing; nothing where somebody is writing now."""
    with contextlib.suppress(OSError), _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
        for entry in os.scandir(folder):
            if _PARTIAL_NAME.match(entry.name):
                remove_file(Path(entry.path))


@contextlib.contextmanager
def _locked(folder: Path, operation: int) -> Iterator[int]:
    """Lock the folder itself, so that no lock file is left behind."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, operation)
        yield descriptor
    finally:
        os.close(descriptor)


def _unusable(folder: Path, error: OSError) -> DiskError:
    return DiskError(
        f"the folder of archive indexes {folder} cannot be used: {error.strerror or error}",
        "choose a cache folder that you may write to",
    )
