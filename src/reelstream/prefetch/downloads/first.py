"""Downloading first, as a session does it: once, by one rank of each node, before the first epoch."""

from __future__ import annotations

from collections.abc import Callable

from reelstream.cache import DiskBudget
from reelstream.cancel import Cancellation
from reelstream.indexes.sources import RangedFile
from reelstream.prefetch.downloads.archives import ARCHIVE_FOLDER, Downloads
from reelstream.prefetch.options import StreamOptions
from reelstream.prefetch.together import Together
from reelstream.telemetry import Telemetry
from reelstream.types import Archive, Repository


class DownloadFirst:
    """The archives of a session whose options say `streaming_mode: false`.

    Args:
        downloads: The archives, their room claimed.
        together: The ranks; the first one of a node fetches, the others read what it has fetched.
    """

    def __init__(self, downloads: Downloads, together: Together) -> None:
        self._downloads = downloads
        self._together = together
        self._cancellation = Cancellation()
        self.is_done = False
        """Whether all archives are on disk."""

    @classmethod
    def claimed(
        cls,
        archives: list[Archive],
        repository: Repository,
        options: StreamOptions,
        *,
        open_file: Callable[[Archive], RangedFile],
        budget: DiskBudget,
        least_others_bytes: int,
        together: Together,
        telemetry: Telemetry,
    ) -> DownloadFirst | None:
        """Set the room of all archives aside where they shall lie on disk; return None where they are streamed.

        Raises:
            BudgetTooSmallError: Where the disk budget cannot hold them.
            DiskError: Where the disk cannot.
        """
        if options.streaming_mode:
            return None
        downloads = Downloads(
            options.cache_dir / ARCHIVE_FOLDER,
            archives,
            repository,
            open_file=open_file,
            budget=budget,
            connections=options.connections,
            telemetry=telemetry,
        )
        downloads.claim(least_others_bytes=least_others_bytes, counted=together.is_first_on_node)
        return cls(downloads, together)

    def run(self) -> None:
        """Have all archives on disk; all ranks call it at the same time. A second call does nothing.

        Raises:
            HubError: Where an archive cannot be had.
            DiskError: Where one cannot be written.
            RankLostError: Where the rank that fetches is lost.
            Cancelled: Where `call_off` was called meanwhile.
        """
        if self.is_done:
            return
        self._cancellation = Cancellation()
        if self._together.is_first_on_node:
            self._together.leaving(lambda: self._downloads.fetch(self._cancellation))
        self._together.tell("archives", None, self._cancellation)
        self.is_done = True

    def call_off(self) -> None:
        """Call off the fetching that is under way in another thread."""
        self._cancellation.cancel()

    def open(self, archive: Archive) -> RangedFile:
        """Return an archive on disk."""
        return self._downloads.open(archive)

    def take_fetched_bytes(self) -> int:
        """Return the bytes that were fetched since this was last asked."""
        return self._downloads.take_fetched_bytes()
