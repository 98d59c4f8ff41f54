"""How far work is, told every few seconds: a bar on a terminal, plain lines elsewhere, all on standard error."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from reelstream.clock import Clock, SystemClock
from reelstream.units import format_bytes, format_rate

# Often enough to see that it goes on, seldom enough to read.
_LINE_EVERY_S = 5.0
_BAR_EVERY_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class BytesDone:
    """How far a work of bytes is."""

    label: str
    """What is done now, as in `2 of 8 archives`."""
    done_bytes: int
    total_bytes: int
    """0 where it is not known."""


@contextlib.contextmanager
def told_progress(state: Callable[[], BytesDone], *, clock: Clock | None = None) -> Iterator[None]:
    """Tell how far work is as long as the block runs, from a thread of its own.

    Args:
        state: Says how far it is; called from the other thread.
        clock: The time.
    """
    console = Console(stderr=True)
    stop = threading.Event()
    tell = _tell_by_bar if console.is_terminal else _tell_by_lines
    thread = threading.Thread(
        target=tell, args=(state, stop, clock or SystemClock(), console), name="reelstream-progress"
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _tell_by_lines(state: Callable[[], BytesDone], stop: threading.Event, clock: Clock, _: Console) -> None:
    before_s, before_bytes = clock.monotonic(), state().done_bytes
    while not clock.wait(stop, _LINE_EVERY_S):
        now, now_s = state(), clock.monotonic()
        rate = (now.done_bytes - before_bytes) / max(1e-9, now_s - before_s)
        of_total = f" of {format_bytes(now.total_bytes)}" if now.total_bytes else ""
        print(
            f"{now.label}, {format_bytes(now.done_bytes)}{of_total} read, {format_rate(rate)}",
            file=sys.stderr,
            flush=True,
        )
        before_s, before_bytes = now_s, now.done_bytes


def _tell_by_bar(state: Callable[[], BytesDone], stop: threading.Event, clock: Clock, console: Console) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    # The thread that refreshes is this one.
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=None)

        def show() -> None:
            now = state()
            bar.update(task, description=now.label, completed=now.done_bytes, total=now.total_bytes or None)
            bar.refresh()

        show()
        while not clock.wait(stop, _BAR_EVERY_S):
            show()
        show()
