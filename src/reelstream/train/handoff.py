"""A bounded queue between two threads that can be closed from either end, and says who waited for whom."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from reelstream.cancel import Cancelled
from reelstream.clock import Clock, SystemClock

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoffStatistics:
    """How the two ends of a queue kept pace."""

    num_items: int
    """Items taken so far."""
    put_wait_s: float
    """Seconds the maker waited for room: high means that the taker is the slower end, as it should be."""
    get_wait_s: float
    """Seconds the taker waited for items: high means that the maker is the slower end."""
    mean_occupancy: float
    """Items found in the queue by the taker, on average: near the capacity is comfortable, near 0 is starving."""


class Handoff(Generic[Item]):
    """A queue of at most `capacity` items, for one maker and one taker."""

    def __init__(self, capacity: int, *, clock: Clock | None = None) -> None:
        self._capacity = capacity
        self._clock = clock or SystemClock()
        self._changed = threading.Condition()
        self._items: deque[Item] = deque()
        self._closed = False
        self._error: BaseException | None = None
        self._num_items = 0
        self._occupancy_sum = 0
        self._put_wait_s = 0.0
        self._get_wait_s = 0.0

    def put(self, item: Item) -> None:
        """Add an item, waiting for room.

        Raises:
            Cancelled: Where the queue is closed, now or meanwhile.
        """
        with self._changed:
            start_s = self._clock.monotonic()
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._capacity)
            self._put_wait_s += self._clock.monotonic() - start_s
            if self._closed:
                raise Cancelled
            self._items.append(item)
            self._changed.notify_all()

    def get(self) -> Item:
        """Take the oldest item, waiting for one.

        Raises:
            Cancelled: Where the queue is closed and empty.
            BaseException: What the maker failed with, once its items are taken.
        """
        with self._changed:
            start_s = self._clock.monotonic()
            occupancy = len(self._items)
            self._changed.wait_for(lambda: self._closed or self._items or self._error is not None)
            self._get_wait_s += self._clock.monotonic() - start_s
            if not self._items:
                raise self._error or Cancelled
            self._num_items += 1
            self._occupancy_sum += occupancy
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def fail(self, error: BaseException) -> None:
        """Let the taker have `error` after the items that are there."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def close(self) -> None:
        """Wake both ends; nothing more goes in."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def statistics(self) -> HandoffStatistics:
        """The figures so far."""
        with self._changed:
            return HandoffStatistics(
                num_items=self._num_items,
                put_wait_s=self._put_wait_s,
                get_wait_s=self._get_wait_s,
                mean_occupancy=self._occupancy_sum / self._num_items if self._num_items else 0.0,
            )
