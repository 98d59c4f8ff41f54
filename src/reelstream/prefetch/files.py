"""The repository's files, as the ranks of a run read them: one commit for all, from the Hub or from the disk."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reelstream.archive import ArchiveIndex
from reelstream.archive.containers import Container, read_directory
from reelstream.cache.names import HUB_FILE
from reelstream.cancel import Cancellation
from reelstream.indexes.sources import CancellableSource, RangedFile
from reelstream.prefetch.downloads import DownloadFirst
from reelstream.prefetch.together import Together
from reelstream.transport import HubClient, RemoteFile
from reelstream.types import Archive, Repository, RepositoryFile


def shared_addresses(folder: Path, together: Together) -> Path | None:
    """Return the file in which the ranks of a node share what they know of addresses; None where one is alone on it.

    All ranks call it together.

    Args:
        folder: This rank's own.
        together: The ranks.
    """
    folders: list[str] = together.tell("folder", str(folder))
    return None if together.place.local_world_size == 1 else Path(folders[together.first_on_node]) / HUB_FILE


class PublishedFiles:
    """Files of one commit, opened once each. Thread-safe, and an `ArchiveSource`.

    All ranks make theirs together: rank 0 asks the Hub for the repository, and the others take what it found.

    Args:
        client: Of the Hub.
        repo_id: The repository.
        revision: Branch, tag or commit.
        together: The ranks.

    Raises:
        HubError: Where the repository cannot be had.
        RankLostError: Where rank 0 could not have it.
    """

    def __init__(self, client: HubClient, repo_id: str, revision: str | None, together: Together) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._remote: dict[str, RemoteFile] = {}
        self.downloads: DownloadFirst | None = None
        """Where nothing is streamed, what has all archives on disk."""

        def found() -> dict[str, Any]:
            return dataclasses.asdict(client.repository(repo_id, revision))

        values = together.first_says("repository", found)
        files = tuple(RepositoryFile(**file) for file in values.pop("files"))
        self.repository = Repository(**values, files=files)

    def read(self, archive: Archive, first_byte: int, end_byte: int, cancellation: Cancellation) -> Iterator[bytes]:
        """Yield published bytes of an archive. See `ArchiveSource`."""
        return self._file(archive).read(first_byte, end_byte, cancellation)

    def annotations(self, file: RepositoryFile) -> Iterator[bytes]:
        """Yield the bytes of a file of annotations."""
        return self._client.open(self.repository, file).read(0, file.size_bytes, Cancellation())

    def directory(self, archive: Archive) -> ArchiveIndex | None:
        """Return the members that a container names before any of them is read; None where only a pass can tell."""
        source = CancellableSource(self._file(archive), Cancellation())
        directory = read_directory(Container.of(archive), source)
        return None if directory is None else directory.index

    def remote(self, archive: Archive) -> RemoteFile:
        """Return an archive on the Hub."""
        with self._lock:
            file = self._remote.get(archive.path)
            if file is None:
                file = self._remote[archive.path] = self._client.open(self.repository, archive.file)
        return file

    def _file(self, archive: Archive) -> RangedFile:
        if self.downloads is not None and self.downloads.is_done:
            return self.downloads.open(archive)
        return self.remote(archive)
