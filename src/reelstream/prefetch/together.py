"""What the ranks of a run tell one another: which epoch begins where, whether it goes on, what was learned.

All of it is JSON under names that say what it is about; each rank tells under each name once. A run of one rank speaks
to itself, by the same code.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from reelstream.cancel import Cancellation, Cancelled
from reelstream.errors import RanksApartError, ReelstreamError
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
        self._left: dict[str, int] = {}
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
        cancellation = cancellation or self._cancellation
        # What is called off before it is asked is not told: the others still wait for it under this number.
        cancellation.raise_if_cancelled()
        self._tell_what_was_left()
        self._told[topic] += 1
        name = f"{topic}/{self._told[topic]}"
        return [json.loads(text) for text in self.ranks.exchange(name, json.dumps(value).encode(), cancellation)]

    def leave_pass(self, topic: str, reason: str | None, *, num_told: int = 0) -> None:
        """Leave a pass over an epoch before its end: ranks that go on with it learn that.

        Args:
            topic: Names the pass.
            reason: Why; None where this rank just stopped. Then the others learn of it once it does something else: it
                may as well be about to leave them altogether, for a reason that only its owner knows.
            num_told: How much this rank has told in the pass.
        """
        if self.is_alone:
            return
        self._left[topic] = num_told
        if reason is not None:
            self._tell_what_was_left(reason)

    def _tell_what_was_left(
        self, reason: str = "it has stopped before the epoch's end, and does something else"
    ) -> None:
        while self._left:
            topic, num_told = self._left.popitem()
            self.ranks.give(f"{topic}/{num_told}/1", json.dumps({"left": reason}).encode())

    def agree(self, topic: str, place: str) -> None:
        """Make sure that all ranks are at the same place.

        Args:
            topic: What they begin.
            place: In words that follow who is there.

        Raises:
            RanksApartError: Where they are not.
        """
        places = self.tell(topic, place)
        if len(set(places)) > 1:
            told = ", ".join(f"rank {rank} {of_rank}" for rank, of_rank in enumerate(places))
            raise RanksApartError(
                f"the ranks are at different places: {told}",
                "load the same state on all of them, or on none, and set the same epoch",
            )

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
    """What ranks tell one another in one pass over an epoch, whose lanes serve in step: whether there is another round.

    They tell in the same order on all ranks. One that leaves the pass before its end says so in the place of what it
    would have told next: else the others, whose samples go on, would wait for it for ever. Thread-safe.

    Args:
        together: The ranks.
        topic: Names this pass over the epoch; the same on all ranks, used once.
        by_all: Whether an epoch goes on only while every rank has more; else as long as any has.
        cancellation: Calls the waiting off.
    """

    def __init__(self, together: Together, topic: str, *, by_all: bool, cancellation: Cancellation) -> None:
        self._together = together
        self._topic = topic
        self._choose = all if by_all else any
        self._cancellation = cancellation
        self._lock = threading.Lock()
        self._num_told = 0
        self._is_over = False

    def goes_on(self, num_served: int, *, has_more: bool) -> bool:
        """Return whether there is another round, once all ranks have said what they have.

        Args:
            num_served: Samples that each rank has served.
            has_more: Whether this rank's lanes have what the epoch's tail asks for.

        Raises:
            RanksApartError: Where another rank has left the pass.
        """
        return self._choose(self._tell(num_served, has_more))

    def lengths(self, num_served: int, own: Mapping[int, int]) -> dict[int, int]:
        """Return the clips of all lanes that have ended, by their number.

        Args:
            num_served: Samples that each rank has served.
            own: Of this rank's lanes.

        Raises:
            RanksApartError: Where another rank has left the pass.
        """
        told = self._tell(num_served, [[lane, length] for lane, length in own.items()])
        return {lane: length for pairs in told for lane, length in pairs}

    def end(self) -> None:
        """The pass has come to its end, on all ranks."""
        with self._lock:
            self._is_over = True

    def leave(self, reason: str | None) -> None:
        """Leave the pass, if it has not ended; see `Together.leave_pass`."""
        with self._lock:
            is_first, self._is_over = not self._is_over, True
        if is_first:
            self._together.leave_pass(self._topic, reason, num_told=self._num_told)

    def _tell(self, num_served: int, value: Any) -> list[Any]:
        if self._together.is_alone:
            return [value]
        with self._lock:
            self._cancellation.raise_if_cancelled()
            if self._is_over:
                raise Cancelled
            name = f"{self._topic}/{self._num_told}"
            self._num_told += 1
        told = self._together.tell(name, {"value": value}, self._cancellation)
        for rank, of_rank in enumerate(told):
            if "left" in of_rank:
                raise RanksApartError(
                    f"rank {rank} of {len(told)} has left this pass over the epoch: {of_rank['left']}; "
                    f"rank {self._together.place.rank} waits for it after {num_served} samples of its own",
                    "see what that rank says itself; all ranks iterate together, and take equally many samples each",
                )
        return [of_rank["value"] for of_rank in told]


@contextlib.contextmanager
def leaving_pass(together: Together, topic: str) -> Iterator[None]:
    """Leave a pass over an epoch that cannot even be begun here, where the block raises an error."""
    try:
        yield
    except ReelstreamError as error:
        together.leave_pass(topic, error.fact)
        raise
