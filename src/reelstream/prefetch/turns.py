"""Which lanes read at once: connections go to the lanes whose samples run out first."""

from __future__ import annotations

from collections.abc import Sequence

from reelstream.cache import Room


class RangeTurns:
    """The books of ranged reads. Not thread-safe: its owner holds a lock.

    A lane whose read pauses, because a clip waits for room or no more clips are wanted of it, keeps no other from
    reading: it might wait for the very clips that the other would bring.

    Args:
        most_open: Reads at once, those that pause apart.
    """

    def __init__(self, most_open: int) -> None:
        self._most_open = most_open
        self._wanted: dict[int, int] = {}
        self._granted: dict[int, int] = {}
        self._open: set[int] = set()
        self._paused: set[int] = set()
        self._coming_back: set[int] = set()

    @property
    def num_open(self) -> int:
        """Reads that are granted and have not ended, those that pause apart."""
        return len(self._open - self._paused)

    def want(self, lane: int, window: int) -> None:
        """Note that a lane would read on; its next clip falls in `window`."""
        self._wanted[lane] = window

    def grant(self, room: Room, ready: Sequence[int]) -> bool:
        """Let lanes read, as far as there are connections and room; return whether any was let.

        Args:
            room: Says how many bytes a lane may ask for.
            ready: Samples of each lane that are on disk and not served.
        """
        any_granted = self._let_come_back()
        while self.num_open < self._most_open:
            sizes = {lane: room.next_range_bytes(lane, window) for lane, window in self._wanted.items()}
            lanes = [(ready[lane], lane) for lane, size_bytes in sizes.items() if size_bytes]
            if not lanes:
                break
            lane = min(lanes)[1]
            del self._wanted[lane]
            self._open.add(lane)
            self._granted[lane] = sizes[lane]
            room.announce(lane, sizes[lane])
            any_granted = True
        return any_granted

    def take(self, lane: int) -> int:
        """Return the bytes that were granted to a lane, once; 0 where nothing is."""
        return self._granted.pop(lane, 0)

    def end(self, lane: int, room: Room) -> None:
        """Note that a lane's read has ended."""
        self._open.remove(lane)
        self._paused.discard(lane)
        room.announce(lane, 0)

    def pause(self, lane: int) -> None:
        """Note that a lane waits in the middle of its read, or outside of one."""
        self._paused.add(lane)

    def come_back(self, lane: int) -> None:
        """Note that a lane would go on with what it paused; it may once `is_paused` is false."""
        if lane in self._open:
            self._coming_back.add(lane)
        else:
            self._paused.remove(lane)

    def is_paused(self, lane: int) -> bool:
        """Return whether a lane pauses, or has not got its connection back."""
        return lane in self._paused

    def _let_come_back(self) -> bool:
        """Let lanes go on that had paused, before any other begins; return whether any was let."""
        lanes = sorted(self._coming_back)[: max(0, self._most_open - self.num_open)]
        self._coming_back.difference_update(lanes)
        self._paused.difference_update(lanes)
        return bool(lanes)
