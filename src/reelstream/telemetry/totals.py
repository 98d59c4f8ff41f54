"""The figures of a whole run, added up from its events, and carried across a resume.

A resume rolls back what was *consumed* since the last checkpoint (steps, losses, books), but nothing gives back what
was *spent* on it (bytes, seconds, decoding). So the two are kept apart, and saved as two parts of one small JSON value:

```
{"version": 2, "consumed": {steps, losses, epochs, ...}, "spent": {bytes, requests, seconds, clips, ...}}
```
"""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from reelstream.errors import StateError
from reelstream.telemetry.events import (
    AddressResolved,
    ArchiveSuspect,
    BatchReady,
    CheckpointSaved,
    ClipArrived,
    ClipDecoded,
    ClipDeleted,
    ClipQuarantined,
    ClipReused,
    ClipsKept,
    EpochBooked,
    EpochStarted,
    Evaluated,
    Event,
    HeldOut,
    Leak,
    RangeFinished,
    Retried,
    RunStarted,
    Stalled,
    StepFinished,
)

STATE_VERSION = 2

MOST_LISTED = 1000
"""Quarantined clips, suspect archives and the like that are kept by name; beyond it they are counted only."""


@dataclass(slots=True)
class Consumed:
    """What finished steps consumed; a resume goes back to the checkpoint's."""

    steps: int = 0
    first_loss: float | None = None
    last_loss: float | None = None
    consumed_samples: dict[int, int] = field(default_factory=dict)
    """By epoch, as the trainer counts them, repeats included: independent of the books."""
    needed_bytes: dict[int, int] = field(default_factory=dict)
    """By epoch."""
    books: dict[int, EpochBooked] = field(default_factory=dict)
    """By epoch, the latest of each."""
    span_kinds: dict[int, str] = field(default_factory=dict)
    """By epoch, how its spans were bounded."""
    evaluations: dict[int, Evaluated] = field(default_factory=dict)
    """By step, the latest of each; up to `MOST_LISTED`, thinned out beyond."""
    held_out: HeldOut | None = None


@dataclass(slots=True)
class Spent:
    """What the run cost, steps that a resume made again included."""

    resumes: int = 0
    wall_s: float = 0.0
    first_batch_s: float | None = None
    """Of the run's first process."""
    received_bytes: int = 0
    received_bytes_by_epoch: dict[str, int] = field(default_factory=dict)
    saved_bytes: int = 0
    """That clips which were on disk already would have taken."""
    saved_bytes_by_epoch: dict[str, int] = field(default_factory=dict)
    reading_s: float = 0.0
    """Seconds in which at least one range was being read."""
    ranges: int = 0
    resolves: int = 0
    retries: int = 0
    retry_wait_s: float = 0.0
    clips_arrived: int = 0
    clip_bytes: int = 0
    clips_deleted: int = 0
    clips_reused: int = 0
    kept_clips: int = 0
    """At the end of the latest epoch."""
    kept_bytes: int = 0
    """At the end of the latest epoch, as the file system allocates it."""
    clips_decoded: int = 0
    clips_decoded_again: int = 0
    decode_cpu_s: float = 0.0
    train_s: float = 0.0
    stall_s: float = 0.0
    """Seconds that steps waited for their batches."""
    stall_by_stage_s: dict[str, float] = field(default_factory=dict)
    num_quarantined: int = 0
    quarantined: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By `subset/path`, up to `MOST_LISTED`."""
    num_suspect: int = 0
    suspect: dict[str, str] = field(default_factory=dict)
    """Reason by archive, up to `MOST_LISTED`."""
    num_suspect_clips: int = 0
    suspect_clips: list[str] = field(default_factory=list)
    """`subset/path`, up to `MOST_LISTED`."""
    num_leaks: int = 0
    leaks: dict[str, str] = field(default_factory=dict)
    """By the clip that is trained on, the held-out one of the same bytes, up to `MOST_LISTED`; both `subset/path`."""
    checkpoints: int = 0
    last_checkpoint_step: int | None = None
    checkpoint_bytes: int = 0
    """Of the latest."""
    checkpoint_s: float = 0.0


class BusyTime:
    """Seconds covered by at least one of many intervals that are told in the order of their ends.

    Remembers the latest 64 separate stretches; an interval that began before those counts the older ones again.
    """

    def __init__(self) -> None:
        self._settled_s = 0.0
        self._stretches: deque[tuple[float, float]] = deque()

    def add(self, start_s: float, end_s: float) -> None:
        """Count the interval."""
        while self._stretches and self._stretches[-1][1] >= start_s:
            earlier_start_s, earlier_end_s = self._stretches.pop()
            start_s, end_s = min(start_s, earlier_start_s), max(end_s, earlier_end_s)
        self._stretches.append((start_s, end_s))
        if len(self._stretches) > 64:
            first_s, last_s = self._stretches.popleft()
            self._settled_s += last_s - first_s

    @property
    def seconds(self) -> float:
        """Seconds covered so far."""
        return self._settled_s + sum(end_s - start_s for start_s, end_s in self._stretches)


class Totals:
    """A sink that adds events up; read it with `consumed` and `spent`, at any time and from any thread.

    Args:
        consumed: Where the checkpoint that a run goes on from had come to.
        spent: What the run had cost before.
    """

    def __init__(self, consumed: Consumed | None = None, spent: Spent | None = None) -> None:
        self._lock = threading.Lock()
        self._consumed = consumed or Consumed()
        self._spent = spent or Spent()
        self._earlier_wall_s = self._spent.wall_s
        self._earlier_reading_s = self._spent.reading_s
        self._reading = BusyTime()
        self._first_event_s: float | None = None
        self._epoch: str | None = None

    @property
    def consumed(self) -> Consumed:
        """A copy of what was consumed."""
        with self._lock:
            return dataclasses.replace(
                self._consumed,
                consumed_samples=dict(self._consumed.consumed_samples),
                needed_bytes=dict(self._consumed.needed_bytes),
                books=dict(self._consumed.books),
                span_kinds=dict(self._consumed.span_kinds),
                evaluations=dict(self._consumed.evaluations),
            )

    @property
    def spent(self) -> Spent:
        """A copy of what was spent."""
        with self._lock:
            return dataclasses.replace(
                self._spent,
                stall_by_stage_s=dict(self._spent.stall_by_stage_s),
                quarantined=dict(self._spent.quarantined),
                suspect=dict(self._spent.suspect),
                suspect_clips=list(self._spent.suspect_clips),
                leaks=dict(self._spent.leaks),
                received_bytes_by_epoch=dict(self._spent.received_bytes_by_epoch),
                saved_bytes_by_epoch=dict(self._spent.saved_bytes_by_epoch),
            )

    def receive(self, wall_s: float, event: Event) -> None:
        """Add `event`."""
        with self._lock:
            if self._first_event_s is None:
                self._first_event_s = wall_s
            self._spent.wall_s = self._earlier_wall_s + max(0.0, wall_s - self._first_event_s)
            self._add_network(wall_s, event)
            self._add_clips(event)
            self._add_progress(event)
            self._add_evaluation(event)

    def _add_network(self, wall_s: float, event: Event) -> None:
        spent = self._spent
        match event:
            case RangeFinished():
                spent.ranges += 1
                spent.received_bytes += event.received_bytes
                self._add_to_epoch(spent.received_bytes_by_epoch, event.received_bytes)
                self._reading.add(wall_s - event.wait_s, wall_s)
                spent.reading_s = self._earlier_reading_s + self._reading.seconds
            case AddressResolved():
                spent.resolves += 1
            case Retried():
                spent.retries += 1
                spent.retry_wait_s += event.wait_s
            case _:
                pass

    def _add_to_epoch(self, by_epoch: dict[str, int], size_bytes: int) -> None:
        if self._epoch is not None:
            by_epoch[self._epoch] = by_epoch.get(self._epoch, 0) + size_bytes

    def _add_clips(self, event: Event) -> None:
        spent = self._spent
        match event:
            case ClipArrived():
                spent.clips_arrived += 1
                spent.clip_bytes += event.size_bytes
            case ClipReused():
                spent.clips_reused += 1
                spent.saved_bytes += event.saved_bytes
                self._add_to_epoch(spent.saved_bytes_by_epoch, event.saved_bytes)
            case ClipsKept():
                spent.kept_clips, spent.kept_bytes = event.num_clips, event.size_bytes
            case ClipDecoded():
                spent.clips_decoded += 1
                spent.clips_decoded_again += event.again
                spent.decode_cpu_s += event.cpu_s
            case ClipDeleted():
                spent.clips_deleted += 1
            case ClipQuarantined():
                name = f"{event.subset}/{event.path}"
                spent.num_quarantined += name not in spent.quarantined
                if len(spent.quarantined) < MOST_LISTED:
                    spent.quarantined[name] = {"num_samples": event.num_samples, "reason": event.reason}
            case ArchiveSuspect():
                spent.num_suspect += event.path not in spent.suspect
                if len(spent.suspect) < MOST_LISTED:
                    spent.suspect[event.path] = event.reason
                spent.num_suspect_clips += len(event.clips)
                spent.suspect_clips += event.clips[: MOST_LISTED - len(spent.suspect_clips)]
            case _:
                pass

    def _add_progress(self, event: Event) -> None:
        spent, consumed = self._spent, self._consumed
        match event:
            case RunStarted(resumed_at_step=step) if step is not None:
                spent.resumes += 1
            case EpochStarted():
                # What a resumed epoch needs is what it needed when it began.
                consumed.needed_bytes.setdefault(event.epoch, event.needed_bytes)
                consumed.span_kinds[event.epoch] = event.span_kind
                self._epoch = str(event.epoch)
            case EpochBooked():
                consumed.books[event.epoch] = event
            case StepFinished():
                self._add_step(event)
            case BatchReady() if spent.first_batch_s is None:
                spent.first_batch_s = event.wait_s
            case Stalled():
                spent.stall_by_stage_s[event.stage] = spent.stall_by_stage_s.get(event.stage, 0.0) + event.wait_s
            case CheckpointSaved():
                spent.checkpoints += 1
                spent.last_checkpoint_step = event.step
                spent.checkpoint_bytes = event.size_bytes
                spent.checkpoint_s += event.wait_s
            case _:
                pass

    def _add_evaluation(self, event: Event) -> None:
        spent, consumed = self._spent, self._consumed
        match event:
            case Evaluated():
                _enter(event, consumed.evaluations)
            case HeldOut():
                consumed.held_out = event
            case Leak():
                spent.num_leaks += event.clip not in spent.leaks
                if len(spent.leaks) < MOST_LISTED:
                    spent.leaks[event.clip] = event.held_out
            case _:
                pass

    def _add_step(self, event: StepFinished) -> None:
        spent, consumed = self._spent, self._consumed
        consumed.steps += 1
        consumed.last_loss = event.loss
        if consumed.first_loss is None:
            consumed.first_loss = event.loss
        consumed.consumed_samples[event.epoch] = consumed.consumed_samples.get(event.epoch, 0) + event.num_samples
        spent.train_s += event.train_s
        spent.stall_s += event.data_wait_s

    def to_json(self) -> dict[str, Any]:
        """Return the state as a JSON value: saved with each checkpoint, and beside it at will (see `from_json`)."""
        return {
            "version": STATE_VERSION,
            "consumed": dataclasses.asdict(self.consumed),
            "spent": dataclasses.asdict(self.spent),
        }

    @classmethod
    def from_json(cls, checkpoint: dict[str, Any], latest: dict[str, Any] | None = None) -> Totals:
        """Return the totals of a run that goes on.

        Args:
            checkpoint: What `to_json` gave when the checkpoint was saved.
            latest: What it gave last, where that outlived the run: what was spent after the checkpoint then counts.

        Raises:
            StateError: One of them is of another version, or no such state.
        """
        return cls(_consumed_from_json(_checked(checkpoint)), _spent_from_json(_checked(latest or checkpoint)))


def _enter(event: Evaluated, evaluations: dict[int, Evaluated]) -> None:
    """Enter an evaluation; of too many every other one goes, so that they still tell of the whole run."""
    if len(evaluations) >= MOST_LISTED:
        for step in sorted(evaluations)[::2]:
            del evaluations[step]
    evaluations[event.step] = event


def _checked(state: dict[str, Any]) -> dict[str, Any]:
    version = state.get("version")
    if version != STATE_VERSION:
        raise StateError(f"The totals of the run are of version {version!r}; this Reelstream reads {STATE_VERSION}.")
    return state


def _spent_from_json(state: dict[str, Any]) -> Spent:
    try:
        return Spent(**state["spent"])
    except (KeyError, TypeError) as error:
        raise StateError(f"The totals of the run cannot be read: {error}") from error


def _consumed_from_json(state: dict[str, Any]) -> Consumed:
    # JSON writes the numbers of epochs as text.
    try:
        fields = state["consumed"]
        by_epoch = {
            name: {int(epoch): value for epoch, value in fields[name].items()}
            for name in ("consumed_samples", "needed_bytes", "span_kinds")
        }
        books = {int(epoch): EpochBooked(**booked) for epoch, booked in fields["books"].items()}
        evaluations = {int(step): Evaluated(**values) for step, values in fields["evaluations"].items()}
        held_out = None if fields["held_out"] is None else HeldOut(**fields["held_out"])
        return Consumed(**{**fields, **by_epoch, "books": books, "evaluations": evaluations, "held_out": held_out})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StateError(f"The totals of the run cannot be read: {error}") from error
