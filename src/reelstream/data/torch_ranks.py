"""The ranks that torch, or its launcher, has started."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import torch.distributed as dist
from torch.utils.data import get_worker_info

from reelstream.cancel import Cancellation
from reelstream.errors import ConfigError, RankLostError
from reelstream.ranks import (
    OneRank,
    RankPatience,
    RankPlace,
    Ranks,
    StatedPlace,
    StoreRanks,
    place_on_node,
    stated_place,
)
from reelstream.ranks.process import node_name
from reelstream.telemetry import Telemetry
from reelstream.units import count

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

_T = TypeVar("_T")
# How long the launcher's store may take to be reached; each call of it later, the same.
_CONNECT_S = 60.0

_openings = itertools.count()
_served: list[Store] = []


def find_ranks(
    rank: int | None = None,
    world_size: int | None = None,
    *,
    telemetry: Telemetry | None = None,
    environment: Mapping[str, str] | None = None,
    patience: RankPatience | None = None,
    cancellation: Cancellation | None = None,
) -> Ranks:
    """Return this process's rank among those of the run, started; `leave` it at the end.

    What is given counts; else torch.distributed where it is initialized; else RANK and WORLD_SIZE of the environment;
    else the process is alone. Several ranks find each other in the store of torch.distributed, or in the launcher's
    where torchrun started them. Every rank must call this, as often and in the same order as the others.

    Args:
        rank: From 0 to `world_size` - 1.
        world_size: Processes of the run; 1 is a process by itself whatever else there is.
        telemetry: Is told whom this rank waits for.
        environment: Stands in for the process's own.
        patience: How long silence of others is borne.
        cancellation: Calls off the waiting for the others, where their places on the nodes must be asked for.

    Raises:
        ConfigError: Where rank and world size contradict each other or torch.distributed, the ranks have no store to
            meet in, or a worker of a DataLoader asks for one of several ranks.
        RankLostError: Where the others did not come.
        Cancelled: Where the waiting is called off.
    """
    environment = os.environ if environment is None else environment
    stated = _stated(rank, world_size, environment)
    if stated is None or stated.world_size == 1:
        if stated is not None:
            stated.placed()
        return OneRank()
    place = stated.placed()
    if get_worker_info() is not None:
        raise ConfigError(
            f"a worker of a DataLoader cannot stream for rank {stated.rank} of {stated.world_size}: "
            "the ranks meet in the processes that train",
            "set num_workers=0 in the DataLoader; the dataset prefetches in the background by itself",
        )
    store = _TorchStore(_own_client(stated, environment), f"reelstream/{next(_openings)}")
    provisional = RankPlace(rank=stated.rank, world_size=stated.world_size, local_rank=0, local_world_size=1)
    ranks = StoreRanks(place or provisional, store, telemetry=telemetry, patience=patience).start()
    if place is None:
        try:
            nodes = ranks.exchange("nodes", node_name().encode(), cancellation or Cancellation())
        except BaseException as error:
            ranks.leave(f"it raised {type(error).__name__} as the run began")
            raise
        ranks.place = place_on_node([node.decode() for node in nodes], stated.rank)
    return ranks


def _stated(rank: int | None, world_size: int | None, environment: Mapping[str, str]) -> StatedPlace | None:
    """Return rank and world size by whoever names them first, with the node's numbers where the launcher names them."""
    if (rank is None) != (world_size is None):
        raise ConfigError("rank and world_size are given together, or neither", "leave both out to have them found")
    found = _of_torch() or stated_place(environment)
    if rank is None or world_size is None:
        named = found
    else:
        named = StatedPlace(rank=rank, world_size=world_size)
        if world_size > 1 and found is not None and found.world_size > 1 and found.world_size != world_size:
            # Two processes of one rank (tensor or pipeline parallel) would speak over each other.
            raise ConfigError(
                f"world_size={world_size} was given, but this job has {found.world_size} processes",
                "each process of the job must be a rank of its own; leave rank and world_size out",
            )
    if named is None:
        return None
    launched = stated_place(environment)
    if launched is not None and (launched.rank, launched.world_size) == (named.rank, named.world_size):
        return launched
    return named


def _of_torch() -> StatedPlace | None:
    if dist.is_available() and dist.is_initialized():
        return StatedPlace(rank=dist.get_rank(), world_size=dist.get_world_size())
    return None


def _own_client(stated: StatedPlace, environment: Mapping[str, str]) -> Store:
    """Return a client of the job's store that nobody else waits in."""
    if dist.is_available() and dist.is_initialized():
        if dist.get_world_size() != stated.world_size:
            raise ConfigError(
                f"torch.distributed has {count(dist.get_world_size(), 'process', 'processes')}, "
                f"and world_size={stated.world_size} was given"
            )
        return _clone_of_default_store()
    address, port = environment.get("MASTER_ADDR", ""), environment.get("MASTER_PORT", "")
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and address and port.isdecimal():
        return _launchers_store(address, int(port))
    raise ConfigError(
        f"this is rank {stated.rank} of {stated.world_size}, and torch.distributed is not initialized: "
        "the ranks have no way to meet",
        "call torch.distributed.init_process_group (trainers and accelerate do) before the dataset is first used, "
        "or start the job with torchrun",
    )


def _clone_of_default_store() -> Store:
    # No public name leads to the store that init_process_group has made; torch's own packages use this one.
    from torch.distributed.distributed_c10d import _get_default_store  # noqa: PLC0415 - torch may lack it

    store: Store = _get_default_store()
    try:
        clone: Store = store.clone()  # type: ignore[attr-defined] # newer than its stub
    except (AttributeError, RuntimeError):
        # A store within one process has no connection to share.
        return store
    # Where rank 0 lets go of the store, others must still be answered: its server lives as long as this object.
    if all(store is not other for other in _served):
        _served.append(store)
    return clone


def _launchers_store(address: str, port: int) -> Store:
    from torch.distributed import TCPStore  # type: ignore[attr-defined] # noqa: PLC0415 - torch may lack it

    try:
        store: Store = TCPStore(
            address, port, is_master=False, timeout=timedelta(seconds=_CONNECT_S), wait_for_workers=False
        )
    except RuntimeError as error:
        raise RankLostError(
            f"the launcher's store at {address}:{port} cannot be reached: {_first_line(error)}",
            "it lives in torchrun on the first machine: does that still run, and is there a way to it?",
        ) from error
    return store


class _TorchStore:
    """A torch store as a `KeyValueStore`: below a prefix, its errors told as what they are."""

    def __init__(self, store: Store, prefix: str) -> None:
        from torch.distributed import PrefixStore  # type: ignore[attr-defined] # noqa: PLC0415 - torch may lack it

        self._store: Store = PrefixStore(prefix, store)

    def set(self, key: str, value: bytes) -> None:
        """Lay down a value, in place of an earlier one."""
        # The stub knows only text, torch takes any bytes.
        self._call(lambda: self._store.set(key, value))  # type: ignore[arg-type]

    def get(self, key: str) -> bytes:
        """Return a value that is there."""
        return self._call(lambda: self._store.get(key))

    def check(self, keys: Sequence[str]) -> bool:
        """Return whether all of `keys` are there."""
        return self._call(lambda: self._store.check(list(keys)))

    def add(self, key: str, amount: int) -> int:
        """Add to a number, 0 where there was none; return the sum."""
        return self._call(lambda: self._store.add(key, amount))

    def delete_key(self, key: str) -> bool:
        """Remove a key; return whether it was there."""
        return self._call(lambda: self._store.delete_key(key))

    def _call(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except RuntimeError as error:
            raise ConnectionError(_first_line(error)) from error


def _first_line(error: RuntimeError) -> str:
    """Return what a torch error says, without the stack of C++ that follows."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
