"""`train.max_time`: when a run must have left, and when it must begin to leave for that."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from reelstream.clock import Clock, SystemClock
from reelstream.interrupt import SignalReceiver
from reelstream.telemetry.events import CheckpointPushed, CheckpointSaved, Event, StepFinished

REASON = "train.max_time"
"""What the run's end is said to come from."""

# Steps and saves vary, and the last one must not be the first that takes longer.
_SLACK = 1.25
# What closes after the last save: dataset, report, interpreter.
_SHORTEST_FAREWELL_S, _LONGEST_FAREWELL_S, _FAREWELL_SHARE = 5.0, 60.0, 0.01
# A first save is taken to be as slow as a poor network disk, a first push as a home's uplink, within a share of all.
_SAVE_BYTES_PER_S, _PUSH_BYTES_PER_S, _LONGEST_PUSH_SHARE = 50e6, 5e6, 0.2


class Needs:
    """What the way out takes: measured where it has happened, estimated from the checkpoint's size before."""

    def __init__(self, *, pushes: bool) -> None:
        self._pushes = pushes
        self._size_bytes = 0
        self._step_s = 0.0
        self._save_s = 0.0
        self._push_s = 0.0

    def expect(self, checkpoint_bytes: int) -> None:
        """Note the size that a checkpoint will have."""
        self._size_bytes = checkpoint_bytes

    def note(self, event: Event) -> bool:
        """Note how long a step, a save or a push took; return whether none before took as long."""
        before = (self._step_s, self._save_s, self._push_s)
        match event:
            case StepFinished():
                # The wait for data is left at once.
                self._step_s = max(self._step_s, event.train_s)
            case CheckpointSaved():
                self._save_s = max(self._save_s, event.wait_s)
            case CheckpointPushed():
                self._push_s = max(self._push_s, event.wait_s)
        return before != (self._step_s, self._save_s, self._push_s)

    def room_s(self, max_time_s: float) -> float:
        """Return the seconds from the wish to leave to the end of the process: step, save, push, farewell."""
        save_s = self._save_s or self._size_bytes / _SAVE_BYTES_PER_S
        estimate_s = min(self._size_bytes / _PUSH_BYTES_PER_S, _LONGEST_PUSH_SHARE * max_time_s)
        push_s = (self._push_s or estimate_s) if self._pushes else 0.0
        return _SLACK * (self._step_s + save_s + push_s) + farewell_s(max_time_s)


def farewell_s(max_time_s: float) -> float:
    """Return the seconds that closing takes at most: a hundredth of all, from 5 s to a minute."""
    return min(_LONGEST_FAREWELL_S, max(_SHORTEST_FAREWELL_S, _FAREWELL_SHARE * max_time_s))


class Deadline:
    """Wishes the run's end in time, once; a telemetry sink, since the events say how long steps and saves take.

    Args:
        max_time_s: Seconds from the process's start to its end; None wishes nothing, ever.
        pushes: Whether the last checkpoint has to be pushed, too.
        clock: The time.
        age_s: Seconds that the process has run already; found where None.
    """

    def __init__(
        self, max_time_s: float | None, *, pushes: bool = False, clock: Clock | None = None, age_s: float | None = None
    ) -> None:
        self._max_time_s = max_time_s
        self._clock = clock or SystemClock()
        self._start_s = self._clock.monotonic() - (process_age_s() if age_s is None else age_s)
        self._needs = Needs(pushes=pushes)
        self._changed = threading.Event()
        self._lock = threading.Lock()
        self._receivers: list[SignalReceiver] = []
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="reelstream-deadline", daemon=True)

    def __enter__(self) -> Self:
        if self._max_time_s is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed = True
        self._changed.set()
        if self._thread.ident is not None:
            self._thread.join()

    @contextlib.contextmanager
    def telling(self, receiver: SignalReceiver) -> Iterator[None]:
        """Let `receiver` have the wish as long as the block runs, in place of those outside of it."""
        with self._lock:
            self._receivers.append(receiver)
        self._changed.set()
        try:
            yield
        finally:
            with self._lock:
                self._receivers.remove(receiver)

    def expect(self, checkpoint_bytes: int) -> None:
        """Note the size that a checkpoint will have."""
        self._needs.expect(checkpoint_bytes)
        self._changed.set()

    def receive(self, wall_s: float, event: Event) -> None:  # noqa: ARG002 - the sink's protocol
        """Note how long a step, a save or a push took."""
        if self._needs.note(event):
            self._changed.set()

    @property
    def left_s(self) -> float | None:
        """Seconds in which the process may still do things before it closes; None where there is no end to it."""
        if self._max_time_s is None:
            return None
        return max(0.0, self._start_s + self._max_time_s - farewell_s(self._max_time_s) - self._clock.monotonic())

    def wait_s(self) -> float:
        """Return the seconds until the run must begin to leave; 0 where it must now."""
        assert self._max_time_s is not None, "asked only where there is an end"
        begin_s = self._start_s + self._max_time_s - self._needs.room_s(self._max_time_s)
        return max(0.0, begin_s - self._clock.monotonic())

    def _run(self) -> None:
        wished = False
        while not self._closed:
            wait_s = self.wait_s()
            with self._lock:
                if wait_s == 0 and self._receivers and not wished:
                    wished = True
                    self._receivers[-1].request(REASON)
            # Steps grow longer in between: what is far is looked at again half way.
            self._clock.wait(self._changed, 3600.0 if wait_s == 0 else max(0.02, wait_s / 2))
            self._changed.clear()


def process_age_s() -> float:
    """Return the seconds since this process began; where the system does not tell, since this module was loaded."""
    since_import_s = SystemClock().monotonic() - _LOADED_S
    try:
        # Field 22 of proc(5), in ticks since boot; the second field, in parentheses, may hold blanks.
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        ticks = int(fields[19])
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return since_import_s
    # Sandboxes that emulate the file write 0 there, or another clock's ticks.
    return age_s if ticks > 0 and age_s >= since_import_s else since_import_s


_LOADED_S = SystemClock().monotonic()
