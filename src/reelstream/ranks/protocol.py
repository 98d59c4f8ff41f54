"""What a rank needs of the others, and how it is had by a process that is alone."""

from __future__ import annotations

from typing import Protocol

from reelstream.cancel import Cancellation
from reelstream.ranks.place import ALONE, RankPlace


class Ranks(Protocol):
    """The processes of one run, as one of them sees them.

    A protocol because a run has one process or many, and tests have many in one.
    """

    @property
    def place(self) -> RankPlace:
        """Which of them this one is."""
        ...

    def exchange(self, name: str, value: bytes, cancellation: Cancellation) -> list[bytes]:
        """Give `value` to all ranks; return what each of them gave under `name`, by rank.

        Returns once all ranks have given theirs, at any rank, in any thread, under any number of names at once. Each
        rank gives under each name once.

        Raises:
            RankLostError: Where a rank that is waited for has died, has left, or never came.
            Cancelled: Where the waiting is called off. What was given stays given.
        """
        ...

    def give(self, name: str, value: bytes) -> None:
        """Give `value` to ranks that exchange under `name`, now or later, and wait for none of theirs.

        Nobody need ever ask for it. It counts as this rank's exchange under that name.
        """
        ...

    def leave(self, reason: str) -> None:
        """Take no further part; ranks that wait for this one, now or later, learn the reason.

        A second call does nothing.

        Args:
            reason: What becomes of "rank 1 of 4 has left: ..." in the others' messages.
        """
        ...


class OneRank:
    """A run of one process: all that it exchanges is its own."""

    @property
    def place(self) -> RankPlace:
        """The only one."""
        return ALONE

    def exchange(self, name: str, value: bytes, cancellation: Cancellation) -> list[bytes]:  # noqa: ARG002
        """Return `[value]`.

        Raises:
            Cancelled: Where that was called off.
        """
        cancellation.raise_if_cancelled()
        return [value]

    def give(self, name: str, value: bytes) -> None:
        """Nobody asks."""

    def leave(self, reason: str) -> None:
        """Nobody listens."""
