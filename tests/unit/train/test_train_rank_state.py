from __future__ import annotations

import random

import torch

from reelstream.ranks import ALONE, RankPlace
from reelstream.train.rank_state import RankState, random_files, set_generators


def test_a_ranks_part_of_a_checkpoint_travels_whole() -> None:
    random.seed(3)
    torch.manual_seed(3)
    sent = RankState.here(data_state={"lane": 1}, run_state={"bytes": 7})
    expected = random.random(), torch.rand(2).tolist()
    arrived = RankState.unpack(sent.pack())
    assert (arrived.data_state, arrived.run_state) == ({"lane": 1}, {"bytes": 7})
    set_generators(arrived.generators, seed=0, step=0, place=ALONE)
    assert (random.random(), torch.rand(2).tolist()) == expected


def test_each_rank_has_a_file_of_its_own() -> None:
    states = [RankState.here(data_state={}, run_state={}) for _ in range(3)]
    assert sorted(random_files(states)) == ["random.0.safetensors", "random.1.safetensors", "random.2.safetensors"]


def test_generators_that_nobody_saved_begin_by_seed_step_and_rank() -> None:
    def drawn(step: int, rank: int) -> list[float]:
        place = RankPlace(rank=rank, world_size=2, local_rank=rank, local_world_size=2)
        set_generators(None, seed=1, step=step, place=place)
        numbers: list[float] = torch.rand(2).tolist()
        return numbers

    assert drawn(5, 0) == drawn(5, 0)
    assert drawn(5, 0) != drawn(5, 1)
    assert drawn(5, 0) != drawn(6, 0)
