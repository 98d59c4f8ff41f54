"""What was learned of archives on one node, put where the others find it: at an epoch's border all know the same."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from reelstream.indexes import IndexStore
from reelstream.prefetch.together import Together
from reelstream.types import Archive

# Carried in one piece: what passes at once through a store that lives in some process's memory.
_PIECE_BYTES = 4_000_000


def exchange_learned(store: IndexStore, archives: Sequence[Archive], together: Together) -> None:
    """Give the other nodes the files that they lack, and take those that this one lacks; all ranks call it together.

    Each file comes from the first node that has it, by the first rank of that node. Ranks of one node share a folder,
    hence a run on one node, or on a file system that all nodes share, carries nothing.

    Raises:
        DiskError: Where what comes cannot be written.
    """
    own = sorted(store.names(archives)) if together.is_first_on_node else None
    told = together.tell("learned", own)
    nodes = {rank: set(names) for rank, names in enumerate(told) if names is not None}
    wanted = sorted(set().union(*nodes.values()) - set.intersection(*nodes.values()))
    giver = {name: min(rank for rank, names in nodes.items() if name in names) for name in wanted}
    for names in _pieces(wanted, together, store, giver):
        given = {name: store.content(name) for name in names if giver[name] == together.place.rank}
        encoded = {name: base64.b64encode(content).decode() for name, content in given.items() if content is not None}
        for of_rank in together.tell("learned files", encoded):
            if together.is_first_on_node:
                for name, content in of_rank.items():
                    if name not in nodes[together.place.rank]:
                        store.put(name, base64.b64decode(content))


def _pieces(wanted: Sequence[str], together: Together, store: IndexStore, giver: dict[str, int]) -> list[list[str]]:
    """Return the files in groups that are carried at once, the same on all ranks."""
    own = {name: store.size_bytes(name) for name in wanted if giver[name] == together.place.rank}
    if not wanted:
        return []
    sizes: dict[str, int] = {}
    for of_rank in together.tell("learned sizes", own):
        sizes |= of_rank
    pieces: list[list[str]] = [[]]
    size_bytes = 0
    for name in wanted:
        if pieces[-1] and size_bytes + sizes[name] > _PIECE_BYTES:
            pieces.append([])
            size_bytes = 0
        pieces[-1].append(name)
        size_bytes += sizes[name]
    return pieces
