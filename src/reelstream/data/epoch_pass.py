"""One iteration over an epoch, for as long as its state may be asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable

from reelstream.cancel import Cancelled
from reelstream.errors import OutOfReachError
from reelstream.prefetch.pipeline import EpochPipeline
from reelstream.prefetch.state import EpochState
from reelstream.prefetch.values import ReadySample
from reelstream.types import Position


class EpochPass:
    """One epoch's iteration, and what is needed to tell its state after it has ended."""

    def __init__(self, pipeline: EpochPipeline, next_start: Callable[[], EpochState]) -> None:
        self.pipeline = pipeline
        # Only at the end, when all that the epoch learns is known; and once.
        self.next_start = functools.cache(next_start)
        self.last: Position | None = None
        self.over = False
        self._ended = False

    def next_sample(self) -> ReadySample | None:
        """Return the next sample; None when the epoch is over."""
        try:
            return self.pipeline.next_sample()
        except Cancelled:
            if not self._ended:
                raise
            raise OutOfReachError(
                "this iteration of the dataset was ended: by a newer one, or by reset(), set_epoch() or cleanup()",
                "iterate once at a time",
            ) from None

    def end(self) -> None:
        """Stop all work; whoever iterates hears of it."""
        self._ended = True
        self.pipeline.close()

    def state_after(self, position: Position | None) -> EpochState:
        """Return the state once a sample is consumed.

        Of a sample that is named it is one of its own epoch, also of the last one: whoever counts epochs by the samples
        that are trained on goes on in that one, and finds it over. Once an epoch is over, that of whatever was yielded
        is the next one's beginning.
        """
        if self.over and position is None:
            return self.next_start()
        return self.pipeline.state_after(position)
