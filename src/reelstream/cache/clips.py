"""Clips on disk: reserved before the first byte, published by a rename, leased while in use, deleted after.

A clip's life: `try_reserve` reserves its size; `write` fills `clip-<n>.part` and, once it is whole, renames it; a
`Lease` holds it; `delete` removes it, at once or when its last lease ends. Whatever fails before the renaming leaves
nothing.

A clip that says in its name whose bytes it holds outlives a run that is killed: the next run takes such survivors
over, counts them from its start, adopts those that it wants and deletes the others; see `take_over`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from reelstream.cache.budget import Account, allocated_bytes, block_bytes_of
from reelstream.cache.names import HUB_FILE, ClipName, has_digest
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
    verified: bool = True
    """False for a survivor of another run whose bytes nobody has compared with its digest yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivor:
    """A whole clip that a killed run has left."""

    path: Path
    number: int
    """In its name, as in those of this run's own clips."""
    identity: str
    size_bytes: int


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
        self._survivors: dict[str, ClipFile] = {}
        self._used_bytes = 0
        self._limit_bytes: int | None = None
        self._next_number = 0

    @property
    def used_bytes(self) -> int:
        """Bytes reserved by this cache's whole and partly written clips; others may share its account."""
        with self._lock:
            return self._used_bytes

    @property
    def survivor_bytes(self) -> int:
        """Bytes reserved by survivors that nobody has adopted: they give way to whatever else is reserved."""
        with self._lock:
            return sum(clip.reserved_bytes for clip in self._survivors.values())

    def has_survivor(self, identity: str) -> bool:
        """Whether a killed run has left a clip that nobody has adopted."""
        with self._lock:
            return identity in self._survivors

    def cost_bytes(self, size_bytes: int) -> int:
        """Return what a clip of this size takes on disk."""
        return allocated_bytes(size_bytes, self._block_bytes)

    def try_reserve(self, size_bytes: int) -> bool:
        """Reserve the room of a clip that `write` is then called for; return whether there was room."""
        cost_bytes = self.cost_bytes(size_bytes)
        self._drop_beyond_limit(cost_bytes)
        if not self._account.try_reserve(cost_bytes):
            return False
        with self._lock:
            self._used_bytes += cost_bytes
        return True

    def keep_within(self, limit_bytes: int) -> None:
        """Have survivors give way, now and from here on, where clips would take more than this in all.

        Others share the disk budget with what they write themselves, which this budget's books do not see. That clips
        of this run stay below it is for the one who writes them.
        """
        self._limit_bytes = limit_bytes
        self._drop_beyond_limit(0)

    def _drop_beyond_limit(self, coming_bytes: int) -> None:
        if self._limit_bytes is not None:
            self._drop(max(0, self.used_bytes + coming_bytes - self._limit_bytes))

    def _release(self, size_bytes: int) -> None:
        with self._lock:
            self._used_bytes -= size_bytes
        self._account.release(size_bytes)

    def write(
        self,
        size_bytes: int,
        chunks: Iterable[bytes | memoryview],
        *,
        identity: str | None = None,
        digest: Callable[[], bytes | None] | None = None,
    ) -> ClipFile:
        """Write a clip whose room is reserved, and publish it; the reservation is its own from here on.

        Args:
            size_bytes: As given to `try_reserve`; exactly as many must come.
            chunks: The clip's bytes. Whatever iterating raises passes through, and leaves no file behind.
            identity: What a later run knows the clip by, see `clip_identity`; None where it shall not outlive this one.
            digest: Gives the digest of the bytes once all have passed: 16 bytes of SHA-256, or a CRC-32. A clip
                without one does not outlive the run either, since nobody could tell whether it is whole.

        Raises:
            DiskError: Where the file cannot be written.
        """
        number = self._take_number()
        clip = ClipFile(self._folder / str(ClipName(number=number)), size_bytes, self.cost_bytes(size_bytes))
        part = self._folder / str(ClipName(number=number, partial=True))
        try:
            self._fill(part, size_bytes, chunks)
            clip.path = self._folder / str(ClipName.of(number, identity, digest() if digest is not None else None))
            with _disk_errors(clip.path):
                part.rename(clip.path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            self._release(clip.reserved_bytes)
            raise
        with self._lock:
            self._clips.add(clip)
        return clip

    def _take_number(self) -> int:
        with self._lock:
            number = self._next_number
            self._next_number += 1
        return number

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
        self._release(clip.reserved_bytes)

    def clear(self, keep: Iterable[ClipFile] = ()) -> None:
        """Delete all clips but those of `keep`, which are not survivors; leased ones go when their leases end."""
        kept = set(keep)
        with self._lock:
            clips = self._clips - kept
            self._survivors.clear()
        for clip in clips:
            self.delete(clip)

    # ------------------------------------------------------------------ what killed runs left

    def take_over(self, survivors: Iterable[Survivor]) -> None:
        """Count clips of killed runs, which lie in the folder already, before anything else is written.

        What there is no room for is deleted, and so are second copies. Until it is adopted, a survivor gives way to
        whatever is reserved, by whichever account.
        """
        for survivor in survivors:
            clip = ClipFile(survivor.path, survivor.size_bytes, self.cost_bytes(survivor.size_bytes), verified=False)
            if survivor.identity in self._survivors or not self.try_reserve(clip.size_bytes):
                with _disk_errors(clip.path):
                    clip.path.unlink(missing_ok=True)
                continue
            with self._lock:
                self._clips.add(clip)
                self._survivors[survivor.identity] = clip
                self._next_number = max(self._next_number, survivor.number + 1)
        # Only now: survivors do not give way to one another.
        self._account.budget.give_way(self._give_way)

    def adopt(self, identity: str) -> ClipFile | None:
        """Make the survivor of this identity a clip of this run; None where there is none.

        Its bytes are not looked at yet: `verify` it before its first use.
        """
        with self._lock:
            return self._survivors.pop(identity, None)

    def drop_survivors(self) -> int:
        """Delete the survivors that nobody has adopted; return the bytes that they took."""
        self._account.budget.stop_giving_way(self._give_way)
        return self._drop(None)

    def verify(self, clip: ClipFile) -> bool:
        """Return whether a clip's bytes are those that its name promises; what this run wrote itself is true.

        A survivor is read from front to back the first time, hence call this without holding a lock. One that is not
        true shall be deleted, and fetched again.
        """
        if not clip.verified:
            name = ClipName.parse(clip.path.name)
            assert name is not None
            assert name.digest is not None
            clip.verified = has_digest(clip.path, name.digest)
        return clip.verified

    def _give_way(self, size_bytes: int) -> None:
        self._drop(size_bytes)

    def _drop(self, size_bytes: int | None) -> int:
        """Delete survivors, the last first, until they make up a size; all of them where it is None."""
        dropped_bytes = 0
        while size_bytes is None or dropped_bytes < size_bytes:
            with self._lock:
                if not self._survivors:
                    break
                _, clip = self._survivors.popitem()
            self.delete(clip)
            dropped_bytes += clip.reserved_bytes
        return dropped_bytes

    def check(self) -> list[str]:
        """Compare the books with the disk; return what disagrees, nothing where all is well.

        Call it while no clip is being written.
        """
        with self._lock:
            booked = {clip.path.name: clip for clip in self._clips}
        found = {entry.name: entry.stat() for entry in self._folder.iterdir() if entry.name != HUB_FILE}
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
            problems.append(f"clips reserve {reserved_bytes} bytes, {self.used_bytes} are booked")
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
