"""Several ranks in one process: for tests of what ranks do together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from reelstream.ranks.patience import RankPatience
from reelstream.ranks.place import RankPlace
from reelstream.ranks.store import KeyValueStore, MemoryStore
from reelstream.ranks.store_ranks import StoreRanks


@contextlib.contextmanager
def ranks_in_threads(
    world_size: int, *, store: KeyValueStore | None = None, patience: RankPatience | None = None
) -> Iterator[list[StoreRanks]]:
    """Yield the ranks of one run on one node, started; each is to be used by threads of its own."""
    store = store or MemoryStore()
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                StoreRanks(
                    RankPlace(rank=rank, world_size=world_size, local_rank=rank, local_world_size=world_size),
                    store,
                    patience=patience,
                )
            )
            for rank in range(world_size)
        ]
