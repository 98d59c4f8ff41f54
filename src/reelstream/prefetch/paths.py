"""Clips that samples hold by their path: each file stays until the step that uses it is done, or as long as is safe.

A path lives until the first of these:

- `PathLease.release` (or the end of its `with`);
- the trainer tells that its sample, or a later one, is consumed;
- its sample was let go of (collated to something else, sent to another process), and `lease_samples` later samples
  were served since; before that where the next sample cannot come otherwise, oldest first: a warning says so once.

As long as somebody holds the lease itself, the path lives too. Whoever holds so many that the next clip finds no room
gets an error, after a while in which another thread may let go of some.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from reelstream.cache import ClipFile, Lease
from reelstream.errors import BudgetTooSmallError
from reelstream.types import Position
from reelstream.units import count, format_bytes, format_seconds

# As many positions are remembered as a dataset remembers whose consumption nobody tells.
_LONGEST_MEMORY = 1 << 16
# A lease that is garbage wakes nobody, since the collector may run anywhere, in the middle of our own books too.
_LOOK_AGAIN_S = 1.0


class PathLease:
    """A sample's hold on its clip's file. A context manager.

    Sent to another process it is a mere path, whose file lives for `lease_samples` later samples.
    """

    def __init__(self, path: Path, release: Callable[[], None] | None = None) -> None:
        self._path = path
        self._release = release

    @property
    def path(self) -> Path:
        """The clip's file, absolute."""
        return self._path

    def release(self) -> None:
        """Let go of the file, which may be deleted at once; a second call does nothing."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __reduce__(self) -> tuple[type[PathLease], tuple[Path]]:
        return PathLease, (self._path,)


@dataclass(slots=True, kw_only=True)
class _Lent:
    lease: Lease
    file: ClipFile
    collected: bool = False
    """Whether nobody holds the sample's lease any more."""


class PathLeases:
    """The paths that are out, over all epochs of a session. Thread-safe.

    Args:
        lease_samples: How many samples later a path ends that nobody holds.
        give_up_after_s: How long the consumer waits for room that held paths take.
    """

    def __init__(self, *, lease_samples: int, give_up_after_s: float) -> None:
        self._lease_samples = lease_samples
        self._give_up_after_s = give_up_after_s
        self._lock = threading.Lock()
        self._lent: OrderedDict[int, _Lent] = OrderedDict()
        self._recent: deque[int] = deque()
        # Filled by finalizers, which may run in any thread at any time, hence without a lock.
        self._collected: deque[int] = deque()
        self._numbers: OrderedDict[Position, int] = OrderedDict()
        self._next = 0
        self._has_warned = False
        self.on_release: Callable[[], None] = lambda: None
        """Called, without any lock, after room may have become free by a release."""

    def __len__(self) -> int:
        """Paths that live."""
        with self._lock:
            return len(self._lent)

    # ------------------------------------------------------------------ the pipeline's side

    def lend(self, position: Position, file: ClipFile, lease: Lease) -> PathLease:
        """Give a sample its path, and end those of samples that were let go of long enough ago.

        Args:
            position: Of the sample.
            file: Its clip's.
            lease: On it; ends with the path.
        """
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._lent[number] = _Lent(lease=lease, file=file)
            self._recent.append(number)
            self._numbers[position] = number
            while len(self._numbers) > _LONGEST_MEMORY:
                self._numbers.popitem(last=False)
            ended = self._note_collected()
            while self._recent and self._is_late(self._recent[0]):
                late = self._recent.popleft()
                if late in self._lent and self._lent[late].collected:
                    ended.append(self._lent.pop(late))
        _end(ended)
        path_lease = PathLease(lease.path.absolute(), lambda: self._end_one(number))
        weakref.finalize(path_lease, self._collected.append, number).atexit = False
        return path_lease

    def make_way(self, is_short: Callable[[], bool], *, waited_s: float, on_freed: Callable[[], None]) -> float | None:
        """End paths that nobody holds, oldest first, as long as the next sample cannot come for lack of room.

        Args:
            is_short: Whether that is so.
            waited_s: How long it has been so.
            on_freed: Called where paths have ended.

        Returns:
            After how many seconds to look again; None where that is not needed.

        Raises:
            BudgetTooSmallError: Where held paths take the room, and nobody has let go of one for too long.
        """
        with self._lock:
            ended = self._note_collected()
            _end(ended)
            while is_short() and (lent := self._oldest_in_the_way()) is not None:
                _end([lent])
                ended.append(lent)
                self._warn()
            if ended:
                on_freed()
            held = {lent.file: None for lent in self._lent.values() if lent.file.deleted}
            if not held or not is_short():
                return None
            held_bytes = sum(file.reserved_bytes for file in held)
        if waited_s < self._give_up_after_s:
            return min(_LOOK_AGAIN_S, self._give_up_after_s)
        raise BudgetTooSmallError(
            f"the next clip has waited {format_seconds(waited_s)} for room on disk, and {format_bytes(held_bytes)} "
            f"of it are taken by {count(len(held), 'used-up clip')} whose samples' leases are still held",
            'let go of samples, or call sample["lease"].release(), once a step has used them; or raise disk_budget',
        )

    # ------------------------------------------------------------------ the consumer's side

    def consumed(self, position: Position) -> None:
        """End the paths of a sample and of all that were served before it."""
        with self._lock:
            last = self._numbers.get(position)
            if last is None:
                return
            while self._numbers and next(iter(self._numbers.values())) <= last:
                self._numbers.popitem(last=False)
            ended = [self._lent.pop(number) for number in list(self._lent) if number <= last]
        _end(ended)
        self.on_release()

    def close(self) -> None:
        """End all paths."""
        with self._lock:
            ended = list(self._lent.values())
            self._lent.clear()
            self._recent.clear()
            self._numbers.clear()
        _end(ended)
        self.on_release()

    # ------------------------------------------------------------------ inside

    def _end_one(self, number: int) -> None:
        with self._lock:
            lent = self._lent.pop(number, None)
        if lent is not None:
            _end([lent])
            self.on_release()

    def _is_late(self, number: int) -> bool:
        return self._next - 1 - number >= self._lease_samples

    def _note_collected(self) -> list[_Lent]:
        """Note whose samples are gone; take out those whose time had come before."""
        ended = []
        while self._collected:
            number = self._collected.popleft()
            lent = self._lent.get(number)
            if lent is not None:
                lent.collected = True
                if self._is_late(number):
                    ended.append(self._lent.pop(number))
        return ended

    def _oldest_in_the_way(self) -> _Lent | None:
        """Take out the oldest path that nobody holds, of a clip that waits for its paths' ends alone."""
        held = {lent.file for lent in self._lent.values() if not lent.collected}
        for number, lent in self._lent.items():
            if lent.file.deleted and lent.file not in held:
                return self._lent.pop(number)
        return None

    def _warn(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                "paths of samples end before lease_samples later ones were served, since the next clip needs their "
                "room: where a step uses paths that late, raise disk_budget, or keep the samples until it is done",
                RuntimeWarning,
                stacklevel=2,
            )


def _end(ended: list[_Lent]) -> None:
    for lent in ended:
        lent.lease.end()
