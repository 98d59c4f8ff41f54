"""Events as JSON lines, in a file that cannot outgrow its allowance."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from reelstream.errors import DiskError
from reelstream.telemetry.events import Event

_BLOCK_BYTES = 4096

_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")


def event_name(event_type: type[Event]) -> str:
    """Return the name of an event in files: `ClipArrived` is `clip_arrived`."""
    return _WORD_START.sub("_", event_type.__name__).lower()


class JsonLinesSink:
    """Appends one line an event: `{"time": seconds, "event": name, ...fields}`.

    A line is whole or absent: what a killed process left of one is cut off at the next start. Where the disk refuses
    one, the log ends there and `problem` says why: events come from all threads, and none of them could do anything
    about it.

    Args:
        path: The file; it is appended to, so that a resumed run goes on in it.
        limit_bytes: Once the file would outgrow this, one last line says so and the rest is not written: logs are
            part of the disk budget.
        reserve: Called with the bytes by which the file is about to grow, before they are written, in whole blocks.

    Raises:
        DiskError: Where the file cannot be opened.
    """

    def __init__(self, path: Path, *, limit_bytes: int, reserve: Callable[[int], None] = lambda _: None) -> None:
        self._limit_bytes = limit_bytes
        self._reserve = reserve
        self._reserved_bytes = 0
        self.problem: DiskError | None = None
        self._path = path
        try:
            self._size_bytes = _cut_to_whole_lines(path)
            # Unbuffered, so that nothing is left to be written when the disk has refused.
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise DiskError(
                f"the log {path} cannot be opened: {error.strerror}", "check the run folder's permissions"
            ) from error
        self._full = False
        self._grow_to(self._size_bytes)

    def receive(self, wall_s: float, event: Event) -> None:
        """Append `event`."""
        if self._full:
            return
        record = {
            "time": round(wall_s, 3),
            "event": event_name(type(event)),
            **dataclasses.asdict(event),
        }
        # Half a surrogate pair, from a damaged name, is written as JSON escapes it.
        line = json.dumps(record, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
        # Room for the last line itself.
        if self._size_bytes + len(line) > self._limit_bytes - 200:
            self._full = True
            last = {"time": record["time"], "event": "log_full", "limit_bytes": self._limit_bytes}
            line = json.dumps(last).encode() + b"\n"
        self._append(line)

    def _append(self, line: bytes) -> None:
        self._grow_to(self._size_bytes + len(line))
        try:
            whole = self._file.write(line) == len(line)
            if not whole:
                # A disk that fills up takes a part first.
                self._file.truncate(self._size_bytes)
        except OSError as error:
            self._end(error.strerror or str(error))
        else:
            if whole:
                self._size_bytes += len(line)
            else:
                self._end(os.strerror(errno.ENOSPC))

    def _end(self, reason: str) -> None:
        self._full = True
        self.problem = DiskError(f"the log {self._path} cannot be written: {reason}", "free some space on that disk")

    def _grow_to(self, size_bytes: int) -> None:
        missing_bytes = -(-size_bytes // _BLOCK_BYTES) * _BLOCK_BYTES - self._reserved_bytes
        if missing_bytes > 0:
            self._reserve(missing_bytes)
            self._reserved_bytes += missing_bytes

    def close(self) -> None:
        """Close the file; later events are dropped."""
        self._full = True
        self._file.close()


def _cut_to_whole_lines(path: Path) -> int:
    """Cut off what follows the last line break; return the size that is left, 0 where there is no such file."""
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        whole_bytes = sum(len(line) for line in file if line.endswith(b"\n"))
        file.truncate(whole_bytes)
    return whole_bytes
