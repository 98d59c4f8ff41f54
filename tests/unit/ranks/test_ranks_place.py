from __future__ import annotations

import pytest

from reelstream.errors import ConfigError
from reelstream.ranks import RankPlace, StatedPlace, place_on_node, stated_place

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}


def test_torchruns_environment_tells_the_whole_place() -> None:
    stated = stated_place(TORCHRUN)
    assert stated is not None
    assert stated.placed() == RankPlace(rank=5, world_size=8, local_rank=1, local_world_size=4)


def test_without_a_launcher_nothing_is_stated() -> None:
    assert stated_place({"HOME": "/root", "LOCAL_RANK": "0", "RANK": ""}) is None


@pytest.mark.parametrize("left_out", ["LOCAL_RANK", "LOCAL_WORLD_SIZE"])
def test_a_place_on_the_node_that_is_half_told_is_left_open(left_out: str) -> None:
    stated = stated_place({name: value for name, value in TORCHRUN.items() if name != left_out})
    assert stated == StatedPlace(rank=5, world_size=8)
    assert stated.placed() is None


def test_a_single_process_is_alone_on_its_node_whatever_the_launcher_counts() -> None:
    stated = stated_place({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "4"})
    assert stated is not None
    assert stated.placed() == RankPlace(rank=0, world_size=1, local_rank=0, local_world_size=1)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE=4 without RANK"),
        ({"RANK": "4"}, "RANK=4 without WORLD_SIZE"),
        ({"RANK": "5", "WORLD_SIZE": "2"}, "rank 5 does not go with a world size of 2"),
        ({"RANK": "one", "WORLD_SIZE": "4"}, "RANK='one'"),
        ({"RANK": "-1", "WORLD_SIZE": "4"}, "RANK='-1'"),
        ({"RANK": "4", "WORLD_SIZE": "4"}, "rank 4 does not go with a world size of 4"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "at least 1"),
        ({"RANK": "1", "WORLD_SIZE": "1"}, "rank 1 does not go with"),
        (TORCHRUN | {"LOCAL_RANK": "4"}, "local rank 4 does not go with a local world size of 4"),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "9"}, "cannot have 9 of the run's 8"),
    ],
)
def test_contradictory_numbers_are_refused(environment: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        stated = stated_place(environment)
        assert stated is not None
        stated.placed()


def test_places_on_nodes_follow_from_who_shares_a_machine() -> None:
    hosts = ["a", "b", "a", "b", "b"]
    places = [place_on_node(hosts, rank) for rank in range(5)]
    assert [(place.local_rank, place.local_world_size) for place in places] == [(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert [place.is_first_on_node for place in places] == [True, True, False, False, False]
