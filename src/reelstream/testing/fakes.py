"""Stand-ins for the outside world: time, files, whoever listens, and a Hub with a dataset on it."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelstream.hubserver import HubProcess
from reelstream.sampledata import SampleOptions, SampleSummary, make_sample
from reelstream.telemetry.events import Event

SMALL_SAMPLE = SampleOptions(num_clips=24, seed=1, clip_bytes=60_000, min_duration_s=1, max_duration_s=2, num_heldout=4)
"""24 clips of some 60 kB and 168 samples in two subsets, and 4 held-out clips: an epoch takes half a second."""


class FakeClock:
    """A `Clock` on which time passes by waiting only, and at once.

    Args:
        now_s: What both kinds of time begin at.
    """

    def __init__(self, now_s: float = 1_000_000.0) -> None:
        self.now_s = now_s
        self.waits_s: list[float] = []
        """Each wait that was asked for."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment."""
        return self.now_s

    def wall(self) -> float:
        """Seconds since the epoch: the same number."""
        return self.now_s

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Let so many seconds pass, unless `event` is set; return whether it is."""
        self.waits_s.append(seconds)
        if not event.is_set():
            self.now_s += seconds
        return event.is_set()


class Recorder:
    """A telemetry `Sink` that keeps the events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.walls_s: list[float] = []
        """When each was emitted."""

    def receive(self, wall_s: float, event: Event) -> None:
        """Keep an event."""
        self.walls_s.append(wall_s)
        self.events.append(event)

    def of(self, kind: type[Any]) -> list[Any]:
        """Return the events of a class, in their order."""
        return [event for event in self.events if isinstance(event, kind)]


class MemorySource:
    """A `ByteSource` in memory that notes what is read of it, and fails where it is told to.

    Args:
        content: The whole file.
        path: Names it in errors.
        chunk_bytes: The size of the chunks that it is read in.
        fail_after: Bytes, over all ranges, after which reading raises `error`; None never fails.
        error: What it raises.
    """

    def __init__(
        self,
        content: bytes,
        path: str = "bytes in memory",
        *,
        chunk_bytes: int = 1 << 16,
        fail_after: int | None = None,
        error: Exception | None = None,
    ) -> None:
        self.content = content
        self.chunk_bytes = chunk_bytes
        self.fail_after = fail_after
        self.error = error or TimeoutError("made to fail")
        self.ranges: list[tuple[int, int]] = []
        """Each range [first, end) that was begun."""
        self.read_bytes = 0
        """Bytes that were taken, over all ranges."""
        self.num_open = 0
        """Ranges that were neither read to their end nor closed."""
        self._path = path

    @property
    def path(self) -> str:
        """The name that it was given."""
        return self._path

    @property
    def size_bytes(self) -> int:
        """The number of bytes."""
        return len(self.content)

    def read(self, first_byte: int, end_byte: int) -> Iterator[bytes]:
        """Yield the range in chunks of `chunk_bytes`, the last one shorter."""
        assert 0 <= first_byte <= end_byte <= self.size_bytes, "a range lies within its file"
        self.ranges.append((first_byte, end_byte))
        self.num_open += 1
        try:
            for start in range(first_byte, end_byte, self.chunk_bytes):
                if self.fail_after is not None and self.read_bytes >= self.fail_after:
                    raise self.error
                chunk = self.content[start : min(start + self.chunk_bytes, end_byte)]
                self.read_bytes += len(chunk)
                yield chunk
        finally:
            self.num_open -= 1


@dataclass(frozen=True, slots=True)
class SampleHub:
    """A sample dataset on a Hub of its own."""

    hub: HubProcess
    """Its `stats` tell what was asked and sent; its faults can be ordered."""
    summary: SampleSummary
    """What the dataset holds, and where it lies."""

    @property
    def endpoint(self) -> str:
        """The address for `endpoint=`."""
        return self.hub.endpoint

    @property
    def repo_id(self) -> str:
        """The repository's name."""
        return self.summary.repo_id

    @property
    def subsets(self) -> list[str]:
        """Those to train on."""
        return [subset.name for subset in self.summary.subsets if not subset.heldout]


@contextlib.contextmanager
def sample_hub(options: SampleOptions = SMALL_SAMPLE, *, folder: Path | None = None) -> Iterator[SampleHub]:
    """Make a dataset whose clips show what their text says, and serve it on loopback as long as the block runs.

    Args:
        options: Of the dataset.
        folder: Where it is made, and found again the next time; None takes a temporary one.

    Raises:
        MissingExtraError: Where `reelstream[serve]` is not installed.
    """
    with contextlib.ExitStack() as stack:
        root = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reelstream-hub-")))
        summary = make_sample(root, options)
        yield SampleHub(stack.enter_context(HubProcess(root, faults=True)), summary)
