"""Who may put how much on disk, and when: the policy of the clip budget, pure, run as it is by the simulator too.

A lane's *front* window is the oldest one that is not used up; a lane that is still reading its front window must always
be able to finish it, or the trainer would wait for ever. So each lane that reads on has a share of the budget committed
to its front window, whether it is filled yet or not, and windows further ahead take turns in what is left:

```
clip budget │ front share of lane 0 │ … │ front share of lane L-1 │ ahead, first come first served │
```

A used-up front window's share passes to the next window of its lane, which by then may lie in the part ahead; since no
window is larger than a share, the commitments only shrink by that. No clip larger than `clip budget / (L + 2)` is
admitted, hence L shares always fit beside the two largest clips.
"""

from __future__ import annotations

from collections import OrderedDict

from reelstream.units import format_bytes

# A ranged read that is asked for carries at least this, or half of a full one where that is less: smaller ones would
# spend their time on round trips.
_LEAST_RANGE_BYTES = 256 << 10
_LARGEST_RANGE_BYTES = 32_000_000


class Room:
    """The books of one epoch's windows. Not thread-safe: its owner holds a lock.

    Args:
        clip_budget_bytes: What all clips may take on disk together.
        num_lanes: Number of lanes that read.
        window_bytes: The most that a window of several clips takes on disk.
        ahead: Whether windows beyond the front ones may be filled at all.
    """

    def __init__(self, *, clip_budget_bytes: int, num_lanes: int, window_bytes: int, ahead: bool = True) -> None:
        self.clip_budget_bytes = clip_budget_bytes
        self.num_lanes = num_lanes
        self.largest_clip_bytes = clip_budget_bytes // (num_lanes + 2)
        """The largest clip, as it lies on disk, that this budget can work with."""
        self.range_bytes = max(1, min(_LARGEST_RANGE_BYTES, clip_budget_bytes // (4 * num_lanes)))
        """Compressed bytes of a full ranged read."""
        self._least_range_bytes = min(_LEAST_RANGE_BYTES, max(1, self.range_bytes // 2))
        self._share_bytes = max(window_bytes, self.largest_clip_bytes)
        assert self._share_bytes * num_lanes <= clip_budget_bytes
        self._ahead = ahead
        self._held: list[OrderedDict[int, int]] = [OrderedDict() for _ in range(num_lanes)]
        self._announced = [0] * num_lanes
        self._reading = [True] * num_lanes

    def smallest_budget_for(self, clip_bytes: int) -> int:
        """Return the smallest clip budget that can work with a clip of this size on disk."""
        return clip_bytes * (self.num_lanes + 2)

    def may_admit(self, lane: int, window: int, size_bytes: int) -> bool:
        """Whether a clip of this size on disk may be written now for a window of a lane."""
        assert size_bytes <= self.largest_clip_bytes
        if self._is_front(lane, window):
            return True
        return self._ahead and self._committed_bytes() + size_bytes <= self.clip_budget_bytes

    def admit(self, lane: int, window: int, size_bytes: int) -> None:
        """Book a clip that may be admitted, from before its first byte is written."""
        held = self._held[lane]
        held[window] = held.get(window, 0) + size_bytes
        self._announced[lane] = max(0, self._announced[lane] - size_bytes)
        assert self.held_bytes <= self.clip_budget_bytes, f"{format_bytes(self.held_bytes)} of clips are admitted"

    def free(self, lane: int, window: int, size_bytes: int) -> None:
        """Book that a clip of a window is deleted."""
        self._held[lane][window] -= size_bytes

    def finish_window(self, lane: int, window: int) -> None:
        """Book that a lane's front window is used up; all its clips are deleted."""
        left_bytes = self._held[lane].pop(window, 0)
        assert left_bytes == 0, f"window {window} of lane {lane} still holds {left_bytes} bytes"

    def finish_reading(self, lane: int) -> None:
        """Book that no more clips will come for a lane: its share is free for the others."""
        self._reading[lane] = False
        self._announced[lane] = 0

    def resume_reading(self, lane: int) -> None:
        """Book that a lane whose windows are all used up reads on."""
        assert not self._held[lane]
        self._reading[lane] = True

    def next_range_bytes(self, lane: int, window: int) -> int:
        """Return how many compressed bytes a lane may ask for now; 0 where it must wait for room.

        Args:
            lane: The lane.
            window: The window that its next clip falls in.
        """
        front = self._is_front(lane, window)
        if not (front or self._ahead):
            return 0
        announced_bytes = sum(self._announced) - self._announced[lane]
        ahead_bytes = self.clip_budget_bytes - self._committed_bytes() - announced_bytes
        if front:
            front_bytes = self._share_bytes - self._held[lane].get(window, 0)
            return max(self._least_range_bytes, min(self.range_bytes, front_bytes + max(0, ahead_bytes)))
        if ahead_bytes < max(self._least_range_bytes, self.range_bytes // 2):
            return 0
        return min(self.range_bytes, ahead_bytes)

    def announce(self, lane: int, size_bytes: int) -> None:
        """Book the bytes of a ranged read that begins (or, with 0, has ended)."""
        self._announced[lane] = size_bytes

    @property
    def held_bytes(self) -> int:
        """Bytes on disk of all admitted clips."""
        return sum(sum(held.values()) for held in self._held)

    def _is_front(self, lane: int, window: int) -> bool:
        held = self._held[lane]
        return not held or next(iter(held)) == window

    def _committed_bytes(self) -> int:
        return sum(map(self._commitment, range(len(self._held))))

    def _commitment(self, lane: int) -> int:
        sizes = list(self._held[lane].values())
        if not self._reading[lane]:
            return sum(sizes)
        return max(self._share_bytes, sizes[0] if sizes else 0) + sum(sizes[1:])
