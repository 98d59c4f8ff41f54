"""Files that are whole or absent, and that ask for room before each of their bytes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from reelstream.cache.budget import BLOCK_BYTES, allocated_bytes
from reelstream.errors import DiskError

_STEP_BYTES = 2**20
_PARTIAL_SUFFIX = ".partial"

Reserve = Callable[[int], None]
"""Called with a number of bytes before they are written; raises where there is no room for them."""


class PartialFile:
    """A file under a temporary name beside its target, until `complete` and `publish` make it durable and visible.

    Bytes are gathered and written in steps of 1 MiB. Before each, `reserve` is called with the growth in whole
    blocks, so that the sum of its calls is what the file takes on disk. Serves Arrow as a sink.
    """

    def __init__(self, target: Path, reserve: Reserve) -> None:
        self._target = target
        self._reserve = reserve
        self._path = target.with_name(f".{target.name}.{secrets.token_hex(8)}{_PARTIAL_SUFFIX}")
        self._pending = bytearray()
        self._size_bytes = 0
        with _translated_errors(target):
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self.closed = False

    def write(self, data: bytes) -> int:
        """Take bytes; write them once a step is full."""
        size_bytes = len(data)
        self._pending += data
        while len(self._pending) >= _STEP_BYTES:
            self._write_out(_STEP_BYTES)
        return size_bytes

    def tell(self) -> int:
        """Bytes taken so far."""
        return self._size_bytes + len(self._pending)

    def flush(self) -> None:
        """Do nothing: only whole steps are written before `complete`."""

    def close(self) -> None:
        """Do nothing: Arrow closes its sink, `complete` and `discard` end the file."""

    def complete(self) -> None:
        """Write the rest and make it durable, still under the temporary name."""
        while self._pending:
            self._write_out(min(_STEP_BYTES, len(self._pending)))
        with _translated_errors(self._target):
            os.fsync(self._file)
            self._end()

    def publish(self) -> None:
        """Put the completed file at its target, in place of what is there."""
        assert self.closed
        with _translated_errors(self._target):
            self._path.replace(self._target)

    def discard(self) -> None:
        """Remove what was written, if it was not published."""
        self._pending.clear()
        self._end()
        self._path.unlink(missing_ok=True)

    def _end(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self._file)

    def _write_out(self, size_bytes: int) -> None:
        growth_bytes = allocated_bytes(self._size_bytes + size_bytes) - allocated_bytes(self._size_bytes)
        if growth_bytes:
            self._reserve(growth_bytes)
        remaining = memoryview(bytes(self._pending[:size_bytes]))
        del self._pending[:size_bytes]
        self._size_bytes += size_bytes
        with _translated_errors(self._target):
            while remaining:
                remaining = remaining[os.write(self._file, remaining) :]


@contextlib.contextmanager
def partial_file(target: Path, reserve: Reserve) -> Iterator[PartialFile]:
    """Give a file to write `target` through; it is removed unless the block publishes it.

    Raises:
        DiskError: The disk is full, or the folder cannot be written to.
    """
    file = PartialFile(target, reserve)
    try:
        yield file
    finally:
        file.discard()


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make the folder if need be, and keep other processes that ask for the same out of it meanwhile.

    The lock is on the folder itself, so that no lock file is left behind. Partial files in it are then leftovers of
    killed processes, and are removed; folders made here and left empty are removed as well.
    """
    made = [missing for missing in folder.parents if not missing.exists()]
    descriptor = _lock(folder)
    try:
        remove_leftovers(folder)
        yield
        os.fsync(descriptor)
    finally:
        with contextlib.suppress(OSError):
            # Fails where the folder holds anything.
            for empty in (folder, *made):
                empty.rmdir()
        os.close(descriptor)


def _lock(folder: Path) -> int:
    while True:
        with _translated_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Whoever held it before may have removed it, left empty: then this is a lock on nothing.
        if folder.exists() and os.path.samestat(folder.stat(), os.fstat(descriptor)):
            return descriptor
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove the partial files in `folder`."""
    for leftover in folder.glob(f".*{_PARTIAL_SUFFIX}"):
        leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def _translated_errors(path: Path) -> Iterator[None]:
    """Raise the system's errors of this block as `DiskError`."""
    try:
        yield
    except OSError as error:
        is_full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        hint = "Free some space, or give" if is_full else "Give"
        raise DiskError(
            f"Cannot write {path}: {error.strerror or error}.", f"{hint} a cache folder that can be written to."
        ) from error


def size_on_disk(folder: Path) -> int:
    """Return what the folder and the files in it take on disk: as allocated, at least what was reserved for them."""
    statuses = [path.stat() for path in folder.iterdir()]
    # 512 is the unit of st_blocks whatever the file system's own; some count late, or keep small files elsewhere.
    return BLOCK_BYTES + sum(max(allocated_bytes(status.st_size), status.st_blocks * 512) for status in statuses)
