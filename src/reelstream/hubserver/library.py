"""The repositories for an event loop: reading them happens in threads, once for all who wait for it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from reelstream.hubserver.repositories import RepositoryShelf, Snapshot

_Result = TypeVar("_Result")


class Library:
    """Asks a `RepositoryShelf` in other threads; for one event loop.

    Args:
        shelf: The repositories.
        readers: Threads to ask in.
    """

    def __init__(self, shelf: RepositoryShelf, readers: Executor) -> None:
        self._shelf = shelf
        self._readers = readers
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tasks: set[asyncio.Task[Snapshot | None]] = set()

    async def snapshot(self, repo_id: str) -> Snapshot | None:
        """Return the current commit of a repository, or None where there is none."""
        task = asyncio.ensure_future(self._read(repo_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A client that leaves does not call off the digests that others wait for.
        return await asyncio.shield(task)

    async def change(self, repo_id: str, work: Callable[[], _Result]) -> _Result:
        """Do `work` in a thread, while nobody reads the repository: who reads it sees all of a change or nothing."""
        async with self._locks[repo_id]:
            loop = asyncio.get_running_loop()
            try:
                return await asyncio.shield(loop.run_in_executor(self._readers, work))
            finally:
                self._shelf.look_again(repo_id)

    async def close(self) -> None:
        """Wait for what is under way, after the shelf has been cancelled."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _read(self, repo_id: str) -> Snapshot | None:
        lock = self._locks[repo_id]
        try:
            async with lock:
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._readers, self._shelf.snapshot, repo_id)
        finally:
            # Anybody may ask for any name, so names are not kept.
            if not lock.locked() and self._locks.get(repo_id) is lock:
                del self._locks[repo_id]
