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
    """A number of bytes that the reservations of all accounts never exceed together. Thread-safe."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self._lock = threading.Lock()
        self._used_bytes: dict[str, int] = {}
        self._high_water_bytes = 0

    def account(self, name: str) -> Account:
        """Return the account of this name."""
        with self._lock:
            self._used_bytes.setdefault(name, 0)
        return Account(self, name)

    @property
    def used_bytes(self) -> int:
        """Bytes reserved now, in all accounts."""
        with self._lock:
            return sum(self._used_bytes.values())

    @property
    def free_bytes(self) -> int:
        """Bytes that can still be reserved."""
        return self.total_bytes - self.used_bytes

    @property
    def high_water_bytes(self) -> int:
        """The most that was reserved at once."""
        return self._high_water_bytes

    def by_account(self) -> dict[str, int]:
        """Return the bytes reserved now, by account."""
        with self._lock:
            return dict(self._used_bytes)

    def _try_reserve(self, name: str, size_bytes: int) -> bool:
        assert size_bytes >= 0
        with self._lock:
            used_bytes = sum(self._used_bytes.values()) + size_bytes
            if used_bytes > self.total_bytes:
                return False
            self._used_bytes[name] += size_bytes
            self._high_water_bytes = max(self._high_water_bytes, used_bytes)
            return True

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
        return self.budget.by_account()[self.name]

    def try_reserve(self, size_bytes: int) -> bool:
        """Reserve bytes, if they are free; return whether they were."""
        return self.budget._try_reserve(self.name, size_bytes)  # noqa: SLF001 - the budget's other half

    def reserve(self, size_bytes: int) -> None:
        """Reserve bytes.

        Raises:
            BudgetTooSmallError: Where they are not free; the message names a total that would do.
        """
        if not self.try_reserve(size_bytes):
            budget = self.budget
            needed_bytes = budget.used_bytes + size_bytes
            raise BudgetTooSmallError(
                f"{self.name} need {format_bytes(size_bytes)} more, and of the disk budget of "
                f"{format_bytes(budget.total_bytes)} only {format_bytes(budget.free_bytes)} are free",
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
