"""All archives of a dataset on disk: whether they fit, and fetching them with several connections."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from reelstream.cache import DiskBudget
from reelstream.cancel import Cancellation
from reelstream.clock import Clock, SystemClock
from reelstream.errors import BudgetTooSmallError, DiskError
from reelstream.indexes.sources import RangedFile
from reelstream.prefetch.downloads.files import (
    DownloadedFile,
    FileDownload,
    bytes_there,
    cost_bytes,
    file_name_of,
    is_whole,
)
from reelstream.telemetry import Telemetry, events
from reelstream.types import Archive, Repository
from reelstream.units import count, format_bytes

ARCHIVE_FOLDER = "archives"
_TELL_EVERY_S = 10.0
_STREAM_HINT = "leave streaming_mode at true: then some GB do"


class Downloads:
    """The archives of one dataset in `CACHE_DIR/archives`. Thread-safe, but for `fetch`.

    They stay there when the run ends: a later run of the same dataset finds them by their digests, and fetches nothing.
    They are counted in the disk budget of the runs that use them, and of no others; no run deletes them.

    Args:
        folder: Where they lie.
        archives: Which ones.
        repository: Their repository at its commit.
        open_file: Opens a file of the Hub.
        budget: The run's disk budget.
        connections: The most archives fetched at once.
        telemetry: Told how far the fetching is.
        clock: For the notices.
    """

    def __init__(
        self,
        folder: Path,
        archives: Sequence[Archive],
        repository: Repository,
        *,
        open_file: Callable[[Archive], RangedFile],
        budget: DiskBudget,
        connections: int,
        telemetry: Telemetry,
        clock: Clock | None = None,
    ) -> None:
        self._folder = folder
        self._budget = budget
        self._open_file = open_file
        self._connections = connections
        self._telemetry = telemetry
        self._clock = clock or SystemClock()
        # Archives of the same bytes are one file.
        self._archives = {file_name_of(archive, repository): archive for archive in archives}
        self._repository = repository
        names = hashlib.sha256("\n".join(sorted(self._archives)).encode()).hexdigest()
        # One account for one set of archives: who opens the same dataset twice in a run has it counted once.
        self._account = budget.account(f"{ARCHIVE_FOLDER} {names[:16]}")
        self._counted: set[str] = set()
        self._fetched_bytes = 0

    @property
    def total_bytes(self) -> int:
        """Bytes of all the archives."""
        return sum(archive.size_bytes for archive in self._archives.values())

    def claim(self, *, least_others_bytes: int, counted: bool = True) -> None:
        """Set the room of all archives aside, before anything is fetched, and count those that are there.

        Args:
            least_others_bytes: What the rest of the run needs at the least beside them.
            counted: Whether this process counts them, rather than another of the same node.

        Raises:
            BudgetTooSmallError: Where the disk budget cannot hold them; names one that can.
            DiskError: Where the disk has too little room, or the folder cannot be made.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            free_bytes = shutil.disk_usage(self._folder).free
        except OSError as error:
            raise DiskError(
                f"{self._folder} cannot be used for archives: {error.strerror or error}", "name another cache_dir"
            ) from error
        needed_bytes = sum(cost_bytes(archive, self._folder) for archive in self._archives.values())
        missing_bytes = self.total_bytes - self._there_bytes()
        self._refuse_unless_it_fits(needed_bytes, missing_bytes, free_bytes, least_others_bytes)
        if counted:
            self._account.set_aside(needed_bytes)
            # What is there in part is counted whole: it will be.
            self._counted = {name for name in self._archives if bytes_there(self._folder / name, self._archives[name])}
            self._account.resize(sum(cost_bytes(self._archives[name], self._folder) for name in self._counted))

    def fetch(self, cancellation: Cancellation) -> None:
        """Fetch what is missing, several archives at once; return when all are on disk.

        Call it from one thread. What another process is fetching is waited for.

        Raises:
            HubError: Where an archive cannot be had; those that are there stay.
            DiskError: Where one cannot be written.
            Cancelled: Where the work is called off.
        """
        progress = _Progress(
            list(self._archives.values()), self._there_bytes(), telemetry=self._telemetry, clock=self._clock
        )
        missing = [name for name, archive in self._archives.items() if not is_whole(self._folder / name, archive)]
        if not missing:
            progress.tell_all_there(self._folder)
            return
        workers_cancellation = Cancellation()
        with (
            cancellation.on_cancel(workers_cancellation.cancel),
            ThreadPoolExecutor(
                max_workers=min(self._connections, len(missing)), thread_name_prefix="reelstream-download"
            ) as workers,
        ):
            futures = [workers.submit(self._fetch_one, name, progress, workers_cancellation) for name in missing]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                # The block waits for the threads, which keep what they have written.
                workers_cancellation.cancel()
                raise
            finally:
                self._fetched_bytes += progress.fetched_bytes
        progress.tell_all_there(self._folder)

    def open(self, archive: Archive) -> DownloadedFile:
        """Return an archive that was fetched."""
        return DownloadedFile(archive, self._folder / file_name_of(archive, self._repository))

    def take_fetched_bytes(self) -> int:
        """Return the bytes that were fetched since this was last asked."""
        fetched_bytes, self._fetched_bytes = self._fetched_bytes, 0
        return fetched_bytes

    # ------------------------------------------------------------------ inside

    def _fetch_one(self, name: str, progress: _Progress, cancellation: Cancellation) -> None:
        cancellation.raise_if_cancelled()
        archive = self._archives[name]
        if name not in self._counted:
            # Before its first byte, all of it is counted.
            self._account.reserve(cost_bytes(archive, self._folder))
            self._counted.add(name)
        FileDownload(
            archive,
            self._folder / name,
            self._open_file(archive),
            on_bytes=progress.count,
            on_wait=lambda: self._tell(f"another process is fetching {archive.path}: waiting for it"),
        ).run(cancellation)

    def _there_bytes(self) -> int:
        return sum(bytes_there(self._folder / name, archive) for name, archive in self._archives.items())

    def _refuse_unless_it_fits(
        self, needed_bytes: int, missing_bytes: int, free_bytes: int, least_others_bytes: int
    ) -> None:
        what = f"streaming_mode is false, so {count(len(self._archives), 'archive')} ({format_bytes(self.total_bytes)})"
        # What another dataset of the run has counted of the same archives is counted once.
        available_bytes = self._budget.free_bytes + max(self._account.used_bytes, self._account.set_aside_bytes)
        if needed_bytes + least_others_bytes > available_bytes:
            smallest_bytes = self._budget.total_bytes - available_bytes + needed_bytes + least_others_bytes
            raise BudgetTooSmallError(
                f"{what} must lie on disk before the first step, and the disk budget is "
                f"{format_bytes(self._budget.total_bytes)}",
                f"set disk_budget to {-(-smallest_bytes // 10**6)}MB and what catalog, checkpoints and clips take, or "
                f"more; or {_STREAM_HINT}",
            )
        if missing_bytes + least_others_bytes > free_bytes:
            raise DiskError(
                f"{what} must lie on disk before the first step: {format_bytes(missing_bytes)} of them are not there "
                f"yet, and the disk of {self._folder} has {format_bytes(free_bytes)} free",
                f"free {format_bytes(missing_bytes + least_others_bytes - free_bytes)} there, name another cache_dir, "
                f"or {_STREAM_HINT}",
            )

    def _tell(self, message: str) -> None:
        self._telemetry.emit(events.Notice(message=message))


class _Progress:
    """How far the fetching is. Thread-safe; tells of it every ten seconds."""

    def __init__(self, archives: Sequence[Archive], there_bytes: int, *, telemetry: Telemetry, clock: Clock) -> None:
        self._lock = threading.Lock()
        self._telemetry = telemetry
        self._clock = clock
        self._num_archives = len(archives)
        self._total_bytes = sum(archive.size_bytes for archive in archives)
        self._there_bytes = there_bytes
        self._told_s = clock.monotonic()
        self.fetched_bytes = 0
        """Bytes that came."""

    def count(self, size_bytes: int) -> None:
        """Note bytes that are on disk now."""
        with self._lock:
            self.fetched_bytes += size_bytes
            now_s = self._clock.monotonic()
            if now_s - self._told_s < _TELL_EVERY_S:
                return
            self._told_s = now_s
            done_bytes = min(self._total_bytes, self._there_bytes + self.fetched_bytes)
        self._tell(
            f"downloading: {format_bytes(done_bytes)} of {format_bytes(self._total_bytes)} are on disk "
            f"({100 * done_bytes // self._total_bytes} %)"
        )

    def tell_all_there(self, folder: Path) -> None:
        """Say that all archives are on disk, and that they stay."""
        self._tell(
            f"{count(self._num_archives, 'archive')} ({format_bytes(self._total_bytes)}) on disk, "
            f"{format_bytes(self.fetched_bytes)} of that fetched now; they stay in {folder} until you delete them"
        )

    def _tell(self, message: str) -> None:
        self._telemetry.emit(events.Notice(message=message))
