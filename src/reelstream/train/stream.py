"""What the loop asks of the data: samples in order, and a state for any place in that order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from reelstream.data.sample import Sample
from reelstream.types import Position


class SampleStream(Protocol):
    """An order of samples that can be left and taken up again.

    A protocol because the loop's promises (exact resume above all) are tested against a stream made of numbers, and
    kept against one that downloads.
    """

    def __iter__(self) -> Iterator[Sample]:
        """Yield what is left of the epoch that is set; nothing once it has ended."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; the epoch that is running goes on where it is."""
        ...

    def state_dict(self, after: Position | None = None) -> dict[str, Any]:
        """Return, as JSON values, the state in which `after` and all before it are consumed.

        Called in the thread that iterates, between two samples, with the position of the last one yielded.
        """
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the order where `state` left it; the next iteration yields the sample after it."""
        ...

    def cancel(self) -> None:
        """Wake an iteration that waits in another thread: it raises `reelstream.cancel.Cancelled`.

        Called when training ends before the data does, from any thread; the stream is not iterated afterwards.
        """
        ...
