"""Who may put how much on disk, and when: the policy of the clip budget, pure, run as it is by the simulator too.

A lane's *front* window is the oldest one that is not used up; a lane that is still reading its front window must always
be able to finish it, or the trainer would wait for ever. So each lane that reads on has a share of the budget for
itself, as large as a window can be, and what its windows take beyond that comes out of a part for all:

```
clip budget │ share of lane 0 │ … │ share of lane L-1 │ for all, first come first served │
```

A lane begins its next window only when the one before has arrived whole. So a lane that still reads its front window
holds nothing else, and finds the rest of its share free; a lane that reads further ahead fills the room that its front
window leaves as it is used up. No window is larger than a share, and no clip larger than `clip budget / (L + 2)` is
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
        return self._ahead and size_bytes <= self._room_bytes(lane, [0] * self.num_lanes)

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
        room_bytes = min(self.range_bytes, self._room_bytes(lane, self._announced))
        if front:
            return max(self._least_range_bytes, room_bytes)
        return room_bytes if room_bytes >= max(self._least_range_bytes, self.range_bytes // 2) else 0

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

    def _room_bytes(self, lane: int, announced: list[int]) -> int:
        """Return what a lane may take more: the rest of its share, and what the others leave of the part for all."""
        others = (other for other in range(self.num_lanes) if other != lane)
        taken_bytes = sum(self._commitment(other, announced[other]) for other in others)
        return self.clip_budget_bytes - taken_bytes - sum(self._held[lane].values())

    def _commitment(self, lane: int, announced_bytes: int) -> int:
        """Return what is not for other lanes: what a lane holds or is about to, and its share while it reads."""
        held_bytes = sum(self._held[lane].values()) + announced_bytes
        return max(self._share_bytes, held_bytes) if self._reading[lane] else held_bytes
