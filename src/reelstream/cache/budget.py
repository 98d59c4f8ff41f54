"""The disk budget: what may be on disk at any instant, and who has reserved how much of it.

```
total ── account "clips"        whole and partly written clips
      ├─ account "catalog"      Arrow files of the annotations
      ├─ account "checkpoints"  the one being saved and those kept
      ├─ account "logs"         events, report
      └─ account "folders"      directories and small files
```

Space is reserved before the first byte is written, counted as the file system allocates it (whole blocks).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from reelstream.errors import BudgetTooSmallError
from reelstream.units import format_bytes

BLOCK_BYTES = 4096
"""Allocation unit that file systems in common use have; a larger one is asked of the file system where it matters."""


def allocated_bytes(size_bytes: int, block_bytes: int = BLOCK_BYTES) -> int:
    """Return the bytes that a file of this size takes on disk."""
    return -(-size_bytes // block_bytes) * block_bytes


def block_bytes_of(folder: Path) -> int:
    """Return the allocation unit of the file system that holds `folder`, at least 4 KiB."""
    return max(BLOCK_BYTES, os.statvfs(folder).f_frsize)


class DiskBudget:
    """A number of bytes that the reservations of all accounts never exceed together. Thread-safe.

    An account may have bytes *set aside* for what it will need later; nobody else can reserve them, and its own
    reservations draw on them first. What is on disk in the hope of being useful gives way: see `give_way`.
    """

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self._lock = threading.Lock()
        self._used_bytes: dict[str, int] = {}
        self._set_aside_bytes: dict[str, int] = {}
        self._high_water_bytes = 0
        self._giving_way: list[Callable[[int], None]] = []

    def account(self, name: str) -> Account:
        """Return the account of this name."""
        with self._lock:
            self._used_bytes.setdefault(name, 0)
            self._set_aside_bytes.setdefault(name, 0)
        return Account(self, name)

    @property
    def used_bytes(self) -> int:
        """Bytes reserved now, in all accounts."""
        with self._lock:
            return sum(self._used_bytes.values())

    @property
    def free_bytes(self) -> int:
        """Bytes that are neither reserved nor set aside; negative where more is set aside than there is."""
        with self._lock:
            return self.total_bytes - self._committed_bytes()

    @property
    def high_water_bytes(self) -> int:
        """The most that was reserved at once."""
        return self._high_water_bytes

    def by_account(self) -> dict[str, int]:
        """Return the bytes that each account has reserved, or set aside where that is more."""
        with self._lock:
            return {name: max(used, self._set_aside_bytes[name]) for name, used in self._used_bytes.items()}

    def give_way(self, make_room: Callable[[int], None]) -> None:
        """Have `make_room` called with the bytes that a reservation lacks, before it fails; it releases what it can.

        It is called without the budget's lock, by the thread that reserves.
        """
        with self._lock:
            self._giving_way.append(make_room)

    def stop_giving_way(self, make_room: Callable[[int], None]) -> None:
        """Have `make_room` called no more; a second call does nothing."""
        with self._lock:
            self._giving_way = [other for other in self._giving_way if other != make_room]

    def _committed_bytes(self) -> int:
        return sum(max(used, self._set_aside_bytes[name]) for name, used in self._used_bytes.items())

    def _set_aside_by(self, name: str) -> int:
        with self._lock:
            return self._set_aside_bytes[name]

    def _used_by(self, name: str) -> int:
        with self._lock:
            return self._used_bytes[name]

    def _try_reserve(self, name: str, size_bytes: int) -> bool:
        assert size_bytes >= 0
        return self._with_room(lambda: self._reserve(name, size_bytes))

    def _set_aside(self, name: str, size_bytes: int) -> bool:
        return self._with_room(lambda: self._change_set_aside(name, size_bytes))

    def _with_room(self, change: Callable[[], int]) -> bool:
        """Make a change, which returns the bytes that it lacks; once more where others have given way for it."""
        missing_bytes = change()
        if missing_bytes and self._giving_way:
            for make_room in list(self._giving_way):
                make_room(missing_bytes)
            missing_bytes = change()
        return not missing_bytes

    def _reserve(self, name: str, size_bytes: int) -> int:
        with self._lock:
            self._used_bytes[name] += size_bytes
            missing_bytes = self._committed_bytes() - self.total_bytes
            if missing_bytes > 0 and size_bytes:
                self._used_bytes[name] -= size_bytes
                return missing_bytes
            self._high_water_bytes = max(self._high_water_bytes, sum(self._used_bytes.values()))
            return 0

    def _change_set_aside(self, name: str, size_bytes: int) -> int:
        with self._lock:
            before = self._set_aside_bytes[name]
            self._set_aside_bytes[name] = size_bytes
            missing_bytes = self._committed_bytes() - self.total_bytes
            if missing_bytes > 0 and size_bytes > before:
                self._set_aside_bytes[name] = before
                return missing_bytes
            return 0

    def _release(self, name: str, size_bytes: int) -> None:
        assert size_bytes >= 0
        with self._lock:
            assert self._used_bytes[name] >= size_bytes, f"{name} releases more than it reserved"
            self._used_bytes[name] -= size_bytes


class Account:
    """One purpose's reservations in a budget."""

    def __init__(self, budget: DiskBudget, name: str) -> None:
        self.budget = budget
        self.name = name

    @property
    def used_bytes(self) -> int:
        """Bytes that this account has reserved."""
        return self.budget._used_by(self.name)  # noqa: SLF001 - the budget's other half

    @property
    def available_bytes(self) -> int:
        """Bytes that this account could have reserved in all: those it has, and those that nobody has."""
        return self.used_bytes + self.budget.free_bytes

    @property
    def set_aside_bytes(self) -> int:
        """Bytes that are kept for this account alone."""
        return self.budget._set_aside_by(self.name)  # noqa: SLF001 - the budget's other half

    def set_aside(self, size_bytes: int) -> None:
        """Keep this many bytes, reservations included, for this account alone.

        Raises:
            BudgetTooSmallError: Where they are not free; the message names a total that would do.
        """
        if not self.budget._set_aside(self.name, size_bytes):  # noqa: SLF001 - the budget's other half
            raise self._too_small(size_bytes - self.used_bytes)

    def try_reserve(self, size_bytes: int) -> bool:
        """Reserve bytes, if they are free; return whether they were."""
        return self.budget._try_reserve(self.name, size_bytes)  # noqa: SLF001 - the budget's other half

    def reserve(self, size_bytes: int) -> None:
        """Reserve bytes.

        Raises:
            BudgetTooSmallError: Where they are not free; the message names a total that would do.
        """
        if not self.try_reserve(size_bytes):
            raise self._too_small(size_bytes)

    def _too_small(self, size_bytes: int) -> BudgetTooSmallError:
        budget = self.budget
        free_bytes = max(0, budget.free_bytes)
        needed_bytes = budget.total_bytes + size_bytes - free_bytes
        return BudgetTooSmallError(
            f"{self.name} need {format_bytes(size_bytes)} more, and of the disk budget of "
            f"{format_bytes(budget.total_bytes)} only {format_bytes(free_bytes)} are free",
            f"set disk_budget to {_rounded_up(needed_bytes)} or more",
        )

    def release(self, size_bytes: int) -> None:
        """Give back bytes reserved before."""
        self.budget._release(self.name, size_bytes)  # noqa: SLF001 - the budget's other half

    def resize(self, size_bytes: int) -> None:
        """Make this account's reservation exactly `size_bytes`.

        Raises:
            BudgetTooSmallError: Where it would have to grow by more than is free.
        """
        change_bytes = size_bytes - self.used_bytes
        if change_bytes > 0:
            self.reserve(change_bytes)
        else:
            self.release(-change_bytes)


def _rounded_up(size_bytes: int) -> str:
    """Return a size that people can type and that is not below `size_bytes`."""
    unit, name = (10**9, "GB") if size_bytes > 10**10 else (10**6, "MB")
    return f"{-(-size_bytes // unit)}{name}"
