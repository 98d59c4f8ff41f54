"""Events as JSON lines, in a file that cannot outgrow its allowance."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO

from reelstream.errors import DiskError
from reelstream.telemetry.events import Event

_BLOCK_BYTES = 4096

_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")


def event_name(event_type: type[Event]) -> str:
    """Return the name of an event in files: `ClipArrived` is `clip_arrived`."""
    return _WORD_START.sub("_", event_type.__name__).lower()


class JsonLinesSink:
    """Appends one line an event: `{"time": seconds, "event": name, ...fields}`.

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
        try:
            self._file: IO[str] = path.open("a", encoding="utf-8")
            self._size_bytes = path.stat().st_size
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
        line = json.dumps(record, ensure_ascii=False)
        size_bytes = len(line.encode()) + 1
        # Room for the last line itself.
        if self._size_bytes + size_bytes > self._limit_bytes - 200:
            self._full = True
            line = json.dumps({"time": record["time"], "event": "log_full", "limit_bytes": self._limit_bytes})
            size_bytes = len(line) + 1
        self._grow_to(self._size_bytes + size_bytes)
        self._file.write(line + "\n")
        self._file.flush()
        self._size_bytes += size_bytes

    def _grow_to(self, size_bytes: int) -> None:
        missing_bytes = -(-size_bytes // _BLOCK_BYTES) * _BLOCK_BYTES - self._reserved_bytes
        if missing_bytes > 0:
            self._reserve(missing_bytes)
            self._reserved_bytes += missing_bytes

    def close(self) -> None:
        """Close the file; later events are dropped."""
        self._full = True
        self._file.close()
