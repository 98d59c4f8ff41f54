"""Clips in memory: each decoded, or read, once for all its samples, as far as memory allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from reelstream.prefetch.windows import ResidentClip
from reelstream.types import ClipMedia


class MediaStore:
    """The policy of decoded memory. Not thread-safe: its owner holds a lock.

    What is needed first is loaded first; what is needed last goes first when memory is short, and is loaded again
    (Belady's rule, which can be followed here, since the order of use is known).

    Args:
        limit_bytes: Memory for what samples hold of clips, those being loaded included.
        expected_bytes: Tells the most that a clip can take.
        most_in_flight: Clips being loaded at once: as many as there are threads, so that a clip which turns urgent
            does not queue behind others.
    """

    def __init__(self, *, limit_bytes: int, expected_bytes: Callable[[ResidentClip], int], most_in_flight: int) -> None:
        self._limit_bytes = limit_bytes
        self._expected_bytes = expected_bytes
        self._most_in_flight = most_in_flight
        self._loaded: dict[ResidentClip, ClipMedia] = {}
        self._in_flight: set[ResidentClip] = set()
        self._used_bytes = 0

    @property
    def used_bytes(self) -> int:
        """Memory of loaded clips."""
        return self._used_bytes

    @property
    def num_in_flight(self) -> int:
        """Clips being loaded."""
        return len(self._in_flight)

    @property
    def num_decoded(self) -> int:
        """Clips that are in memory."""
        return len(self._loaded)

    def get(self, clip: ResidentClip) -> ClipMedia | None:
        """Return what is in memory of a clip; None where nothing is."""
        return self._loaded.get(clip)

    def choose(self, coming: Iterable[ResidentClip]) -> tuple[list[ResidentClip], bool]:
        """Choose clips to load now, most urgent first; each counts as in flight from here on.

        Args:
            coming: Clips in order of their next use.

        Returns:
            The clips; and whether, with them, all that is coming is loaded or in flight.
        """
        chosen: list[ResidentClip] = []
        if len(self._in_flight) >= self._most_in_flight:
            return chosen, False
        for rank, clip in enumerate(coming):
            if clip in self._loaded or clip in self._in_flight or clip.problem is not None:
                continue
            if len(self._in_flight) >= self._most_in_flight:
                return chosen, False
            # The most urgent clip is loaded whatever the memory: nothing goes on without it.
            if not self._make_room(clip, whatever_the_memory=rank == 0):
                return chosen, False
            self._in_flight.add(clip)
            chosen.append(clip)
        return chosen, True

    def put(self, clip: ResidentClip, media: ClipMedia) -> None:
        """Take a clip that was in flight."""
        self._in_flight.discard(clip)
        if clip.left > 0 and clip.problem is None:
            self._loaded[clip] = media
            self._used_bytes += media.size_bytes

    def drop(self, clip: ResidentClip) -> None:
        """Forget a clip, loaded or in flight."""
        self._in_flight.discard(clip)
        media = self._loaded.pop(clip, None)
        if media is not None:
            self._used_bytes -= media.size_bytes

    def _make_room(self, clip: ResidentClip, *, whatever_the_memory: bool) -> bool:
        """Drop what is needed later than `clip`, as little as lets it in; return whether it comes in."""
        coming_bytes = sum(map(self._expected_bytes, self._in_flight)) + self._expected_bytes(clip)
        allowed_bytes = self._limit_bytes - coming_bytes
        if self._used_bytes <= allowed_bytes:
            return True
        later = sorted(
            (other for other in self._loaded if not other.uses or other.uses[0] > clip.uses[0]),
            key=lambda other: other.uses[0] if other.uses else 1 << 62,
            reverse=True,
        )
        fits = self._used_bytes - sum(self._loaded[other].size_bytes for other in later) <= allowed_bytes
        if not (fits or whatever_the_memory):
            return False
        for other in later:
            if self._used_bytes <= allowed_bytes:
                break
            self.drop(other)
        return True
