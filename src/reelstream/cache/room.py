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

The clips of a window come in any order, and some may be deleted before others arrive; a window stays a lane's front one
until it is finished.

Clips that are *kept* lie in the same budget. One that no window uses is as good as free: it can be given up for a clip
of a front window, see `shortage_bytes`. One that a window uses *in place* is booked in that window like a clip that is
written for it, so that the shares hold with all that cannot be given up; it only takes no room of those that move.
Read-ahead shall push out nothing that is kept. So the same shares are cut once more, smaller, out of what is left for
clips that move, and windows ahead must find room there as well:

```
clip budget │ kept                 │ moving: share of lane 0 │ … │ share of lane L-1 │ for all │
```

Half of what moves is for all there, as it roughly is in the whole. As long as no window is larger than such a share,
nothing that is kept is ever given up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

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
        moving_bytes: What windows ahead may fill, together with the front ones: the clip budget less what may be kept.
            None where nothing is kept, or all of it fits.
    """

    def __init__(
        self,
        *,
        clip_budget_bytes: int,
        num_lanes: int,
        window_bytes: int,
        ahead: bool = True,
        moving_bytes: int | None = None,
    ) -> None:
        self.clip_budget_bytes = clip_budget_bytes
        self.num_lanes = num_lanes
        self.largest_clip_bytes = clip_budget_bytes // (num_lanes + 2)
        """The largest clip, as it lies on disk, that this budget can work with."""
        self._share_bytes = max(window_bytes, self.largest_clip_bytes)
        assert self._share_bytes * num_lanes <= clip_budget_bytes
        self._moving_limit_bytes = clip_budget_bytes if moving_bytes is None else moving_bytes
        assert 0 <= self._moving_limit_bytes <= clip_budget_bytes
        self._moving_share_bytes = min(self._share_bytes, self._moving_limit_bytes // (2 * num_lanes))
        most_bytes = clip_budget_bytes // (4 * num_lanes)
        self.range_bytes = max(1, min(most_bytes, _LARGEST_RANGE_BYTES, self._sensible_range_bytes()))
        """Compressed bytes of a full ranged read."""
        self._least_range_bytes = min(_LEAST_RANGE_BYTES, max(1, self.range_bytes // 2))
        self._ahead = ahead
        self._windows: list[OrderedDict[int, int]] = [OrderedDict() for _ in range(num_lanes)]
        self._held = [0] * num_lanes
        self._moving = [0] * num_lanes
        self._announced = [0] * num_lanes
        self._reading = [True] * num_lanes

    def smallest_budget_for(self, clip_bytes: int) -> int:
        """Return the smallest clip budget that can work with a clip of this size on disk."""
        return clip_bytes * (self.num_lanes + 2)

    def may_admit(self, lane: int, window: int, size_bytes: int, *, in_place: bool = False) -> bool:
        """Whether a clip of this size on disk may be written now for a window of a lane, or used where it lies.

        Args:
            lane: The lane.
            window: The front one, or another all windows before which have been admitted whole.
            size_bytes: On disk.
            in_place: Whether it is kept: nothing is written for it.
        """
        assert size_bytes <= self.largest_clip_bytes
        if self._is_front(lane, window):
            return True
        if not self._ahead:
            return False
        nobody = [0] * self.num_lanes
        if in_place:
            return size_bytes <= self._room_in_all_bytes(lane, nobody)
        return size_bytes <= self._room_bytes(lane, nobody)

    def shortage_bytes(self, lane: int, window: int, size_bytes: int, kept_bytes: int) -> int:
        """Return how much of what is kept must be given up before a clip that may be admitted is written.

        As much as no window uses of it always suffices. Deleted clips that are still being read count as gone: their
        readers end. Nothing is given up for windows ahead.

        Args:
            lane: The lane.
            window: The window of the clip that is to be written.
            size_bytes: Its size on disk.
            kept_bytes: What all kept clips take on disk, those in use included.
        """
        if not self._is_front(lane, window):
            return 0
        return max(0, sum(self._moving) + kept_bytes + size_bytes - self.clip_budget_bytes)

    def admit(self, lane: int, window: int, size_bytes: int, *, in_place: bool = False) -> None:
        """Book a clip that may be admitted, from before its first byte is written."""
        windows = self._windows[lane]
        windows[window] = windows.get(window, 0) + size_bytes
        self._held[lane] += size_bytes
        if not in_place:
            self._moving[lane] += size_bytes
            self._announced[lane] = max(0, self._announced[lane] - size_bytes)
        assert self.held_bytes <= self.clip_budget_bytes, f"{format_bytes(self.held_bytes)} of clips are admitted"

    def free(self, lane: int, window: int, size_bytes: int, *, in_place: bool = False) -> None:
        """Book that a window needs a clip no more: it is deleted, or kept from here on.

        Args:
            lane: The clip's lane.
            window: Its window.
            size_bytes: As admitted.
            in_place: As admitted.
        """
        self._windows[lane][window] -= size_bytes
        self._held[lane] -= size_bytes
        if not in_place:
            self._moving[lane] -= size_bytes
        assert 0 <= self._moving[lane] <= self._held[lane]

    def finish_window(self, lane: int, window: int) -> None:
        """Book that a lane's front window is used up; all its clips are freed, if it had any."""
        left_bytes = self._windows[lane].pop(window, 0)
        assert left_bytes == 0, f"window {window} of lane {lane} still holds {left_bytes} bytes"

    def finish_reading(self, lane: int) -> None:
        """Book that no more clips will come for a lane: its share is free for the others."""
        self._reading[lane] = False
        self._announced[lane] = 0

    def resume_reading(self, lane: int) -> None:
        """Book that a lane whose windows are all used up reads on."""
        assert not self._windows[lane]
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
        """Bytes on disk of all admitted clips, those used in place included."""
        return sum(self._held)

    def _sensible_range_bytes(self) -> int:
        # Half of a lane's part of what moves, as in the whole budget; however little moves, a front window is read.
        return max(2 * _LEAST_RANGE_BYTES, self._moving_limit_bytes // (4 * self.num_lanes))

    def _is_front(self, lane: int, window: int) -> bool:
        windows = self._windows[lane]
        return not windows or next(iter(windows)) == window

    def _room_bytes(self, lane: int, announced: Sequence[int]) -> int:
        """Return what a lane may have written more."""
        return min(self._room_in_all_bytes(lane, announced), self._room_to_move_bytes(lane, announced))

    def _room_in_all_bytes(self, lane: int, announced: Sequence[int]) -> int:
        """Return what a lane may take more: the rest of its share, and what the others leave of the part for all."""
        return self.clip_budget_bytes - self._taken_bytes(lane, self._held, announced, self._share_bytes)

    def _room_to_move_bytes(self, lane: int, announced: Sequence[int]) -> int:
        """Return the same of what is left for clips that move."""
        return self._moving_limit_bytes - self._taken_bytes(lane, self._moving, announced, self._moving_share_bytes)

    def _taken_bytes(self, lane: int, held: Sequence[int], announced: Sequence[int], share_bytes: int) -> int:
        """Return what a lane holds and what is not for it: what others hold or are about to, or their shares."""
        taken_bytes = held[lane]
        for other in range(self.num_lanes):
            if other != lane:
                others_bytes = held[other] + announced[other]
                taken_bytes += max(share_bytes, others_bytes) if self._reading[other] else others_bytes
        return taken_bytes
