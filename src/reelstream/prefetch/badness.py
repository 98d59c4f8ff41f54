"""How many bad clips are too many."""

from __future__ import annotations

from collections import deque

from reelstream.errors import TooManyBadClipsError
from reelstream.units import count

# Below this many clips a share of bad ones says little.
_FEWEST_CLIPS_JUDGED = 100
_MOST_LISTED = 20


class BadClips:
    """Counts clips met and clips quarantined. Not thread-safe: its owner holds a lock.

    Args:
        max_share: More than this share of those met (of 100 at least) are too many.
    """

    def __init__(self, max_share: float) -> None:
        self._max_share = max_share
        self._num_met = 0
        self._num_bad = 0
        self._last: deque[str] = deque(maxlen=_MOST_LISTED)

    def meet(self) -> None:
        """Count a clip that has arrived, whole or not."""
        self._num_met += 1

    def add(self, name: str, reason: str) -> TooManyBadClipsError | None:
        """Count a clip as bad; return what to raise where there are too many of them now."""
        self._num_bad += 1
        self._last.append(f"{name}: {reason}")
        if self._num_bad <= self._max_share * max(self._num_met, _FEWEST_CLIPS_JUDGED):
            return None
        return TooManyBadClipsError(
            f"{count(self._num_bad, 'clip')} of {self._num_met:,} are bad, more than max_bad_share = "
            f"{self._max_share} allows; the last of them:\n  " + "\n  ".join(self._last),
            "look at these clips; raise max_bad_share where they are to be expected",
        )
