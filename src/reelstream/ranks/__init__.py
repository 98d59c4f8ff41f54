"""The processes of one run: which one this is, and how they tell one another what all must know.

Knows nothing of torch: a key-value store is all it needs, which `reelstream.data.torch_ranks` finds.
"""

from reelstream.ranks.patience import RankPatience
from reelstream.ranks.place import ALONE, RankPlace, StatedPlace, place_on_node, stated_place
from reelstream.ranks.protocol import OneRank, Ranks
from reelstream.ranks.store import KeyValueStore, MemoryStore
from reelstream.ranks.store_ranks import StoreRanks

__all__ = [
    "ALONE",
    "KeyValueStore",
    "MemoryStore",
    "OneRank",
    "RankPatience",
    "RankPlace",
    "Ranks",
    "StatedPlace",
    "StoreRanks",
    "place_on_node",
    "stated_place",
]
