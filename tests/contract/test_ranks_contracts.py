"""Our stores and ranks keep their contracts; torch's own stores, too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch.distributed

from reelstream.data.torch_ranks import _TorchStore
from reelstream.ranks import KeyValueStore, MemoryStore, OneRank, RankPatience, Ranks
from reelstream.ranks.threads import ranks_in_threads
from reelstream.testing.contracts import KeyValueStoreContract, RanksContract


class TestMemoryStore(KeyValueStoreContract):
    def make_store(self) -> KeyValueStore:
        return MemoryStore()


class TestStoreOfTorch(KeyValueStoreContract):
    # Not its FileStore, which says of any key that it was there when it is removed.
    def make_store(self) -> KeyValueStore:
        return _TorchStore(torch.distributed.HashStore(), "run")  # type: ignore[attr-defined]


class TestOneRank(RanksContract):
    world_sizes = (1,)

    def make_ranks(self, world_size: int) -> contextlib.AbstractContextManager[Sequence[Ranks]]:
        return contextlib.nullcontext([OneRank()])


class TestStoreRanks(RanksContract):
    @contextlib.contextmanager
    def make_ranks(self, world_size: int) -> Iterator[Sequence[Ranks]]:
        with ranks_in_threads(world_size, patience=RankPatience(survey_s=0.05)) as all_ranks:
            yield all_ranks
