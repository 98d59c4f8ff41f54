"""Our clocks, sinks and allowances keep their contracts."""

from __future__ import annotations

import json
from pathlib import Path

from reelstream.cache import DiskBudget
from reelstream.clock import Clock, SystemClock
from reelstream.telemetry import JsonLinesSink, Sink
from reelstream.telemetry.events import Event
from reelstream.telemetry.totals import Totals
from reelstream.testing import FakeClock, Recorder
from reelstream.testing.contracts import ClockContract, DiskAllowanceContract, SinkContract
from reelstream.train.checkpoints import DiskAllowance, Unlimited


class TestSystemClock(ClockContract):
    def make_clock(self) -> Clock:
        return SystemClock()


class TestFakeClock(ClockContract):
    def make_clock(self) -> Clock:
        return FakeClock()


class TestRecorder(SinkContract):
    def make_sink(self, folder: Path) -> Sink:
        return Recorder()

    def check_received(self, sink: Sink, sent: list[Event]) -> None:
        assert isinstance(sink, Recorder)
        assert sorted(map(str, sink.events)) == sorted(map(str, sent))


class TestJsonLinesSink(SinkContract):
    def make_sink(self, folder: Path) -> Sink:
        self.path = folder / "events.jsonl"
        return JsonLinesSink(self.path, limit_bytes=100_000)

    def check_received(self, sink: Sink, sent: list[Event]) -> None:
        assert len([json.loads(line) for line in self.path.read_text().splitlines()]) == len(sent)


class TestTotals(SinkContract):
    def make_sink(self, folder: Path) -> Sink:
        return Totals()


class TestAccount(DiskAllowanceContract):
    def make_allowance(self, size_bytes: int) -> DiskAllowance:
        return DiskBudget(size_bytes).account("checkpoints")


class TestUnlimited(DiskAllowanceContract):
    is_bounded = False

    def make_allowance(self, size_bytes: int) -> DiskAllowance:
        return Unlimited()
