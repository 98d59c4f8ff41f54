"""What the processes of one machine tell each other about the Hub, in a small file: addresses, and when to be silent.

```
hub.json        mode 0600, locked (flock) only while it is read or written
  version       1
  silent_until  wall seconds: the Hub has asked for no requests before
  files         by the Hub's address of a file: url (a secret), at_hub, until (wall seconds)
  asking        by the same, who is asking the Hub: owner, pid, until (wall seconds)
```

It saves requests and is never needed: where it is damaged, locked for long, or gone, each process asks by itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelstream.cancel import Cancellation
from reelstream.clock import Clock
from reelstream.transport.addresses import Address

LARGEST_FILE_BYTES = 128 * 1024
"""The file is never larger; the addresses that expire first make room."""

_VERSION = 1
# A process holds the lock for a millisecond; one that was stopped while it did must not stop the others.
_LOCK_PATIENCE_S = 1.0
_LOCK_POLL_S = 0.005
# Nobody is kept silent longer by what stands in a file: each process then hears it from the Hub itself.
_LONGEST_SILENCE_S = 3600.0
_FIRST_POLL_S = 0.01
_LONGEST_POLL_S = 0.2
# Longer than a silent Hub is waited for. That the asking process has died is seen at once, in nearly all cases.
_ASKING_S = 45.0


@dataclass(frozen=True, slots=True)
class _Busy:
    """Another process is asking."""


@dataclass(frozen=True, slots=True)
class _Claimed:
    """This process is to ask."""


class SharedAddresses:
    """One process's view of the file. Any number of threads may use it.

    Args:
        path: The file; made where its folder exists.
        clock: The time.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._owner = secrets.token_hex(8)

    @contextlib.contextmanager
    def turn(self, key: str, cancellation: Cancellation) -> Iterator[Address | None]:
        """Yield the address of `key` that some process has got; else None, and it is this process's turn to ask.

        Waits as long as another process is asking. `put` within the block what was learned.

        Raises:
            Cancelled: Where the waiting is called off.
        """
        poll_s = _FIRST_POLL_S
        while isinstance(found := self._found_or_claimed(key, cancellation), _Busy):
            self._clock.wait(cancellation.event, poll_s)
            cancellation.raise_if_cancelled()
            poll_s = min(2 * poll_s, _LONGEST_POLL_S)
        if isinstance(found, Address):
            yield found
            return
        try:
            yield None
        finally:
            # Also where this was called off: the others would wait for nothing.
            with self._edited(Cancellation()) as content:
                if content["asking"].get(key, {}).get("owner") == self._owner:
                    del content["asking"][key]

    def put(self, key: str, address: Address, cancellation: Cancellation) -> None:
        """Let the others know an address."""
        until_s = self._clock.wall() + address.fresh_until_s - self._clock.monotonic()
        with self._edited(cancellation) as content:
            content["files"][key] = {"url": address.url, "at_hub": address.at_hub, "until": until_s}

    def drop(self, key: str, address: Address) -> None:
        """Forget an address that was refused, unless another one stands there."""
        with self._edited(Cancellation()) as content:
            if content["files"].get(key, {}).get("url") == address.url:
                del content["files"][key]

    def keep_silent(self, seconds: float, cancellation: Cancellation) -> None:
        """Note that the Hub has asked for no requests in the next `seconds`."""
        with self._edited(cancellation) as content:
            content["silent_until"] = max(content["silent_until"], self._clock.wall() + seconds)

    def silent_s(self, cancellation: Cancellation) -> float:
        """Return the seconds for which the Hub is to be asked nothing; 0 where it may be."""
        with self._locked(cancellation) as descriptor:
            silent_until_s = _content(descriptor)["silent_until"] if descriptor is not None else 0.0
        silent_s = float(silent_until_s) - self._clock.wall()
        return silent_s if 0 < silent_s <= _LONGEST_SILENCE_S else 0.0

    def _found_or_claimed(self, key: str, cancellation: Cancellation) -> Address | _Busy | _Claimed:
        with self._edited(cancellation) as content:
            wall_s = self._clock.wall()
            record = content["files"].get(key)
            if record is not None and wall_s < record["until"]:
                return Address(
                    url=record["url"],
                    at_hub=record["at_hub"],
                    fresh_until_s=self._clock.monotonic() + record["until"] - wall_s,
                    own=False,
                )
            asking = content["asking"].get(key)
            if asking is not None and asking["owner"] != self._owner and _is_busy(asking, wall_s):
                return _Busy()
            content["asking"][key] = {"owner": self._owner, "pid": os.getpid(), "until": wall_s + _ASKING_S}
            return _Claimed()

    @contextlib.contextmanager
    def _edited(self, cancellation: Cancellation) -> Iterator[dict[str, Any]]:
        """Yield the file's content, an empty one where it cannot be had; write it where the block has changed it."""
        with self._locked(cancellation) as descriptor:
            content = _content(descriptor)
            before = json.dumps(content)
            yield content
            if descriptor is not None and json.dumps(content) != before:
                _write(descriptor, _bounded(content, self._clock.wall()))

    @contextlib.contextmanager
    def _locked(self, cancellation: Cancellation) -> Iterator[int | None]:
        """Yield the open file, locked; None where that cannot be had, or not in time."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError:
            yield None
            return
        try:
            locked = self._lock(descriptor, cancellation)
            try:
                yield descriptor if locked else None
            finally:
                # Said aloud: a child that was forked meanwhile has the file open as well, and would keep the lock.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int, cancellation: Cancellation) -> bool:
        until_s = self._clock.monotonic() + _LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if cancellation.cancelled or self._clock.monotonic() >= until_s:
                    return False
                self._clock.wait(cancellation.event, _LOCK_POLL_S)
            except OSError:
                # A file system without locks.
                return False
            else:
                return True


def _is_busy(asking: dict[str, Any], wall_s: float) -> bool:
    # A time further off than any that is written was so by a clock that has been set back.
    return bool(wall_s < asking["until"] <= wall_s + _ASKING_S and _may_live(asking["pid"]))


def _may_live(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _content(descriptor: int | None) -> dict[str, Any]:
    """Return what the file says; nothing where it is new, or not what it should be."""
    if descriptor is not None:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            content = json.loads(os.pread(descriptor, LARGEST_FILE_BYTES + 1, 0))
            if content["version"] == _VERSION and _is_sound(content):
                return dict(content)
    return {"version": _VERSION, "silent_until": 0.0, "files": {}, "asking": {}}


def _is_sound(content: dict[str, Any]) -> bool:
    return (
        isinstance(content["silent_until"], int | float)
        and all(
            isinstance(record["url"], str)
            and isinstance(record["at_hub"], bool)
            and isinstance(record["until"], int | float)
            for record in content["files"].values()
        )
        and all(
            isinstance(asking["owner"], str)
            and isinstance(asking["pid"], int)
            and isinstance(asking["until"], int | float)
            for asking in content["asking"].values()
        )
    )


def _bounded(content: dict[str, Any], wall_s: float) -> bytes:
    """Return the content as it is written: without what has passed, and without the oldest where it is too large."""
    content["asking"] = {key: asking for key, asking in content["asking"].items() if asking["until"] > wall_s}
    files = sorted(content["files"].items(), key=lambda item: -item[1]["until"])
    content["files"] = dict(item for item in files if item[1]["until"] > wall_s)
    while len(text := json.dumps(content).encode()) > LARGEST_FILE_BYTES:
        if content["files"]:
            content["files"].popitem()
        else:
            content["asking"].popitem()
    return text


def _write(descriptor: int, text: bytes) -> None:
    # In place, under the lock: a process that dies in the middle leaves a damaged file, which counts as an empty one.
    with contextlib.suppress(OSError):
        os.pwrite(descriptor, text, 0)
        os.ftruncate(descriptor, len(text))
