"""Ranks of one run in one thread: time passes only while somebody waits, and all the others act meanwhile."""

from __future__ import annotations

import threading

from reelstream.ranks import KeyValueStore, MemoryStore, RankPatience, RankPlace, StoreRanks
from reelstream.ranks.courier import Courier, Exchange
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import Event, Notice


class World:
    """The clock of all ranks, and whoever of them lives. None of them has a thread."""

    def __init__(
        self,
        world_size: int,
        *,
        store: KeyValueStore | None = None,
        patience: RankPatience | None = None,
        alive: set[int] | None = None,
    ) -> None:
        self.now_s = 5000.0
        self.patience = patience or RankPatience()
        self.memory = MemoryStore()
        self.store = store or self.memory
        self.notices: list[str] = []
        self.alive = set(range(world_size)) if alive is None else alive
        self.ranks = [
            StoreRanks(
                RankPlace(rank=rank, world_size=world_size, local_rank=rank, local_world_size=world_size),
                self.store,
                clock=self,
                patience=self.patience,
                telemetry=Telemetry(self),
            )
            for rank in range(world_size)
        ]

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.now_s

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if not event.is_set():
            self.turn(seconds)
        return event.is_set()

    def receive(self, wall_s: float, event: Event) -> None:
        assert isinstance(event, Notice)
        self.notices.append(event.message)

    def turn(self, seconds: float = 0.0) -> None:
        self.now_s += seconds
        for rank in sorted(self.alive):
            if not self.courier(rank).has_ended:
                self.courier(rank).round()

    def courier(self, rank: int) -> Courier:
        return self.ranks[rank]._courier

    def give(self, rank: int, name: str, value: bytes) -> Exchange:
        return self.courier(rank).ask(name, value)

    def exchange_all(self, name: str) -> list[list[bytes] | None]:
        """Let each living rank exchange its number; return what each of them got."""
        exchanges = [self.give(rank, name, str(rank).encode()) for rank in sorted(self.alive)]
        for _ in range(8):
            self.turn(0.05)
        return [exchange.values for exchange in exchanges]

    def lasting_keys(self) -> set[str]:
        """What lies in the store but signs of life and what the ranks met by."""
        return {key for key in self.memory.keys if "/value/" in key or "/taken/" in key}
