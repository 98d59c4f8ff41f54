"""Ranks as they are in earnest: processes, gloo, torch's stores, and signals that kill and stop."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks processes that have imported torch")


def environment() -> dict[str, str]:
    launched = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    return {name: value for name, value in os.environ.items() if name not in launched} | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, dict[int, Any]]:
    """What each rank of each scenario has seen."""
    names = ["two", "four", "killed", "holder-killed", "stopped", "holder-stopped"]
    nursery = subprocess.run(
        [sys.executable, str(HERE / "ranks_nursery.py"), *names],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
        env=environment(),
    )
    seen: dict[str, dict[int, Any]] = {}
    for line in map(json.loads, nursery.stdout.splitlines()):
        if "scenario" in line:
            seen[line["scenario"]] = {}
        else:
            list(seen.values())[-1][line["rank"]] = line["outcome"]
    assert list(seen) == names, nursery.stderr
    return seen


@pytest.mark.parametrize(("scenario", "world_size"), [("two", 2), ("four", 4)])
def test_values_of_all_ranks_arrive_at_all_ranks_in_two_datasets_at_once(
    outcomes: dict[str, dict[int, Any]], scenario: str, world_size: int
) -> None:
    everyone = list(range(world_size))
    assert sorted(outcomes[scenario]) == everyone
    for rank in everyone:
        seen, place = outcomes[scenario][rank]
        assert seen == [everyone] * 3
        # No launcher told the ranks' places on the node: they found out that all share it.
        assert place == [rank, world_size]


def test_when_a_rank_is_killed_all_others_say_so_within_seconds(outcomes: dict[str, dict[int, Any]]) -> None:
    assert sorted(outcomes["killed"]) == [0, 1, 3]
    for kind, fact, wait_s in outcomes["killed"].values():
        assert (kind, "rank 2 of 4 has died" in fact, wait_s < 20) == ("RankLostError", True, True), fact


def test_when_the_rank_that_holds_the_store_is_killed_the_other_raises(outcomes: dict[str, dict[int, Any]]) -> None:
    ((kind, fact, wait_s),) = outcomes["holder-killed"].values()
    assert (kind, wait_s < 20) == ("RankLostError", True)
    assert "what connects the ranks is gone" in fact
    assert "frame #" not in fact


def test_when_a_rank_is_stopped_the_others_lose_patience(outcomes: dict[str, dict[int, Any]]) -> None:
    assert sorted(outcomes["stopped"]) == [0, 2]
    for kind, fact, wait_s in outcomes["stopped"].values():
        assert (kind, "rank 1 of 3 has given no sign of life" in fact, wait_s < 30) == ("RankLostError", True, True)


def test_when_the_rank_that_holds_the_store_is_stopped_the_other_loses_patience(
    outcomes: dict[str, dict[int, Any]],
) -> None:
    ((kind, fact, wait_s),) = outcomes["holder-stopped"].values()
    assert (kind, "has not answered rank 1 of 2" in fact, wait_s < 30) == ("RankLostError", True, True), fact


@pytest.mark.slow
@pytest.mark.parametrize("rendezvous", ["dynamic", "static"])
def test_after_torchrun_has_restarted_a_job_ranks_see_only_the_living(tmp_path: Path, rendezvous: str) -> None:
    # Without init_process_group: gloo itself finds the addresses of the dead in the store that torchrun keeps, and
    # hangs in about half of the restarts (torch 2.13).
    places = {
        "dynamic": ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"],
        "static": ["--master-addr", "127.0.0.1", "--master-port", "0"],
    }
    if rendezvous == "static":
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            places["static"][-1] = str(listener.getsockname()[1])
    job = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"),
            *places[rendezvous],
            *(str(HERE / "ranks_torchrun_worker.py"), str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=environment(),
    )
    assert job.returncode == 0, job.stderr
    for rank in range(2):
        outcome = json.loads((tmp_path / f"{rank}.json").read_text())
        assert outcome == {"seen": ["1/0", "1/1"], "place": [rank, 2, rank, 2]}
