"""Clips that stay after their last use, so that the next epoch need not fetch them.

What is kept is never evicted within a run for the sake of another clip: with each clip used once an epoch the least
recently used one is the one that is needed next, and a cache that evicts it would hit almost never; one that never
evicts hits its share of the dataset. The safety valve is `give_up`, for a clip that would otherwise not fit at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from reelstream.cache.clips import ClipFile

# How much larger than the mean a full window's clips may be together before room has to be made for them.
_WINDOW_MARGIN = 1.25
# Room for ranged reads of a sensible size, however small the clips.
_LEAST_WINDOW_BYTES = 1 << 20
# The dataset's size on disk is an estimate, made from its archives' sizes.
_DATASET_MARGIN = 1.05


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepLimits:
    """How the clip budget is divided between clips that stay and clips that come and go."""

    kept_bytes: int
    """The most that may stay."""
    moving_bytes: int | None
    """What windows that come and go have for themselves; None where all clips fit, and there is nothing to protect."""

    @classmethod
    def of(
        cls,
        *,
        clip_budget_bytes: int,
        num_lanes: int,
        window_clips: int,
        window_bytes: int,
        mean_clip_bytes: float,
        num_clips: int,
    ) -> Self:
        """Leave two full windows a lane to those that come and go; keep all clips where all of them fit.

        Args:
            clip_budget_bytes: What all clips may take on disk together.
            num_lanes: Number of lanes.
            window_clips: The most clips of a window.
            window_bytes: The most that a window of several clips takes on disk.
            mean_clip_bytes: Of a clip, on disk.
            num_clips: Clips that the run uses in an epoch.
        """
        if num_clips * mean_clip_bytes * _DATASET_MARGIN <= clip_budget_bytes:
            return cls(kept_bytes=clip_budget_bytes, moving_bytes=None)
        full_bytes = max(_LEAST_WINDOW_BYTES, int(window_clips * mean_clip_bytes * _WINDOW_MARGIN))
        moving_bytes = min(clip_budget_bytes, 2 * num_lanes * min(window_bytes, full_bytes))
        return cls(kept_bytes=clip_budget_bytes - moving_bytes, moving_bytes=moving_bytes)


@dataclass(slots=True)
class _Kept:
    file: ClipFile
    visits: int = 0
    """Windows that use it now."""
    bad: bool = False
    """Found bad: it goes when the last visit lets go of it."""


class KeptClips:
    """The clips of a run that stay, by their number in the catalog. Not thread-safe: its owner holds a lock.

    It keeps books only: a kept clip stays in its cache and in the account; whoever is told that one does not stay
    deletes it there.

    Args:
        limit_bytes: The most, as on disk, that `offer` takes in.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._clips: dict[int, _Kept] = {}
        self.used_bytes = 0
        """On disk, of all that is kept."""
        self.idle_bytes = 0
        """Of those that no visit uses: what `give_up` can give."""

    def __contains__(self, number: int) -> bool:
        kept = self._clips.get(number)
        return kept is not None and not kept.bad

    def __len__(self) -> int:
        return len(self._clips)

    @property
    def files(self) -> list[ClipFile]:
        """All that is kept, the first kept first."""
        return [kept.file for kept in self._clips.values()]

    def take(self, number: int) -> ClipFile | None:
        """Return a kept clip for a visit; it is not given up until the visit passes it to `offer` or `discard`."""
        kept = self._clips.get(number)
        if kept is None or kept.bad:
            return None
        if not kept.visits:
            self.idle_bytes -= kept.file.reserved_bytes
        kept.visits += 1
        return kept.file

    def offer(self, number: int, file: ClipFile) -> bool:
        """A visit has used its clip for the last time; return whether the file stays. Else the caller deletes it.

        Args:
            number: The clip's.
            file: The visit's: one that `take` gave, or one that it brought itself.
        """
        kept = self._clips.get(number)
        if kept is not None and kept.file is file:
            return self._end_visit(number, kept)
        if kept is not None or self.used_bytes + file.reserved_bytes > self.limit_bytes or not file.reserved_bytes:
            # A file of no bytes is no clip, and would be kept where nothing shall be.
            return False
        self.restore(number, file)
        return True

    def restore(self, number: int, file: ClipFile) -> None:
        """Keep a clip of a run before, beyond the limit where need be: then it goes after its next visit."""
        assert number not in self._clips
        self._clips[number] = _Kept(file)
        self.used_bytes += file.reserved_bytes
        self.idle_bytes += file.reserved_bytes

    def discard(self, number: int, file: ClipFile) -> bool:
        """A visit has found its clip bad; return whether the file has to stay, since another visit uses it as well.

        Else the caller deletes it. No further visit is given the file.
        """
        kept = self._clips.get(number)
        if kept is None or kept.file is not file:
            return False
        kept.bad = True
        return self._end_visit(number, kept)

    def give_up(self, size_bytes: int) -> list[ClipFile]:
        """Let go of clips that no visit uses, the last kept first, until they make up `size_bytes` or none is left.

        The caller deletes them. For a clip that would otherwise not fit at all.
        """
        given_up = []
        for number in self._newest_idle():
            if size_bytes <= 0:
                break
            file = self._remove(number)
            size_bytes -= file.reserved_bytes
            given_up.append(file)
        return given_up

    def end_visits(self) -> None:
        """The epoch is over, or broken off: no visit uses any clip. Those found bad, or beyond the limit, are left out.

        Whoever clears the cache after this keeps `files` alone.
        """
        for number, kept in list(self._clips.items()):
            if kept.visits:
                kept.visits = 1
                self._end_visit(number, kept)

    def _end_visit(self, number: int, kept: _Kept) -> bool:
        assert kept.visits > 0, f"clip {number} is kept, and not in use"
        kept.visits -= 1
        if kept.visits:
            return True
        self.idle_bytes += kept.file.reserved_bytes
        if kept.bad or self.used_bytes > self.limit_bytes:
            self._remove(number)
            return False
        return True

    def _newest_idle(self) -> Iterator[int]:
        return iter([number for number, kept in reversed(self._clips.items()) if not kept.visits])

    def _remove(self, number: int) -> ClipFile:
        file = self._clips.pop(number).file
        self.used_bytes -= file.reserved_bytes
        self.idle_bytes -= file.reserved_bytes
        return file
