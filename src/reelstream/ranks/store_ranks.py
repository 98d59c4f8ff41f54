"""Ranks that meet in a key-value store."""

from __future__ import annotations

import os
import threading
import weakref
from types import TracebackType
from typing import Self

from reelstream.cancel import Cancellation
from reelstream.clock import Clock, SystemClock
from reelstream.errors import ConfigError, RankLostError, ReelstreamError
from reelstream.ranks.courier import Courier, Exchange
from reelstream.ranks.patience import RankPatience, Silence
from reelstream.ranks.place import RankPlace
from reelstream.ranks.process import ProcessMark
from reelstream.ranks.store import KeyValueStore
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import Notice
from reelstream.units import count, format_seconds

# How long a rank that leaves waits for its last words to be written, and its thread to end.
_FAREWELL_S = 5.0
_LOOK_S = 1.0


class StoreRanks:
    """One rank among several that share a store. Use it as a context manager, or `start` it and `leave`.

    Args:
        place: Which one.
        store: What all ranks see. No one else may wait in the same client of it: see `courier`.
        telemetry: Is told whom this rank waits for.
        clock: The time; the machine's where None.
        patience: How long silence is borne; the same on all ranks.
    """

    def __init__(
        self,
        place: RankPlace,
        store: KeyValueStore,
        *,
        telemetry: Telemetry | None = None,
        clock: Clock | None = None,
        patience: RankPatience | None = None,
    ) -> None:
        self.place = place
        self._telemetry = telemetry or Telemetry()
        self._clock = clock or SystemClock()
        self._patience = patience or RankPatience()
        self._process = os.getpid()
        self._courier = Courier(
            place, store, mark=ProcessMark.of_this_process(), clock=self._clock, patience=self._patience
        )
        self._thread: threading.Thread | None = None
        self._at_exit: weakref.finalize[..., StoreRanks] | None = None

    def __repr__(self) -> str:
        return f"StoreRanks({self.place})"

    def start(self) -> Self:
        """Begin to give signs of life, and to carry values."""
        if self._thread is None:
            # A daemon: no exchange may keep a process alive. It knows the courier only, so that ranks that nobody
            # holds any more fall silent too.
            self._thread = threading.Thread(
                target=_carry, args=(self._courier, self._clock), name=f"ranks-{self.place.rank}", daemon=True
            )
            self._thread.start()
            self._at_exit = weakref.finalize(
                self, _say_farewell, self._courier, self._thread, "its process has ended", self._process
            )
        return self

    def exchange(self, name: str, value: bytes, cancellation: Cancellation) -> list[bytes]:
        """Give `value` to all ranks; return what each of them gave under `name`, by rank. See `Ranks`.

        Raises:
            RankLostError: Where a rank that is waited for has died, has left, or never came.
            Cancelled: Where the waiting is called off.
            ConfigError: In a process forked from the rank's own.
        """
        if os.getpid() != self._process:
            raise ConfigError(
                f"{self.place} was asked for in a process forked from it", "workers of a DataLoader: num_workers=0"
            )
        cancellation.raise_if_cancelled()
        exchange = self._courier.ask(name, value)
        try:
            with cancellation.on_cancel(exchange.changed.set):
                return self._outcome(exchange, cancellation)
        finally:
            self._courier.give_up(exchange)

    def give(self, name: str, value: bytes) -> None:
        """Give `value` under `name`, and wait for nobody. See `Ranks`."""
        if os.getpid() == self._process:
            self._courier.give_up(self._courier.ask(name, value))

    def leave(self, reason: str) -> None:
        """Take no further part, and end the thread; the others learn the reason. A second call does nothing."""
        if self._thread is None:
            self._courier.leave(reason)
        elif self._at_exit is not None and self._at_exit.detach() is not None:
            _say_farewell(self._courier, self._thread, reason, self._process)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave(reason_of(error))

    def _outcome(self, exchange: Exchange, cancellation: Cancellation) -> list[bytes]:
        silence = Silence(self._patience.longest_gap_s)
        next_notice_s = self._patience.notice_s
        while True:
            self._clock.wait(exchange.changed, min(_LOOK_S, self._patience.survey_s))
            if exchange.values is not None:
                return exchange.values
            if exchange.lost is not None:
                raise exchange.lost
            cancellation.raise_if_cancelled()
            now_s = self._clock.monotonic()
            if silence.look(self._courier.num_steps, now_s) >= self._patience.lost_after_s:
                raise RankLostError(
                    f"what connects the ranks has not answered {self.place} for {format_seconds(silence.lasted_s)}, "
                    f"as it waits for the others ({exchange.name})",
                    "it lives in rank 0, or in the launcher of the first machine: does that still run?",
                )
            waited_s = now_s - exchange.since_s
            if waited_s >= next_notice_s:
                next_notice_s = self._patience.notice_after_s(waited_s)
                self._telemetry.emit(Notice(message=_waiting_for(exchange, self.place, waited_s)))


def reason_of(error: BaseException | None) -> str:
    """Return why a rank leaves, for the others: what it raised, or that it has ended. Foreign texts stay at home."""
    if error is None:
        return "it has ended"
    return error.fact if isinstance(error, ReelstreamError) else f"it raised {type(error).__name__}"


def _waiting_for(exchange: Exchange, place: RankPlace, waited_s: float) -> str:
    named = ", ".join(map(str, exchange.missing[:8])) + (", …" if len(exchange.missing) > 8 else "")
    ranks = f"rank {named}" if len(exchange.missing) == 1 else f"{count(len(exchange.missing), 'rank')} ({named})"
    return f"{place} is waiting for {ranks} of {place.world_size}, {format_seconds(waited_s)} so far ({exchange.name})"


def _carry(courier: Courier, clock: Clock) -> None:
    """The thread's life."""
    while not courier.has_ended:
        # Cleared before the round: what is asked during it must not wait for the next one's time.
        courier.wake.clear()
        wait_s = courier.round()
        if not courier.has_ended:
            clock.wait(courier.wake, wait_s)


def _say_farewell(courier: Courier, thread: threading.Thread, reason: str, process: int) -> None:
    if os.getpid() == process:
        courier.leave(reason)
        # Bounded: where the store hangs, the thread does too, and dies with the process.
        thread.join(_FAREWELL_S)
