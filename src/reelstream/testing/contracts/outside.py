"""What holds for every `Clock`, `Sink` and `DiskAllowance`."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from reelstream.clock import Clock
from reelstream.errors import BudgetTooSmallError
from reelstream.telemetry import Sink, Telemetry
from reelstream.telemetry.events import Event, Notice
from reelstream.train.checkpoints import DiskAllowance


class ClockContract:
    """The seconds that pass, and a way to wait for some of them."""

    def make_clock(self) -> Clock:
        """Return a clock."""
        raise NotImplementedError

    def test_time_does_not_go_back(self) -> None:
        """Of neither kind, while a wait passes."""
        clock = self.make_clock()
        before_s, wall_s = clock.monotonic(), clock.wall()
        clock.wait(threading.Event(), 0.001)
        assert clock.monotonic() >= before_s
        assert clock.wall() >= wall_s

    def test_a_wait_takes_its_time_and_says_that_nothing_happened(self) -> None:
        """By the clock's own count."""
        clock = self.make_clock()
        before_s = clock.monotonic()
        assert not clock.wait(threading.Event(), 0.01)
        # The machine's clock may count in steps.
        assert clock.monotonic() - before_s >= 0.009

    def test_a_wait_for_what_has_happened_takes_no_time(self) -> None:
        """However long it might have been."""
        clock = self.make_clock()
        event = threading.Event()
        event.set()
        assert clock.wait(event, 1e6)


class SinkContract:
    """Receives events, one at a time, from any thread."""

    def make_sink(self, folder: Path) -> Sink:
        """Return a sink, which may keep files in a folder that is there."""
        raise NotImplementedError

    def some_events(self) -> list[Event]:
        """Return events to send; those that the sink is about, where it is about some only."""
        return [Notice(message=f"notice {number}") for number in range(40)]

    def test_events_of_several_threads_are_taken_and_none_raises(self, tmp_path: Path) -> None:
        """Whatever the events are."""
        sink = self.make_sink(tmp_path)
        telemetry = Telemetry(sink)
        sent = self.some_events()
        failed: list[BaseException] = []

        def send(events: list[Event]) -> None:
            try:
                for event in events:
                    telemetry.emit(event)
            except BaseException as error:  # noqa: BLE001 - told by the test's own thread
                failed.append(error)

        threads = [threading.Thread(target=send, args=(sent[number::4],)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        self.check_received(sink, sent)
        close = getattr(sink, "close", None)
        if close is not None:
            close()

    def check_received(self, sink: Sink, sent: list[Event]) -> None:
        """Make sure that the sink has them all; does nothing unless overridden."""


class DiskAllowanceContract:
    """Where bytes on disk are booked before they are written."""

    is_bounded = True
    """Whether more can be asked for than there is."""

    def make_allowance(self, size_bytes: int) -> DiskAllowance:
        """Return an allowance of so many bytes."""
        raise NotImplementedError

    def test_what_is_given_back_can_be_had_again(self) -> None:
        """All of it, any number of times."""
        allowance = self.make_allowance(1_000_000)
        for _ in range(3):
            allowance.reserve(600_000)
            allowance.reserve(400_000)
            allowance.release(1_000_000)

    def test_more_than_is_free_is_refused_and_books_nothing(self) -> None:
        """What was free before is free after."""
        if not self.is_bounded:
            pytest.skip("this allowance has no bounds")
        allowance = self.make_allowance(1_000_000)
        allowance.reserve(700_000)
        with pytest.raises(BudgetTooSmallError):
            allowance.reserve(300_001)
        allowance.reserve(300_000)
