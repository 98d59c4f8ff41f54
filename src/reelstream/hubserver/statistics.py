"""What was asked and sent: the truth of the tests that count bytes at the server.

A byte of a body counts once the system has taken it for the wire; where a connection breaks, what lay in the server's
own buffer does not count. Headers count nowhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from reelstream.hubserver.ranges import ByteRange

MAX_PATHS = 20_000
MAX_RANGES = 200_000
MAX_RANGES_OF_A_PATH = 20_000


@dataclass(slots=True)
class _Range:
    first: int
    last: int
    bytes_sent: int = 0


@dataclass(slots=True)
class _Path:
    requests: int = 0
    resolves: int = 0
    bytes_sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    ranges: list[_Range] = field(default_factory=list)
    ranges_left_out: int = 0


class Transfer:
    """One body on its way.

    Args:
        path: `org/name/path`; None where the body is no file.
        buffered: Tells how many bytes the connection holds that the system has not taken yet.
    """

    def __init__(self, path: str | None, buffered: Callable[[], int]) -> None:
        self.path = path
        self.range: _Range | None = None
        self._buffered = buffered
        self._written = 0
        self._taken = 0
        self.booked = 0

    def wrote(self, size_bytes: int) -> None:
        """Note bytes that the connection has got."""
        self._written += size_bytes
        self._taken = max(self._taken, self._written - self._buffered())

    def drained(self) -> None:
        """Note that the connection holds nothing back."""
        self._taken = self._written

    def taken(self, *, open_still: bool) -> int:
        """Return the bytes that the system has taken."""
        # A broken connection forgets its buffer, so afterwards only what was seen before counts.
        return max(self._taken, self._written - self._buffered()) if open_still else self._taken


class Statistics:
    """Counts requests and bytes, in total and by path, with bounded memory; for one thread."""

    def __init__(self) -> None:
        self._active: set[Transfer] = set()
        self._clear()

    def reset(self) -> None:
        """Begin anew; of bodies on their way, what is still to come counts in the total only."""
        for transfer in self._active:
            self._settle(transfer, open_still=True)
            transfer.range = None
        self._clear()

    def count_request(self, kind: str, path: str | None, status: int) -> None:
        """Count an answered request of kind `api`, `resolve` or `cdn`; with `path` where it is for a file."""
        self._kinds[kind] += 1
        self._statuses[status] += 1
        record = self._path(path)
        if record is not None:
            record.requests += 1
            record.resolves += kind == "resolve"
            record.statuses[status] += 1

    def begin(self, path: str | None, asked: ByteRange | None, buffered: Callable[[], int]) -> Transfer:
        """Open the books of a body; `asked` are the bytes of the file that it is to bring."""
        transfer = Transfer(path, buffered)
        self._active.add(transfer)
        record = self._path(path)
        if record is not None and asked is not None and asked.size_bytes:
            if self._num_ranges < MAX_RANGES and len(record.ranges) < MAX_RANGES_OF_A_PATH:
                transfer.range = _Range(asked.first, asked.end - 1)
                record.ranges.append(transfer.range)
                self._num_ranges += 1
            else:
                record.ranges_left_out += 1
        return transfer

    def end(self, transfer: Transfer) -> None:
        """Close the books of a body."""
        self._settle(transfer, open_still=False)
        self._active.discard(transfer)

    def to_json(self) -> dict[str, Any]:
        """Return all counts."""
        for transfer in self._active:
            self._settle(transfer, open_still=True)
        return {
            "version": 1,
            "totals": {
                "bytes_sent": self._bytes_sent,
                "requests": self._kinds.total(),
                "api_calls": self._kinds["api"],
                "resolves": self._kinds["resolve"],
                "cdn_requests": self._kinds["cdn"],
                "statuses": _statuses(self._statuses),
            },
            "paths": {path: _path_to_json(record) for path, record in self._paths.items()},
            "limits": {
                "paths": MAX_PATHS,
                "ranges": MAX_RANGES,
                "ranges_of_a_path": MAX_RANGES_OF_A_PATH,
                "requests_for_paths_left_out": self._left_out,
            },
        }

    def _clear(self) -> None:
        self._bytes_sent = 0
        self._kinds: Counter[str] = Counter()
        self._statuses: Counter[int] = Counter()
        self._paths: dict[str, _Path] = {}
        self._num_ranges = 0
        self._left_out = 0

    def _path(self, path: str | None) -> _Path | None:
        if path is None:
            return None
        record = self._paths.get(path)
        if record is None:
            if len(self._paths) >= MAX_PATHS:
                self._left_out += 1
                return None
            record = self._paths[path] = _Path()
        return record

    def _settle(self, transfer: Transfer, *, open_still: bool) -> None:
        new_bytes = transfer.taken(open_still=open_still) - transfer.booked
        if new_bytes <= 0:
            return
        transfer.booked += new_bytes
        self._bytes_sent += new_bytes
        record = self._paths.get(transfer.path) if transfer.path is not None else None
        if record is not None:
            record.bytes_sent += new_bytes
        if transfer.range is not None:
            transfer.range.bytes_sent += new_bytes


def _path_to_json(record: _Path) -> dict[str, Any]:
    return {
        "bytes_sent": record.bytes_sent,
        "requests": record.requests,
        "resolves": record.resolves,
        "statuses": _statuses(record.statuses),
        "ranges": [{"first": each.first, "last": each.last, "bytes_sent": each.bytes_sent} for each in record.ranges],
        "ranges_left_out": record.ranges_left_out,
    }


def _statuses(counter: Counter[int]) -> dict[str, int]:
    return {str(status): number for status, number in sorted(counter.items())}
