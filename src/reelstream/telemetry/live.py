"""What a person sees while a run goes on: a live view on a terminal, a plain line every few seconds elsewhere.

Fed by events, and by a callable for what moves too often for events. All of it is talk and goes to stderr; stdout is
left alone. Meaning never depends on colour.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from reelstream.clock import Clock, SystemClock
from reelstream.telemetry.evaluation import evaluation_note
from reelstream.telemetry.events import (
    ArchiveSuspect,
    ClipArrived,
    ClipDecoded,
    ClipQuarantined,
    EpochStarted,
    Evaluated,
    Event,
    Notice,
    Retried,
    StepFinished,
)
from reelstream.units import count, format_bytes, format_rate

TERMINAL_INTERVAL_S = 0.5
PLAIN_INTERVAL_S = 5.0

# The rate is that of the last seconds: long enough to be steady, short enough to show a stall.
_RATE_WINDOW_S = 10.0
# A run with thousands of bad clips must not scroll everything else away.
_MOST_NOTES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """What is read at each refresh, since it moves too often for events."""

    received_bytes: int
    """From the network so far, unfinished ranges included (`Telemetry.received_bytes`)."""
    disk_used_bytes: int
    disk_budget_bytes: int
    decoded_bytes: int = 0
    """Frames in memory."""
    num_samples: int = 0
    """Samples of the running epoch that steps consumed."""
    num_epoch_samples: int = 0
    """Samples of the running epoch in all; 0 where that is not known."""
    num_steps: int = 0
    """Steps of the run in all; 0 where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the events have said so far."""

    epoch: int | None = None
    step: int = 0
    loss: float | None = None
    step_s: float = 0.0
    stall_s: float = 0.0
    train_s: float = 0.0
    num_arrived: int = 0
    num_decoded: int = 0
    num_decoded_again: int = 0
    num_quarantined: int = 0
    num_retries: int = 0

    @property
    def stall_share(self) -> float:
        """The share of the trainer's time that it waited for data: low is good, 1 is a trainer that never trains."""
        busy_s = self.stall_s + self.train_s
        return self.stall_s / busy_s if busy_s else 0.0


def advance(figures: Figures, event: Event) -> Figures:
    """Return the figures after `event`."""
    changes: dict[str, Any] = {}
    match event:
        case EpochStarted():
            changes = {"epoch": event.epoch}
        case StepFinished():
            changes = {
                "epoch": event.epoch,
                "step": event.step,
                "loss": event.loss,
                "step_s": event.train_s,
                "stall_s": figures.stall_s + event.data_wait_s,
                "train_s": figures.train_s + event.train_s,
            }
        case ClipArrived():
            changes = {"num_arrived": figures.num_arrived + 1}
        case ClipDecoded():
            again = figures.num_decoded_again + event.again
            changes = {"num_decoded": figures.num_decoded + 1, "num_decoded_again": again}
        case ClipQuarantined():
            changes = {"num_quarantined": figures.num_quarantined + 1}
        case Retried():
            changes = {"num_retries": figures.num_retries + 1}
        case _:
            return figures
    return replace(figures, **changes)


def note_of(event: Event) -> str | None:
    """Return the line that a person should read once, where `event` is worth one."""
    match event:
        case Notice():
            return event.message
        case ClipQuarantined():
            return f"quarantined {event.subset}/{event.path}: {event.reason}"
        case ArchiveSuspect():
            return f"suspect archive {event.path}: {event.reason}"
        case Evaluated():
            return evaluation_note(event)
        case _:
            return None


class RateMeter:
    """Bytes a second over the last seconds."""

    def __init__(self, window_s: float = _RATE_WINDOW_S) -> None:
        self._window_s = window_s
        self._readings: deque[tuple[float, int]] = deque()

    def read(self, now_s: float, total_bytes: int) -> float:
        """Note a counter's reading; return the rate since the oldest one in the window, 0 at the first."""
        self._readings.append((now_s, total_bytes))
        while len(self._readings) > 2 and now_s - self._readings[0][0] > self._window_s:
            self._readings.popleft()
        first_s, first_bytes = self._readings[0]
        return (total_bytes - first_bytes) / (now_s - first_s) if now_s > first_s else 0.0


def plain_line(figures: Figures, gauges: Gauges, bytes_per_s: float) -> str:
    """Return the state of the run as one line for logs."""
    parts = [
        "starting" if figures.epoch is None else f"epoch {figures.epoch}",
        f"step {_of(figures.step, gauges.num_steps)}",
        f"loss {_loss(figures)}",
        f"download {format_rate(bytes_per_s)}",
        f"disk {format_bytes(gauges.disk_used_bytes)} of {format_bytes(gauges.disk_budget_bytes)}",
        f"{count(figures.num_decoded, 'clip')} decoded",
        f"waited {100 * figures.stall_share:.0f} %",
    ]
    if figures.num_quarantined:
        parts.append(f"{figures.num_quarantined:,} quarantined")
    return " | ".join(parts)


def _loss(figures: Figures) -> str:
    return "-" if figures.loss is None else f"{figures.loss:.3f}"


def _of(number: int, whole: int) -> str:
    return f"{number:,}/{whole:,}" if whole else f"{number:,}"


def panel(figures: Figures, gauges: Gauges, bytes_per_s: float) -> RenderableType:
    """Return the live view: a row each for download, cache, decode and train."""
    rows = Table.grid(padding=(0, 2), expand=True)
    rows.add_column(style="bold", no_wrap=True, width=8)
    rows.add_column(no_wrap=True, width=24)
    rows.add_column(ratio=1)
    download = f"{format_bytes(gauges.received_bytes)}, {count(figures.num_arrived, 'clip')}"
    if figures.num_retries:
        download += f", {count(figures.num_retries, 'retry', 'retries')}"
    rows.add_row("download", format_rate(bytes_per_s), Text(download))
    disk = f"{format_bytes(gauges.disk_used_bytes)} of {format_bytes(gauges.disk_budget_bytes)}"
    rows.add_row("cache", disk, _bar(gauges.disk_used_bytes, gauges.disk_budget_bytes))
    decoded = f"{format_bytes(gauges.decoded_bytes)} of frames in memory"
    if figures.num_decoded_again:
        decoded += f", {figures.num_decoded_again:,} decoded again"
    if figures.num_quarantined:
        decoded += f", {figures.num_quarantined:,} quarantined"
    rows.add_row("decode", count(figures.num_decoded, "clip"), Text(decoded))
    train = f"step {_of(figures.step, gauges.num_steps)}, loss {_loss(figures)}"
    waited = f"{figures.step_s:.2f} s a step, waited {100 * figures.stall_share:.0f} % for data"
    rows.add_row("train", train, Text(waited))
    if figures.epoch is not None:
        samples = f"{_of(gauges.num_samples, gauges.num_epoch_samples)} samples"
        rows.add_row(f"epoch {figures.epoch}", samples, _bar(gauges.num_samples, gauges.num_epoch_samples))
    return Group(Panel(rows, title="reelstream", title_align="left", padding=(0, 1)))


def _bar(done: int, whole: int) -> RenderableType:
    return ProgressBar(total=max(1, whole), completed=min(done, max(1, whole)))


class LiveView:
    """Shows the run until its block ends; a sink, so add it to the telemetry that it shall show.

    On a terminal a panel is drawn anew twice a second; elsewhere a plain line is written every five seconds. Notices,
    quarantined clips and suspect archives are written as lines of their own, the first twenty clips that is.

    Args:
        snapshot: Reads the gauges; called when the block begins and ends, and from the view's thread between.
        console: Where to show; stderr by default.
        clock: Tells when the next refresh is due.
        interval_s: Seconds between refreshes; by the kind of console by default.
    """

    def __init__(
        self,
        snapshot: Callable[[], Gauges],
        *,
        console: Console | None = None,
        clock: Clock | None = None,
        interval_s: float | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._console = console or Console(stderr=True)
        self._clock = clock or SystemClock()
        default_interval_s = TERMINAL_INTERVAL_S if self._console.is_terminal else PLAIN_INTERVAL_S
        self._interval_s = default_interval_s if interval_s is None else interval_s
        self._figures = Figures()
        self._notes: deque[str] = deque()
        self._num_clip_notes = 0
        self._rate = RateMeter()
        self._live: Live | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reelstream-live-view", daemon=True)
        self._stack = ExitStack()

    def receive(self, wall_s: float, event: Event) -> None:  # noqa: ARG002 - the protocol's
        """Take one event; it is shown at the next refresh."""
        self._figures = advance(self._figures, event)
        note = note_of(event)
        if note is None:
            return
        if isinstance(event, ClipQuarantined):
            self._num_clip_notes += 1
            if self._num_clip_notes == _MOST_NOTES + 1:
                note = "more clips quarantined; the report names them"
            elif self._num_clip_notes > _MOST_NOTES:
                return
        self._notes.append(note)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            # Our thread draws, at our clock. What others say on stderr goes above the panel; stdout is not ours.
            self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False, transient=True)
            self._stack.enter_context(self._live)
        # The first rate shown counts from here.
        self._rate.read(self._clock.monotonic(), self._snapshot().received_bytes)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        # The last state stays to be read, as a line; a run that never began has none, only what went wrong.
        self._stack.close()
        self._live = None
        self._show_notes()
        if self._figures.epoch is not None or error is None:
            self.refresh()

    def refresh(self) -> None:
        """Show the state of this moment, and what notes have come since the last refresh."""
        self._show_notes()
        gauges = self._snapshot()
        bytes_per_s = self._rate.read(self._clock.monotonic(), gauges.received_bytes)
        if self._live is not None:
            self._live.update(panel(self._figures, gauges, bytes_per_s), refresh=True)
        else:
            self._console.print(Text(plain_line(self._figures, gauges, bytes_per_s)), soft_wrap=True)

    def _show_notes(self) -> None:
        while self._notes:
            self._console.print(Text(self._notes.popleft()), soft_wrap=True)

    def _run(self) -> None:
        while not self._clock.wait(self._stop, self._interval_s):
            self.refresh()
