"""What the ranks of a run tell one another: which epoch begins where, whether it goes on, what was learned.

All of it is JSON under names that say what it is about; each rank tells under each name once. A run of one rank speaks
to itself, by the same code.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from reelstream.cancel import Cancellation
from reelstream.errors import ReelstreamError
from reelstream.ranks import RankPlace, Ranks
from reelstream.schedule import RankShare

_T = TypeVar("_T")


class Together:
    """The ranks, as the parts of a session talk to them. Thread-safe, as long as each topic has one thread.

    Args:
        ranks: This process among the others.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._told: Counter[str] = Counter()
        self._cancellation = Cancellation()

    @property
    def place(self) -> RankPlace:
        """Which of the ranks this one is."""
        return self.ranks.place

    @property
    def is_alone(self) -> bool:
        """Whether there is no other rank."""
        return self.place.world_size == 1

    @property
    def share(self) -> RankShare:
        """This rank's part of the lanes."""
        return RankShare(rank=self.place.rank, world_size=self.place.world_size)

    @property
    def first_on_node(self) -> int:
        """The rank that does for this node what is done once a node."""
        return self.place.rank - self.place.local_rank

    @property
    def is_first_on_node(self) -> bool:
        """Whether this rank is that one."""
        return self.place.is_first_on_node

    def call_off(self) -> None:
        """Call off all waiting for other ranks, now and until `renew`; a pass over an epoch has its own way."""
        self._cancellation.cancel()

    def renew(self) -> None:
        """Wait for other ranks again."""
        if self._cancellation.cancelled:
            self._cancellation = Cancellation()

    def tell(self, topic: str, value: Any, cancellation: Cancellation | None = None) -> list[Any]:
        """Give a JSON value to all ranks; return what each gave, by rank.

        Raises:
            RankLostError: Where one of them is lost.
            Cancelled: Where the waiting is called off.
        """
        if self.is_alone:
            return [value]
        self._told[topic] += 1
        name = f"{topic}/{self._told[topic]}"
        told = self.ranks.exchange(name, json.dumps(value).encode(), cancellation or self._cancellation)
        return [json.loads(text) for text in told]

    def first_says(self, topic: str, make: Callable[[], Any]) -> Any:
        """Return what rank 0 makes of it, on all ranks; where that fails, rank 0 leaves with the reason."""
        if self.is_alone:
            return make()
        value = self.leaving(make) if self.place.rank == 0 else None
        return self.tell(topic, value)[0]

    def leaving(self, make: Callable[[], _T]) -> _T:
        """Return what is made; where that fails, the other ranks hear of it at once."""
        try:
            return make()
        except ReelstreamError as error:
            self.ranks.leave(error.fact)
            raise


class Rounds:
    """Whether an epoch whose lanes serve in step goes on: all ranks agree on it before each round.

    Args:
        together: The ranks.
        topic: Names this pass over the epoch.
        by_all: Whether an epoch goes on only while every rank has more; else as long as any has.
        cancellation: Calls the waiting off.
    """

    def __init__(self, together: Together, topic: str, *, by_all: bool, cancellation: Cancellation) -> None:
        self._together = together
        self._topic = topic
        self._choose = all if by_all else any
        self._cancellation = cancellation

    def goes_on(self, num_served: int, *, has_more: bool) -> bool:
        """Return whether there is another round, once all ranks have said what they have.

        Args:
            num_served: Samples that each rank has served.
            has_more: Whether this rank's lanes have what the epoch's tail asks for.
        """
        told = self._together.tell(f"{self._topic}/{num_served}", has_more, self._cancellation)
        return self._choose(told)

    def lengths(self, num_served: int, own: Mapping[int, int]) -> dict[int, int]:
        """Return the clips of all lanes that have ended, by their number.

        Args:
            num_served: Samples that each rank has served.
            own: Of this rank's lanes.
        """
        pairs = [[lane, length] for lane, length in own.items()]
        told = self._together.tell(f"{self._topic}/{num_served}/lengths", pairs, self._cancellation)
        return {lane: length for pairs in told for lane, length in pairs}
