"""One downloaded archive: how it is named, fetched so that it is whole or not there, and read.

```
CACHE_DIR/
└── archives/
    ├── sha256-<64 hex digits>          a whole archive, by the digest that the Hub names for it
    ├── place-<64 hex digits>           one that the Hub names no digest of, by repository, commit and path
    └── <either name>.part              one that is being fetched: locked (flock) by whoever fetches it
```

What a killed run has left of a `.part` is gone on with at its end, by whichever start comes next. The lock is the
kernel's and dies with the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from reelstream.cache.budget import allocated_bytes, block_bytes_of
from reelstream.cancel import Cancellation
from reelstream.durable import force_to_disk
from reelstream.errors import DiskError, HubError
from reelstream.indexes.sources import RangedFile
from reelstream.types import Archive, Repository

_CHUNK_BYTES = 1 << 18
_LOCK_POLL_S = 1.0
"""A lock that another process holds wakes nobody when it is let go: it is asked for again this often."""


def file_name_of(archive: Archive, repository: Repository) -> str:
    """Return what an archive's file is called on disk: the same for the same bytes, as far as the Hub tells."""
    if archive.file.sha256 is not None:
        return f"sha256-{archive.file.sha256}"
    place = f"{repository.repo_id}\n{repository.commit}\n{archive.path}"
    return f"place-{hashlib.sha256(place.encode('utf-8', 'surrogatepass')).hexdigest()}"


class DownloadedFile:
    """A whole archive on disk, read as one of the Hub is. Any number of threads may read it at once.

    Attributes:
        path: Path in the repository.
        size_bytes: Its size.
    """

    def __init__(self, archive: Archive, file: Path) -> None:
        self.path = archive.path
        self.size_bytes = archive.size_bytes
        self._file = file

    def read(self, first_byte: int, end_byte: int, cancellation: Cancellation) -> Iterator[bytes]:
        """Yield the bytes [first_byte, end_byte), in order, in chunks of at most 256 KiB.

        Raises:
            DiskError: Where the file is gone, was cut short, or cannot be read.
            Cancelled: Where `cancellation` is set.
        """
        position = first_byte
        with _disk_errors(self._file, "read"), self._file.open("rb", buffering=0) as file:
            file.seek(first_byte)
            while position < end_byte:
                cancellation.raise_if_cancelled()
                chunk = file.read(min(_CHUNK_BYTES, end_byte - position))
                if not chunk:
                    raise DiskError(
                        f"the downloaded archive {self.path} ends at byte {position} of {self.size_bytes}: "
                        f"{self._file} was changed",
                        "delete that file and start again: it is fetched anew",
                    )
                position += len(chunk)
                yield chunk


class FileDownload:
    """Fetches one archive to disk.

    Args:
        archive: Which one.
        target: Its file; there only once it is whole and, where the Hub names a digest, verified.
        remote: Gives its bytes.
        on_bytes: Called with the size of each chunk that is on disk.
        on_wait: Called once where another process is fetching it.
    """

    def __init__(
        self,
        archive: Archive,
        target: Path,
        remote: RangedFile,
        *,
        on_bytes: Callable[[int], None],
        on_wait: Callable[[], None],
    ) -> None:
        self._archive = archive
        self._target = target
        self._part = part_of(target)
        self._remote = remote
        self._on_bytes = on_bytes
        self._on_wait = on_wait

    def run(self, cancellation: Cancellation) -> None:
        """Fetch what is missing of it.

        Raises:
            HubError: Where it cannot be had, or what comes is not what the Hub names.
            DiskError: Where it cannot be written.
            Cancelled: Where the work is called off; what is on disk stays, to be gone on with.
        """
        with _disk_errors(self._part, "written"), self._locked(cancellation) as descriptor:
            if descriptor is None:
                return
            # Bytes of another run may have been torn by a power failure: those are fetched again, once.
            if not self._complete(descriptor, cancellation):
                os.ftruncate(descriptor, 0)
                if not self._complete(descriptor, cancellation):
                    os.ftruncate(descriptor, 0)
                    raise HubError(
                        f"the archive {self._archive.path} came twice with other bytes than the Hub names for it",
                        "a proxy on the way may have changed it; else tell its publisher",
                    )
            os.fsync(descriptor)
            self._part.rename(self._target)
            force_to_disk(self._target.parent)

    def _complete(self, descriptor: int, cancellation: Cancellation) -> bool:
        """Append what is missing; return whether the whole has the digest that the Hub names, or it names none."""
        digest = hashlib.sha256()
        size_bytes = self._archive.size_bytes
        there_bytes = os.fstat(descriptor).st_size
        if there_bytes > size_bytes:
            os.ftruncate(descriptor, 0)
            there_bytes = 0
        for position in range(0, there_bytes, _CHUNK_BYTES):
            cancellation.raise_if_cancelled()
            digest.update(os.pread(descriptor, min(_CHUNK_BYTES, there_bytes - position), position))
        os.lseek(descriptor, there_bytes, os.SEEK_SET)
        for chunk in self._remote.read(there_bytes, size_bytes, cancellation):
            digest.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(descriptor, view) :]
            self._on_bytes(len(chunk))
        return self._archive.file.sha256 in (None, digest.hexdigest())

    @contextlib.contextmanager
    def _locked(self, cancellation: Cancellation) -> Iterator[int | None]:
        """Give the locked part, made if need be; None where the whole archive is there."""
        while not is_whole(self._target, self._archive):
            descriptor = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            try:
                self._lock(descriptor, cancellation)
                if _is_same(descriptor, self._part):
                    yield descriptor
                    return
                # Whoever had it has made it whole meanwhile.
            finally:
                os.close(descriptor)
        yield None

    def _lock(self, descriptor: int, cancellation: Cancellation) -> None:
        told = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    self._on_wait()
                    told = True
                cancellation.event.wait(_LOCK_POLL_S)
                cancellation.raise_if_cancelled()
            else:
                return


def part_of(target: Path) -> Path:
    """Return where an archive lies while it is fetched."""
    return target.with_name(f"{target.name}.part")


def is_whole(target: Path, archive: Archive) -> bool:
    """Return whether an archive is on disk: it was verified before it got its name."""
    try:
        return target.stat().st_size == archive.size_bytes
    except OSError:
        return False


def bytes_there(target: Path, archive: Archive) -> int:
    """Return how many bytes of an archive are on disk, whole or in part."""
    if is_whole(target, archive):
        return archive.size_bytes
    try:
        return min(part_of(target).stat().st_size, archive.size_bytes)
    except OSError:
        return 0


def cost_bytes(archive: Archive, folder: Path) -> int:
    """Return what an archive takes on the disk that holds `folder`."""
    return allocated_bytes(archive.size_bytes, block_bytes_of(folder))


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _disk_errors(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (DiskError, HubError):
        raise
    except OSError as error:
        raise DiskError(
            f"{path} cannot be {what}: {error.strerror or error}",
            "free some space or check the folder's permissions, then start again: what was fetched stays",
        ) from error
