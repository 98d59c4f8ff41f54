"""The one way from the stages to whoever listens."""

from __future__ import annotations

import threading
from typing import Protocol

from reelstream.clock import Clock, SystemClock
from reelstream.telemetry.events import Event


class Sink(Protocol):
    """Receives events; a protocol because files, terminals and dashboards all listen."""

    def receive(self, wall_s: float, event: Event) -> None:
        """Take one event. Called under a lock, from any thread, one at a time: be quick."""
        ...


class Telemetry:
    """Hands each event to each sink, in one order for all.

    Also the place of the byte counter that moves too often for events: `received_bytes`.
    """

    def __init__(self, *sinks: Sink, clock: Clock | None = None) -> None:
        self._sinks = list(sinks)
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._received_bytes = 0

    def add(self, sink: Sink) -> None:
        """Let `sink` receive the events from now on."""
        with self._lock:
            self._sinks.append(sink)

    def remove(self, sink: Sink) -> None:
        """Let `sink` receive no more events."""
        with self._lock:
            self._sinks.remove(sink)

    def emit(self, event: Event) -> None:
        """Hand `event` to all sinks."""
        with self._lock:
            wall_s = self._clock.wall()
            for sink in self._sinks:
                sink.receive(wall_s, event)

    def count_received(self, size_bytes: int) -> None:
        """Note bytes as they come from the network, before their range has ended."""
        with self._lock:
            self._received_bytes += size_bytes

    @property
    def received_bytes(self) -> int:
        """Bytes that came from the network so far, unfinished ranges included."""
        return self._received_bytes
