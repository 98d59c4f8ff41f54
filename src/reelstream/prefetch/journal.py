"""What each served sample changes in the state, until somebody says that it is consumed."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from reelstream.archive.cuts.report import CutReport
from reelstream.errors import StateError
from reelstream.prefetch.state import EpochState, LaneState
from reelstream.prefetch.windows import ResidentClip
from reelstream.types import Position

# Samples that were handed out and whose consumption nobody has told of; older ones are taken as consumed.
_LONGEST_JOURNAL = 1 << 16


@dataclass(slots=True, kw_only=True)
class Step:
    """What one served sample, or one passed over, changes in the state."""

    turn: int
    lane: int = 0
    after: LaneState | None = None
    """Of the lane."""
    position: Position | None = None
    """Of a served sample."""
    repeated: bool = False
    """Of a served sample: whether another visit owns its clip, or its lane has ended and serves it again."""
    owned: ResidentClip | None = None
    """The visit that owns its clip from here on."""
    passed_over: ResidentClip | None = None
    """The visit whose sample is quarantined here."""
    round: tuple[list[int], list[int | None]] | None = None
    """Quotas and lengths of a new round."""
    reports: Sequence[tuple[str, CutReport]] = ()
    """What was found of the spans that were read to their end, by archive."""

    def apply(self, state: EpochState) -> None:
        """Make the change."""
        state.turn = self.turn
        if self.after is not None:
            state.lanes[self.lane] = self.after
        if self.round is not None:
            state.quotas, state.lengths = self.round
        for path, report in self.reports:
            state.add_report(path, report)
        books, clips = state.books, state.books.quarantined_clips
        if self.position is not None:
            state.num_consumed += 1
            books.delivered += not self.repeated
            books.repeated += self.repeated
        if self.owned is not None:
            state.seen[self.owned.record.clip] = True
            # A bad copy of the clip may have been met before.
            clips.pop(self.owned.name, None)
        if self.passed_over is not None:
            num_samples, _ = clips.get(self.passed_over.name, (0, ""))
            # Two bad copies of a clip are one loss.
            num_samples = min(num_samples + 1, self.passed_over.record.num_samples)
            clips[self.passed_over.name] = (num_samples, self.passed_over.problem or "")


class Journal:
    """The steps since the consumed state. Not thread-safe: its owner holds a lock.

    Args:
        state: Where to begin; it is copied, not changed.
    """

    def __init__(self, state: EpochState) -> None:
        self._consumed = state.copy()
        self._last_consumed: Position | None = None
        self._steps: deque[Step] = deque()

    def add(self, step: Step) -> None:
        """Enter the next step."""
        self._steps.append(step)
        while len(self._steps) > _LONGEST_JOURNAL:
            self._consume(self._steps.popleft())

    def state_after(self, position: Position | None) -> EpochState:
        """Return the state once everything up to and including `position` is consumed.

        Args:
            position: Of a served sample, no earlier than the one asked for last; None for the last one served, which
                does not tell that it is consumed.

        Raises:
            StateError: Where no such sample was served, or a later one was asked for already.
        """
        if position is None:
            state = self._consumed.copy()
            for step in self._steps:
                step.apply(state)
            return state
        if position != self._last_consumed:
            if not any(step.position == position for step in self._steps):
                raise StateError(
                    f"no sample at {position} awaits its consumption",
                    "ask for the state after a sample that this pass has served, not after an earlier one than before",
                )
            while self._last_consumed != position:
                self._consume(self._steps.popleft())
        return self._consumed.copy()

    def _consume(self, step: Step) -> None:
        step.apply(self._consumed)
        self._last_consumed = step.position or self._last_consumed
