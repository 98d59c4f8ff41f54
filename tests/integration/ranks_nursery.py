"""Ranks as processes: imports torch once, then forks the ranks of one scenario after the other.

`python ranks_nursery.py SCENARIO...` prints one JSON line for each rank of each scenario.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

import torch.distributed as dist

from reelstream.cancel import Cancellation
from reelstream.data.torch_ranks import find_ranks
from reelstream.errors import ReelstreamError
from reelstream.ranks import RankPatience, Ranks

# Generous for a machine with much else to do; a rank that is stopped is found out after three seconds.
PATIENCE = RankPatience(beat_s=0.3, survey_s=0.2, lost_after_s=3.0)
_CALM = Cancellation()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def values_of(ranks: Ranks, name: str, size_bytes: int = 1) -> list[int]:
    """Exchange this rank's number; return what came, by rank."""
    values = ranks.exchange(name, bytes([ranks.place.rank]) * size_bytes, _CALM)
    assert all(len(value) == size_bytes and len(set(value)) == 1 for value in values)
    return [value[0] for value in values]


def everything_arrives(rank: int) -> object:
    first, second = find_ranks(patience=PATIENCE), find_ranks(patience=PATIENCE)
    seen = [values_of(first, "a"), values_of(second, "a", 3_000_000), values_of(first, "b", 1_000_000)]
    place = first.place
    first.leave("done")
    second.leave("done")
    return [seen, [place.local_rank, place.local_world_size]]


def one_is(sign: signal.Signals, victim: int) -> Callable[[int], object]:
    def scenario(rank: int) -> object:
        ranks = find_ranks(patience=PATIENCE)
        started_s = time.monotonic()
        try:
            values_of(ranks, "all are there")
            if rank == victim:
                os.kill(os.getpid(), sign)
            values_of(ranks, "later")
        except ReelstreamError as error:
            wait_s = time.monotonic() - started_s
            ranks.leave(error.fact)
            return [type(error).__name__, error.fact, wait_s]
        return "nothing happened"

    return scenario


SCENARIOS: dict[str, tuple[int, Callable[[int], object]]] = {
    "two": (2, everything_arrives),
    "four": (4, everything_arrives),
    "killed": (4, one_is(signal.SIGKILL, 2)),
    "holder-killed": (2, one_is(signal.SIGKILL, 0)),
    "stopped": (3, one_is(signal.SIGSTOP, 1)),
    "holder-stopped": (2, one_is(signal.SIGSTOP, 0)),
}


def run_rank(scenario: Callable[[int], object], rank: int, world_size: int, port: int) -> None:
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    dist.init_process_group("gloo")
    outcome = json.dumps({"rank": rank, "outcome": scenario(rank)})
    os.write(1, outcome.encode() + b"\n")


def run(name: str) -> None:
    world_size, scenario = SCENARIOS[name]
    port = free_port()
    pids = []
    for rank in range(world_size):
        pid = os.fork()
        if pid == 0:
            try:
                run_rank(scenario, rank, world_size, port)
            finally:
                # As a crash would: nothing is tidied up.
                os._exit(0)
        pids.append(pid)
    # One that has stopped itself is left until the others have ended.
    left = set(pids)
    while left:
        pid, status = os.waitpid(-1, os.WUNTRACED)
        left.discard(pid)
        if os.WIFSTOPPED(status):
            stopped = pid
            for other in sorted(left):
                os.waitpid(other, 0)
            os.kill(stopped, signal.SIGKILL)
            os.waitpid(stopped, 0)
            return


if __name__ == "__main__":
    for scenario_name in sys.argv[1:]:
        os.write(1, json.dumps({"scenario": scenario_name}).encode() + b"\n")
        run(scenario_name)
