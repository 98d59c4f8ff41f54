"""Where ranks lay down values for one another: keys and bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

# Below the 8 MiB that torch's TCPStore takes in one value, and small enough that heartbeats go out in between.
PIECE_BYTES = 1 << 20


class KeyValueStore(Protocol):
    """Keys and values that all ranks see: what `torch.distributed.Store` does without blocking.

    A protocol because torch has several, and tests need none of them. Any call may raise OSError where the store
    cannot be reached any more.
    """

    def set(self, key: str, value: bytes) -> None:
        """Lay down a value, in place of an earlier one."""
        ...

    def get(self, key: str) -> bytes:
        """Return a value that is there."""
        ...

    def check(self, keys: Sequence[str]) -> bool:
        """Return whether all of `keys` are there; at once."""
        ...

    def add(self, key: str, amount: int) -> int:
        """Add to a number, 0 where there was none; return the sum."""
        ...

    def delete_key(self, key: str) -> bool:
        """Remove a key; return whether it was there."""
        ...


class MemoryStore:
    """A store for threads of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, bytes] = {}

    def set(self, key: str, value: bytes) -> None:
        """Lay down a value, in place of an earlier one."""
        with self._lock:
            self._values[key] = bytes(value)

    def get(self, key: str) -> bytes:
        """Return a value that is there."""
        with self._lock:
            return self._values[key]

    def check(self, keys: Sequence[str]) -> bool:
        """Return whether all of `keys` are there."""
        with self._lock:
            return all(key in self._values for key in keys)

    def add(self, key: str, amount: int) -> int:
        """Add to a number, 0 where there was none; return the sum."""
        with self._lock:
            total = int(self._values.get(key, b"0")) + amount
            self._values[key] = str(total).encode()
            return total

    def delete_key(self, key: str) -> bool:
        """Remove a key; return whether it was there."""
        with self._lock:
            return self._values.pop(key, None) is not None

    @property
    def keys(self) -> list[str]:
        """What is there now."""
        with self._lock:
            return sorted(self._values)


class ObservedStore:
    """A store that tells after each call that it has answered."""

    def __init__(self, store: KeyValueStore, answered: Callable[[], None]) -> None:
        self._store = store
        self._answered = answered

    def set(self, key: str, value: bytes) -> None:
        """Lay down a value, in place of an earlier one."""
        self._store.set(key, value)
        self._answered()

    def get(self, key: str) -> bytes:
        """Return a value that is there."""
        value = self._store.get(key)
        self._answered()
        return value

    def check(self, keys: Sequence[str]) -> bool:
        """Return whether all of `keys` are there."""
        there = self._store.check(keys)
        self._answered()
        return there

    def add(self, key: str, amount: int) -> int:
        """Add to a number, 0 where there was none; return the sum."""
        total = self._store.add(key, amount)
        self._answered()
        return total

    def delete_key(self, key: str) -> bool:
        """Remove a key; return whether it was there."""
        was_there = self._store.delete_key(key)
        self._answered()
        return was_there


def lay_down(store: KeyValueStore, key: str, value: bytes) -> None:
    """Store a value of any size; it is there once `key` is.

    Layout: `key` holds the number of further pieces as text, a newline, and the last piece; `key/0` and so on hold
    those before, of 1 MiB each.
    """
    num_before = max(0, len(value) - 1) // PIECE_BYTES
    for number in range(num_before):
        store.set(f"{key}/{number}", value[number * PIECE_BYTES : (number + 1) * PIECE_BYTES])
    store.set(key, b"%d\n" % num_before + value[num_before * PIECE_BYTES :])


def take_up(store: KeyValueStore, key: str) -> bytes:
    """Return a value that `lay_down` has stored."""
    head, _, last = store.get(key).partition(b"\n")
    pieces = [store.get(f"{key}/{number}") for number in range(int(head))]
    return b"".join([*pieces, last])


def clear_away(store: KeyValueStore, key: str) -> None:
    """Remove a value that `lay_down` has stored."""
    if not store.check([key]):
        return
    head, _, _ = store.get(key).partition(b"\n")
    for number in range(int(head)):
        store.delete_key(f"{key}/{number}")
    store.delete_key(key)
