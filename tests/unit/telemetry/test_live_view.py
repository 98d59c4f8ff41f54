from __future__ import annotations

import io
import re
import sys
import threading
from collections.abc import Callable

import pytest
from rich.console import Console

from reelstream.telemetry.events import ArchiveSuspect, ClipQuarantined, EpochStarted, Event, Notice
from reelstream.telemetry.live import Figures, Gauges, LiveView, RateMeter, advance, panel, plain_line
from unit.telemetry.run_events import booked, small_run, step

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class StepClock:
    """Lets the view's thread wake when the test says so, and stop when its event is set."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._tick = threading.Semaphore(0)
        self._waiting = threading.Semaphore(0)

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.now_s

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self._waiting.release()
        self._tick.acquire()
        self.now_s += seconds
        return event.is_set()

    def let_one_interval_pass(self) -> None:
        """Return when the view has shown what it shows at the end of the interval, and waits for the next."""
        self._tick.release()
        self._waiting.acquire()

    def started(self) -> None:
        self._waiting.acquire()

    def end(self, view: LiveView) -> None:
        """Wake the thread for the last time; the view's own stop comes after it, at the end of its block."""
        view._stop.set()
        self._tick.release()


def gauges(received_bytes: int = 0) -> Gauges:
    return Gauges(
        received_bytes=received_bytes,
        disk_used_bytes=45_000_000,
        disk_budget_bytes=60_000_000,
        decoded_bytes=12_000_000,
        num_samples=120,
        num_epoch_samples=480,
        num_steps=60,
    )


def figures_of(events: list[tuple[float, Event]]) -> Figures:
    figures = Figures()
    for _, event in events:
        figures = advance(figures, event)
    return figures


def recorded(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None, legacy_windows=False)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return _CONTROL.sub("", console.file.getvalue())


def test_figures_follow_the_events() -> None:
    figures = figures_of(small_run())
    assert (figures.epoch, figures.step, figures.loss) == (0, 2, 1.5)
    assert (figures.num_arrived, figures.num_decoded, figures.num_decoded_again) == (1, 2, 1)
    assert (figures.num_quarantined, figures.num_retries) == (1, 1)
    assert figures.stall_share == pytest.approx(2 / 6)


def test_events_without_a_figure_change_nothing() -> None:
    assert advance(Figures(), booked()) == Figures()
    assert Figures().stall_share == 0


def test_the_rate_is_that_of_the_last_seconds() -> None:
    meter = RateMeter(window_s=10)
    assert meter.read(0, 0) == 0
    assert meter.read(1, 5_000) == 5_000
    for second in range(2, 30):
        meter.read(second, 5_000)
    assert meter.read(30, 5_000) == 0


def test_a_plain_line_tells_where_the_run_is() -> None:
    assert plain_line(figures_of(small_run()), gauges(), 9_870_000) == (
        "epoch 0 | step 2/60 | loss 1.500 | download 9.87 MB/s | disk 45.0 MB of 60.0 MB | 2 clips decoded | "
        "waited 33 % | 1 quarantined"
    )
    assert plain_line(Figures(), gauges(), 0).startswith("starting | step 0/60 | loss - |")


def test_the_panel_has_a_row_for_each_stage_and_needs_no_colour() -> None:
    console = recorded(terminal=True)
    console.print(panel(figures_of(small_run()), gauges(8_000_000), 9_870_000))
    shown = text_of(console)
    for words in (
        "download",
        "9.87 MB/s",
        "8.00 MB, 1 clip, 1 retry",
        "45.0 MB of 60.0 MB",
        "2 clips",
        "12.0 MB of frames in memory, 1 decoded again, 1 quarantined",
        "step 2/60, loss 1.500",
        "2.00 s a step, waited 33 % for data",
        "120/480 samples",
    ):
        assert words in shown


def watched(console: Console, during: Callable[[LiveView, StepClock], None]) -> str:
    clock = StepClock()
    view = LiveView(gauges, console=console, clock=clock)
    with view:
        clock.started()
        during(view, clock)
        clock.end(view)
    return text_of(console)


def test_without_a_terminal_a_line_is_written_at_each_interval_and_at_the_end() -> None:
    def during(view: LiveView, clock: StepClock) -> None:
        view.receive(0, EpochStarted(epoch=3, num_spans=1, num_lanes=1, resumed_at=0))
        clock.let_one_interval_pass()
        assert clock.now_s == 5.0
        view.receive(0, step(7, epoch=3))
        clock.let_one_interval_pass()

    lines = watched(recorded(terminal=False), during).splitlines()
    assert lines[0].startswith("epoch 3 | step 0/60")
    assert lines[1].startswith("epoch 3 | step 7/60")
    assert lines[-1].startswith("epoch 3 | step 7/60")
    assert all("\x1b" not in line for line in lines)


def test_notices_are_lines_of_their_own() -> None:
    def during(view: LiveView, clock: StepClock) -> None:
        view.receive(0, Notice(message="the Hub is slow [today]"))
        view.receive(0, ArchiveSuspect(path="a.tar.gz", reason="its CRC is wrong"))

    lines = watched(recorded(terminal=False), during).splitlines()
    assert lines[:2] == ["the Hub is slow [today]", "suspect archive a.tar.gz: its CRC is wrong"]


def test_a_flood_of_bad_clips_does_not_scroll_everything_away() -> None:
    def during(view: LiveView, clock: StepClock) -> None:
        for number in range(100):
            view.receive(0, ClipQuarantined(subset="s", path=f"{number}", num_samples=1, reason="empty"))

    lines = watched(recorded(terminal=False), during).splitlines()
    assert sum(line.startswith("quarantined s/") for line in lines) == 20
    assert lines.count("more clips quarantined; the report names them") == 1
    assert "100 quarantined" in lines[-1]


def test_on_a_terminal_the_panel_is_drawn_and_the_last_state_stays_as_a_line() -> None:
    def during(view: LiveView, clock: StepClock) -> None:
        view.receive(0, step(7, epoch=3))
        view.receive(0, Notice(message="resumed at step 6"))
        clock.let_one_interval_pass()
        assert clock.now_s == 0.5

    shown = watched(recorded(terminal=True), during)
    assert "reelstream" in shown
    assert "resumed at step 6" in shown
    assert shown.rstrip().splitlines()[-1].startswith("epoch 3 | step 7/60")


def test_the_view_ends_its_thread_and_writes_nothing_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    clock = StepClock()
    with LiveView(gauges, clock=clock) as view:
        assert "reelstream-live-view" in [thread.name for thread in threading.enumerate()]
        clock.started()
        sys.stdout.write("data\n")
        clock.end(view)
    assert "reelstream-live-view" not in [thread.name for thread in threading.enumerate()]
    out, err = capsys.readouterr()
    assert out == "data\n"
    assert "starting" in err
