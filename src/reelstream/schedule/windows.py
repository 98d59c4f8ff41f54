"""Windows: consecutive clips of a lane whose samples are shuffled together."""

from __future__ import annotations

from dataclasses import dataclass

# A lane's first windows, so that the first batch needs a few clips only.
_RAMP = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowLimits:
    """How much a full window may hold; fixed when an epoch begins."""

    clips: int
    size_bytes: int
    """A single larger clip makes a window of its own."""

    @classmethod
    def of(cls, *, cache_size: int, num_lanes: int, clip_budget_bytes: int) -> WindowLimits:
        """Share `cache_size` clips among the lanes, and two thirds of the clip budget."""
        return cls(
            clips=max(1, cache_size // num_lanes),
            size_bytes=max(1, clip_budget_bytes * 2 // (3 * num_lanes)),
        )


def window_clips(*, lane: int, window: int, num_lanes: int, full: int) -> int:
    """Return how many clips the window-th window of a lane takes, where bytes allow.

    Windows grow as 1, 2, 4, 8 while that is less than a full window; then comes a share (lane + 1) / num_lanes of a
    full one, so that the lanes' windows end at different times; then full ones.
    """
    ramp = [clips for clips in _RAMP if clips < full]
    if window < len(ramp):
        return ramp[window]
    if window == len(ramp):
        return max(1, -(-full * (lane + 1) // num_lanes))
    return full


class WindowFormer:
    """Says, clip by clip as they arrive, where a lane's windows end.

    Args:
        lane: Which lane.
        num_lanes: Of how many.
        limits: What a full window may hold.
        window: Number of the window that the next clip falls in.
    """

    def __init__(self, *, lane: int, num_lanes: int, limits: WindowLimits, window: int = 0) -> None:
        self._lane = lane
        self._num_lanes = num_lanes
        self._limits = limits
        self.window = window
        self.num_clips = 0
        self.size_bytes = 0

    def closes_before(self, size_bytes: int) -> bool:
        """Whether the current window must end before a clip of this size is added."""
        return self.num_clips > 0 and self.size_bytes + size_bytes > self._limits.size_bytes

    def add(self, size_bytes: int) -> bool:
        """Put a clip into the current window; return whether the window is full with it."""
        self.num_clips += 1
        self.size_bytes += size_bytes
        full = window_clips(lane=self._lane, window=self.window, num_lanes=self._num_lanes, full=self._limits.clips)
        return self.num_clips >= full

    def close(self) -> None:
        """Begin the next window."""
        self.window += 1
        self.num_clips = 0
        self.size_bytes = 0
