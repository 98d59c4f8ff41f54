"""`torchrun … reelstream train` on a streamed dataset: one order for all numbers of ranks, also after a kill."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.run_kit import DiskPoll, digests_of, events_of, report_of, root_of, sample, weights_of, write_config
from reelstream.hubserver import HubProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

CHANGES: dict[str, Any] = {"data.tail": "repeat", "train.epochs": 2, "train.device": "cpu"}
_DEADLINE_S = 240.0


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(root_of(sample(tmp_path_factory))) as process:
        yield process


def config_in(folder: Path, hub: HubProcess, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    return write_config(folder, hub.endpoint, {**CHANGES, **changes})


@contextlib.contextmanager
def launched(config: Path, num_ranks: int, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Start ranks under torchrun; kill all of them when the block ends."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(num_ranks), "--standalone"]
    process = subprocess.Popen(
        [*launcher, "-m", "reelstream", "train", str(config), "--quiet", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                # It passes this on to its ranks.
                process.terminate()


def train(config: Path, num_ranks: int, *words: str) -> tuple[int, str]:
    """Run to the end; return exit code and what was said."""
    with launched(config, num_ranks, *words) as process:
        _, said = process.communicate(timeout=_DEADLINE_S)
        return process.returncode, said


def wait_for_steps(config: Path, process: subprocess.Popen[str], number: int) -> None:
    deadline_s = time.monotonic() + _DEADLINE_S
    path = config.parent / "run" / "events.jsonl"
    while not path.exists() or path.read_text(errors="replace").count('"step_finished"') < number:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline_s
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.01)


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """Return the processes that a launcher has started, in the order of their start."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory, hub: HubProcess) -> Path:
    config = config_in(tmp_path_factory.mktemp("quiet"), hub)
    with DiskPoll([config.parent / "run", config.parent / "cache"]) as poll:
        code, said = train(config, 2)
    assert code == 0, said
    assert poll.most_bytes <= report_of(config)["disk"]["budget_bytes"]
    return config


def test_one_and_four_ranks_serve_the_order_of_two_and_the_books_of_all_balance(
    quiet: Path, tmp_path: Path, hub: HubProcess
) -> None:
    for num_ranks in (1, 4):
        config = config_in(tmp_path / str(num_ranks), hub)
        code, said = train(config, num_ranks)
        assert code == 0, said
        assert digests_of(config) == digests_of(quiet)
        assert report_of(config)["samples"] == report_of(quiet)["samples"]
        assert report_of(config)["samples"]["balanced"]
        assert report_of(config)["world_size"] == num_ranks


def test_a_run_whose_rank_was_killed_goes_on_with_two_bit_for_bit_and_with_one_and_four_in_the_same_order(
    quiet: Path, tmp_path: Path, hub: HubProcess
) -> None:
    killed = config_in(tmp_path / "killed", hub)
    with launched(killed, 2) as process:
        wait_for_steps(killed, process, 17)
        os.kill(ranks_of(process)[1], signal.SIGKILL)
        killed_s = time.monotonic()
        _, said = process.communicate(timeout=_DEADLINE_S)
        assert time.monotonic() - killed_s < 60, "the other stops within a minute"
    assert "reelstream: rank 1 of 2 has died" in said
    for num_ranks in (2, 1, 4):
        folder = tmp_path / str(num_ranks)
        shutil.copytree(tmp_path / "killed", folder)
        config = config_in(folder, hub)
        code, said = train(config, num_ranks, "--resume")
        assert code == 0, said
        assert digests_of(config) == digests_of(quiet)
        assert report_of(config)["samples"] == report_of(quiet)["samples"]
        assert (weights_of(config) == weights_of(quiet)) == (num_ranks == 2)


def test_a_run_that_has_come_to_its_end_is_resumed_to_no_further_step(tmp_path: Path, hub: HubProcess) -> None:
    config = config_in(tmp_path / "ended", hub, **{"train.max_steps": 6})
    code, said = train(config, 2)
    assert code == 0, said
    report = report_of(config)
    for num_ranks in (2, 4):
        code, said = train(config, num_ranks, "--resume-or-start")
        assert code == 0, said
        assert report_of(config)["samples"] == report["samples"]
        assert (report_of(config)["steps"], report_of(config)["order_digest"]) == (6, report["order_digest"])


def test_a_signal_to_the_launcher_saves_once_and_says_how_to_go_on(
    quiet: Path, tmp_path: Path, hub: HubProcess
) -> None:
    config = config_in(tmp_path / "stopped", hub)
    with launched(config, 2) as process:
        wait_for_steps(config, process, 8)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=_DEADLINE_S)
    assert said.count("reelstream: stopped by SIGTERM; the checkpoint of step") == 1
    assert "--resume" in said
    stopped_at = max(event["step"] for event in events_of(config, "step_finished"))
    assert report_of(config)["checkpoints"]["last_step"] == stopped_at
    code, said = train(config, 2, "--resume")
    assert code == 0, said
    assert weights_of(config) == weights_of(quiet)


def test_what_the_first_rank_refuses_the_others_tell_in_a_sentence(quiet: Path) -> None:
    code, said = train(quiet, 2)
    assert code != 0
    assert f"reelstream: a run is in {quiet.parent / 'run'} already" in said
    assert "reelstream: rank 0 of 2 has left: a run is in" in said
    # What torchrun says of itself is its own.
    assert not re.search(r'File "[^"]*/reelstream/', said)
