"""Which ranks are found, as far as one process can tell; processes are in `integration/test_ranks_processes.py`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import torch.distributed as dist

from reelstream.data.torch_ranks import find_ranks
from reelstream.errors import ConfigError
from reelstream.ranks import OneRank, StoreRanks

LAUNCHED = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}


@pytest.fixture
def group_of_one() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    yield
    dist.destroy_process_group()


@pytest.fixture
def launchers_port() -> Iterator[str]:
    server = dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=20)
    )
    yield str(server.port)
    del server


def test_a_process_without_a_launcher_is_alone() -> None:
    assert isinstance(find_ranks(environment={}), OneRank)


def test_a_world_of_one_needs_no_store_whoever_names_it(group_of_one: None) -> None:
    assert isinstance(find_ranks(environment={}), OneRank)
    assert isinstance(find_ranks(environment={"RANK": "0", "WORLD_SIZE": "1"}), OneRank)


def test_a_process_that_is_told_to_be_alone_is_so_in_a_job_of_several() -> None:
    assert isinstance(find_ranks(rank=0, world_size=1, environment=LAUNCHED), OneRank)


@pytest.mark.parametrize(
    ("given", "environment", "words"),
    [
        ({"rank": 1}, {}, "given together"),
        ({"world_size": 2}, {}, "given together"),
        ({"rank": 2, "world_size": 2}, {}, "rank 2 does not go with"),
        ({"rank": 1, "world_size": 1}, {}, "rank 1 does not go with"),
        ({"rank": 0, "world_size": 4}, LAUNCHED, "this job has 2 processes"),
        ({}, {"WORLD_SIZE": "2"}, "without RANK"),
        ({}, LAUNCHED, "torch.distributed is not initialized"),
        ({"rank": 1, "world_size": 2}, {}, "torch.distributed is not initialized"),
        (
            {},
            LAUNCHED | {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500", "TORCHELASTIC_USE_AGENT_STORE": "False"},
            "torch.distributed is not initialized",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_words(given: dict[str, int], environment: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        find_ranks(**given, environment=environment)  # type: ignore[arg-type]


def test_a_worker_of_a_dataloader_is_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reelstream.data.torch_ranks.get_worker_info", lambda: "worker 0 of 2")
    assert isinstance(find_ranks(environment={}), OneRank)
    with pytest.raises(ConfigError, match="num_workers=0"):
        find_ranks(environment=LAUNCHED)


def test_a_group_of_one_is_no_meeting_place_for_two(group_of_one: None) -> None:
    with pytest.raises(ConfigError, match="has 1 process, and"):
        find_ranks(rank=0, world_size=2, environment={})


def test_without_a_process_group_ranks_meet_in_the_launchers_store(launchers_port: str) -> None:
    environment = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": launchers_port,
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    found = find_ranks(environment=LAUNCHED | environment)
    assert isinstance(found, StoreRanks)
    assert (found.place.rank, found.place.local_world_size) == (1, 2)
    found.leave("the test is over")
