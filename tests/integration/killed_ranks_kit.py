"""Runs of several ranks in real processes, killed at will, and the order that they have served together."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from integration.killed_ranks_worker import Job

_DEADLINE_S = 60.0
_POLL_S = 0.004

Order = dict[tuple[int, int], tuple[Any, ...]]
"""Samples by epoch and number in the epoch."""


class Nursery:
    """A process that has imported everything, and forks ranks; what it forked is killed when the block ends."""

    def __enter__(self) -> Self:
        self._child = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "integration.killed_ranks_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self._running: set[int] = set()
        assert self._answer() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        for process in list(self._running):
            self.kill(process)
            self.end(process)
        assert self._child.stdin is not None
        with self._child:
            self._child.stdin.close()

    def start(self, job: Job) -> int:
        """Start a rank; return its process id."""
        self._ask(f"start {json.dumps(dataclasses.asdict(job))}")
        process = int(self._answer())
        self._running.add(process)
        return process

    def kill(self, process: int) -> None:
        """Kill a rank as `kill -9` does."""
        os.kill(process, signal.SIGKILL)

    def end(self, process: int) -> int:
        """Wait for a rank's end; return its exit code. A rank that hangs is killed."""
        # Not yet reaped, so the number is still its own.
        watchdog = threading.Timer(_DEADLINE_S, self.kill, [process])
        watchdog.start()
        try:
            self._ask(f"end {process}")
            code = int(self._answer())
        finally:
            watchdog.cancel()
            watchdog.join()
        self._running.discard(process)
        return code

    def _ask(self, line: str) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(line + "\n")
        self._child.stdin.flush()

    def _answer(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline().strip()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run: what it serves, whoever serves it."""

    endpoint: str
    repo_id: str
    subsets: list[str]
    options: dict[str, Any] = field(default_factory=dict)
    epochs: int = 2
    global_batch: int = 8
    save_every: int = 2


class RankRun:
    """The processes of a run, from one start of all to the end of all."""

    def __init__(self, nursery: Nursery, plan: Plan, folder: Path, *, world_size: int, cache_dir: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._nursery = nursery
        self.folder = folder
        self.world_size = world_size
        port = _free_port()
        values: dict[str, Any] = {entry.name: getattr(plan, entry.name) for entry in dataclasses.fields(plan)}
        values |= {"folder": str(folder), "cache_dir": str(cache_dir), "port": port, "world_size": world_size}
        self._jobs = [Job(rank=rank, **values) for rank in range(world_size)]
        self._before = self.num_batches
        self._processes: list[int] = []

    def __enter__(self) -> Self:
        self._processes = [self._nursery.start(job) for job in self._jobs]
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                self._nursery.kill(process)
            self._nursery.end(process)
        self._processes = []

    @property
    def num_batches(self) -> int:
        """Batches that all ranks of all starts have written down."""
        return sum(path.read_bytes().count(b"\n") for path in self.folder.glob("rank-*.jsonl"))

    def wait_for_batches(self, number: int) -> bool:
        """Wait until this start's ranks have written so many; return whether they were not over by then."""
        deadline_s = time.monotonic() + _DEADLINE_S
        while self.num_batches - self._before < number:
            if all(map(_has_ended, self._processes)):
                return False
            assert time.monotonic() < deadline_s, f"no progress: {self.errors()}"
            threading.Event().wait(_POLL_S)
        return True

    def kill(self, ranks: Iterable[int]) -> None:
        """Kill some of the ranks."""
        for rank in ranks:
            self._nursery.kill(self._processes[rank])

    def end(self) -> list[int]:
        """Wait for the end of all; return their exit codes by rank."""
        codes = [self._nursery.end(process) for process in self._processes]
        self._processes = []
        return codes

    def error(self, rank: int) -> str:
        """What a rank has said."""
        return (self.folder / f"rank-{rank}.err").read_text()

    def errors(self) -> str:
        """What all have said."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("rank-*.err")))


def served(folder: Path) -> Order:
    """Return the order that a run's ranks have served together, in all of its starts.

    What was served twice, before a kill and again after it, must have been the same.
    """
    order: Order = {}
    for line in _lines(folder.glob("rank-*.jsonl")):
        for number, (position, *rest) in enumerate(line["samples"]):
            key = (line["epoch"], line["first"] + number * line["stride"])
            value = (tuple(position), *rest)
            assert order.setdefault(key, value) == value, f"sample {key} was another one before a kill"
    return order


def assert_same_order(found: Order, expected: Order) -> None:
    """Compare two orders, and name the first difference."""
    for key in sorted(expected.keys() | found.keys()):
        assert found.get(key) == expected.get(key), f"epoch {key[0]}, sample {key[1]}"


def _lines(paths: Iterable[Path]) -> Iterator[Mapping[str, Any]]:
    for path in sorted(paths):
        for line in path.read_text().splitlines():
            # A kill may leave half a line behind.
            with contextlib.suppress(json.JSONDecodeError):
                yield json.loads(line)


def _has_ended(process: int) -> bool:
    """Whether a process that is not ours to wait for is over, waited for or not."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
