"""Decoded frames in memory: each clip decoded once for all its samples, as far as memory allows."""

from __future__ import annotations

from collections.abc import Iterable

from reelstream.prefetch.windows import ResidentClip
from reelstream.types import DecodedClip


class FrameStore:
    """The policy of decoded memory. Not thread-safe: its owner holds a lock.

    What is needed first is decoded first; what is needed last goes first when memory is short, and is decoded again
    (Belady's rule, which can be followed here, since the order of use is known).

    Args:
        limit_bytes: Memory for frames, those being decoded included.
        estimate_bytes: The most that one clip's frames can take.
        most_in_flight: Clips being decoded at once: as many as there are threads, so that a clip which turns urgent
            does not queue behind others.
    """

    def __init__(self, *, limit_bytes: int, estimate_bytes: int, most_in_flight: int) -> None:
        self._limit_bytes = limit_bytes
        self._estimate_bytes = estimate_bytes
        self._most_in_flight = most_in_flight
        self._decoded: dict[ResidentClip, DecodedClip] = {}
        self._in_flight: set[ResidentClip] = set()
        self._used_bytes = 0

    @property
    def used_bytes(self) -> int:
        """Memory of decoded frames."""
        return self._used_bytes

    @property
    def num_in_flight(self) -> int:
        """Clips being decoded."""
        return len(self._in_flight)

    @property
    def num_decoded(self) -> int:
        """Clips whose frames are in memory."""
        return len(self._decoded)

    def get(self, clip: ResidentClip) -> DecodedClip | None:
        """Return a clip's frames; None where they are not in memory."""
        return self._decoded.get(clip)

    def choose(self, coming: Iterable[ResidentClip]) -> tuple[list[ResidentClip], bool]:
        """Choose clips to decode now, most urgent first; each counts as in flight from here on.

        Args:
            coming: Clips in order of their next use.

        Returns:
            The clips; and whether, with them, all that is coming is decoded or in flight.
        """
        chosen: list[ResidentClip] = []
        if len(self._in_flight) >= self._most_in_flight:
            return chosen, False
        for rank, clip in enumerate(coming):
            if clip in self._decoded or clip in self._in_flight or clip.problem is not None:
                continue
            if len(self._in_flight) >= self._most_in_flight:
                return chosen, False
            # The most urgent clip is decoded whatever the memory: nothing goes on without it.
            if not self._make_room(clip, whatever_the_memory=rank == 0):
                return chosen, False
            self._in_flight.add(clip)
            chosen.append(clip)
        return chosen, True

    def put(self, clip: ResidentClip, decoded: DecodedClip) -> None:
        """Take the frames of a clip that was in flight."""
        self._in_flight.discard(clip)
        if clip.left > 0 and clip.problem is None:
            self._decoded[clip] = decoded
            self._used_bytes += decoded.size_bytes

    def drop(self, clip: ResidentClip) -> None:
        """Forget a clip, decoded or in flight."""
        self._in_flight.discard(clip)
        decoded = self._decoded.pop(clip, None)
        if decoded is not None:
            self._used_bytes -= decoded.size_bytes

    def _make_room(self, clip: ResidentClip, *, whatever_the_memory: bool) -> bool:
        """Drop frames that are needed later than `clip`, as few as let one more clip in; return whether it comes in."""
        allowed_bytes = self._limit_bytes - (len(self._in_flight) + 1) * self._estimate_bytes
        if self._used_bytes <= allowed_bytes:
            return True
        later = sorted(
            (other for other in self._decoded if not other.uses or other.uses[0] > clip.uses[0]),
            key=lambda other: other.uses[0] if other.uses else 1 << 62,
            reverse=True,
        )
        fits = self._used_bytes - sum(self._decoded[other].size_bytes for other in later) <= allowed_bytes
        if not (fits or whatever_the_memory):
            return False
        for other in later:
            if self._used_bytes <= allowed_bytes:
                break
            self.drop(other)
        return True
