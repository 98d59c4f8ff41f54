"""Clips on disk: reserved before the first byte, published by a rename, leased while in use, deleted after.

A clip's life: `write` reserves its size and fills `clip-<n>.part`; `publish` renames it to `clip-<n>`; a `Lease` holds
it; `delete` removes it, at once or when its last lease ends. Whatever fails before `publish` leaves nothing.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from reelstream.cache.budget import Account, allocated_bytes, block_bytes_of
from reelstream.errors import DiskError


@dataclass(eq=False, slots=True)
class ClipFile:
    """One clip in the cache."""

    path: Path
    size_bytes: int
    """As its archive says, and as it is on disk once whole."""
    reserved_bytes: int
    """As the file system allocates it."""
    leases: int = 0
    deleted: bool = False
    """Asked to be deleted; it goes when its last lease ends."""


class Lease:
    """A consumer's hold on a clip: the file stays until the lease ends. A context manager."""

    def __init__(self, cache: ClipCache, clip: ClipFile) -> None:
        self._cache = cache
        self._clip: ClipFile | None = clip

    @property
    def path(self) -> Path:
        """The clip's file."""
        assert self._clip is not None, "the lease has ended"
        return self._clip.path

    def end(self) -> None:
        """Let go of the clip; a second call does nothing."""
        clip, self._clip = self._clip, None
        if clip is not None:
            self._cache._unlease(clip)  # noqa: SLF001 - the cache's other half

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


class ClipCache:
    """The clips of one run, in its folder, inside its account. Thread-safe.

    Args:
        folder: The run's own, locked folder.
        account: Where the clips' bytes are reserved.
    """

    def __init__(self, folder: Path, account: Account) -> None:
        self._folder = folder
        self._account = account
        self._block_bytes = block_bytes_of(folder)
        self._lock = threading.Lock()
        self._clips: set[ClipFile] = set()
        self._next_number = 0

    @property
    def used_bytes(self) -> int:
        """Bytes reserved by whole and partly written clips."""
        return self._account.used_bytes

    def cost_bytes(self, size_bytes: int) -> int:
        """Return what a clip of this size takes on disk."""
        return allocated_bytes(size_bytes, self._block_bytes)

    def try_reserve(self, size_bytes: int) -> bool:
        """Reserve the room of a clip that `write` is then called for; return whether there was room."""
        return self._account.try_reserve(self.cost_bytes(size_bytes))

    def write(self, size_bytes: int, chunks: Iterable[bytes | memoryview]) -> ClipFile:
        """Write a clip whose room is reserved, and publish it; the reservation is its own from here on.

        Args:
            size_bytes: As given to `try_reserve`; exactly as many must come.
            chunks: The clip's bytes. Whatever iterating raises passes through, and leaves no file behind.

        Raises:
            DiskError: Where the file cannot be written.
        """
        with self._lock:
            number = self._next_number
            self._next_number += 1
        clip = ClipFile(self._folder / f"clip-{number}", size_bytes, self.cost_bytes(size_bytes))
        part = clip.path.with_name(clip.path.name + ".part")
        try:
            self._fill(part, size_bytes, chunks)
            with _disk_errors(clip.path):
                part.rename(clip.path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            self._account.release(clip.reserved_bytes)
            raise
        with self._lock:
            self._clips.add(clip)
        return clip

    def _fill(self, part: Path, size_bytes: int, chunks: Iterable[bytes | memoryview]) -> None:
        written_bytes = 0
        with _disk_errors(part):
            file = part.open("xb", buffering=0)
        with file:
            for chunk in chunks:
                assert written_bytes + len(chunk) <= size_bytes, "more bytes than were reserved"
                with _disk_errors(part):
                    # An unbuffered write may take less than it is given.
                    view = memoryview(chunk)
                    while view:
                        view = view[file.write(view) :]
                written_bytes += len(chunk)
        assert written_bytes == size_bytes, "fewer bytes than were reserved"

    def lease(self, clip: ClipFile) -> Lease:
        """Hold a clip that is not deleted."""
        with self._lock:
            assert not clip.deleted, f"{clip.path.name} is deleted"
            clip.leases += 1
        return Lease(self, clip)

    def _unlease(self, clip: ClipFile) -> None:
        with self._lock:
            clip.leases -= 1
            gone = clip.deleted and clip.leases == 0
        if gone:
            self._remove(clip)

    def delete(self, clip: ClipFile) -> None:
        """Delete a clip, at once or when its last lease ends; a second call does nothing."""
        with self._lock:
            if clip.deleted:
                return
            clip.deleted = True
            gone = clip.leases == 0
        if gone:
            self._remove(clip)

    def _remove(self, clip: ClipFile) -> None:
        # Room is given back only once the file is gone: the budget holds at every instant.
        with _disk_errors(clip.path):
            clip.path.unlink(missing_ok=True)
        with self._lock:
            self._clips.remove(clip)
        self._account.release(clip.reserved_bytes)

    def clear(self) -> None:
        """Delete all clips; leased ones go when their leases end."""
        with self._lock:
            clips = list(self._clips)
        for clip in clips:
            self.delete(clip)

    def check(self) -> list[str]:
        """Compare the books with the disk; return what disagrees, nothing where all is well.

        Call it while no clip is being written.
        """
        with self._lock:
            booked = {clip.path.name: clip for clip in self._clips}
        found = {entry.name: entry.stat() for entry in self._folder.iterdir()}
        problems = [f"{name} is booked and not on disk" for name in sorted(booked.keys() - found.keys())]
        problems += [f"{name} is on disk and not booked" for name in sorted(found.keys() - booked.keys())]
        for name in sorted(booked.keys() & found.keys()):
            clip, status = booked[name], found[name]
            if status.st_size != clip.size_bytes:
                problems.append(f"{name} has {status.st_size} bytes on disk, {clip.size_bytes} in the books")
            if status.st_blocks * 512 > clip.reserved_bytes:
                problems.append(f"{name} takes {status.st_blocks * 512} bytes, {clip.reserved_bytes} are reserved")
        reserved_bytes = sum(clip.reserved_bytes for clip in booked.values())
        if reserved_bytes != self.used_bytes:
            problems.append(f"clips reserve {reserved_bytes} bytes, their account says {self.used_bytes}")
        return problems


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{path} cannot be written: {error.strerror or error}",
            "free some space or check the folder's permissions, then start again with --resume",
        ) from error
