"""The indexes of one run's archives: with room of their own, exchanged between nodes, saved beside checkpoints."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from reelstream.archive import ArchiveIndex
from reelstream.cache import Account, DiskBudget
from reelstream.indexes import INDEX_FOLDER, IndexStore, set_aside_bytes
from reelstream.prefetch.learned_exchange import exchange_learned
from reelstream.prefetch.together import Together
from reelstream.telemetry import Telemetry
from reelstream.types import Archive, ContainerKind


class RunIndexes:
    """What is known, and what becomes known, of where a dataset's clips lie; made by `opened_indexes`."""

    def __init__(self, store: IndexStore, archives: Sequence[Archive], room_bytes: int, telemetry: Telemetry) -> None:
        self.store = store
        self.archives = archives
        """Those that an index is kept of."""
        self.room_bytes = room_bytes
        """The room that their indexes take at most: a function of the dataset alone."""
        self._telemetry = telemetry

    def whole(self) -> list[tuple[Archive, ArchiveIndex]]:
        """Return the indexes that are whole."""
        found = ((archive, self.store.find(archive)) for archive in self.archives)
        return [(archive, index) for archive, index in found if index is not None]

    def exchange(self, together: Together) -> None:
        """Have every node know what any has learned; all ranks at the same time."""
        if not together.is_alone:
            exchange_learned(self.store, self.archives, together)

    def open_elsewhere(self, folder: Path, account: Account) -> IndexStore:
        """Return a store of these indexes in another folder, with room set aside for it and what it holds counted.

        Raises:
            BudgetTooSmallError: Where there is no room for it.
            DiskError: Where the folder cannot be listed.
        """
        account.set_aside(self.room_bytes)
        store = IndexStore(folder, account, telemetry=self._telemetry)
        store.open(self.archives)
        return store

    def save_to(self, store: IndexStore) -> bool:
        """Put what is known so far into another store; return whether all of it is there.

        Beside a state it lets a run that goes on elsewhere take the same spans in the epochs to come as this one would.

        Raises:
            DiskError: Where it cannot be written.
        """
        return store.take_from(self.store, self.archives, mirror=True)

    def take_from(self, store: IndexStore) -> None:
        """Take over what another store knows, and this one does not.

        Raises:
            DiskError: Where it cannot be written here.
        """
        self.store.take_from(store, self.archives, mirror=False)


@contextlib.contextmanager
def opened_indexes(
    archives: Sequence[Archive], *, num_clips: int, cache_dir: Path, budget: DiskBudget, telemetry: Telemetry
) -> Iterator[RunIndexes]:
    """Set aside the room of indexes, which follows from the dataset alone, and open those that are at hand.

    Args:
        archives: All of the dataset; videos by themselves say what they are, and need no index.
        num_clips: Of the catalog.
        cache_dir: Where indexes lie.
        budget: The run's.
        telemetry: Where notices go.
    """
    indexed = [archive for archive in archives if archive.kind is not ContainerKind.FILE]
    room_bytes = set_aside_bytes(num_clips, sum(archive.size_bytes for archive in indexed), len(indexed))
    account = budget.account(INDEX_FOLDER)
    # Another dataset of the same run may have its own room in the same account.
    account.set_aside(account.set_aside_bytes + room_bytes)
    try:
        store = IndexStore(cache_dir / INDEX_FOLDER, account, telemetry=telemetry)
        store.open(indexed)
        yield RunIndexes(store, indexed, room_bytes, telemetry)
    finally:
        account.set_aside(account.set_aside_bytes - room_bytes)
