"""Which process of which machine: how a rank sees at once that a neighbour has died."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

# Fields of /proc/<pid>/stat behind the command's name, as proc(5) numbers them from 3 on.
_STATE, _START_TICKS = 3 - 3, 22 - 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMark:
    """What tells a process from every other one that could be mistaken for it."""

    node: str
    """`node_name()` where it runs."""
    namespace: str
    """Where its number counts: containers have their own."""
    pid: int
    started: str
    """When, in the kernel's ticks; empty where the system does not tell."""

    @classmethod
    def of_this_process(cls) -> Self:
        """Return the mark of the process that asks."""
        pid = os.getpid()
        return cls(node=node_name(), namespace=_namespace(), pid=pid, started=_state_and_start(pid)[1])

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Return the mark that `text`, from `to_text`, stands for."""
        return cls(**json.loads(text))

    def to_text(self) -> bytes:
        """Return it as JSON."""
        return json.dumps(asdict(self)).encode()

    def is_gone(self) -> bool:
        """Whether the process has certainly ended, as seen from here: it ran on this machine and does no more.

        False where that cannot be seen: on another machine, in another container, or where there is no /proc.
        """
        if self.node != node_name() or self.namespace != _namespace() or not self.started:
            return False
        state, started = _state_and_start(self.pid)
        # A zombie has died, its parent has not looked yet.
        return started != self.started or state in {"Z", "X"}


def node_name() -> str:
    """Return a name that processes share where they share a machine: its name, and that of its kernel's boot."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()} {boot}".strip()


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _state_and_start(pid: int) -> tuple[str, str]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[_STATE], fields[_START_TICKS]
