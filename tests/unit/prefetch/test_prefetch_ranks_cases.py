"""Epochs whose lanes serve in step, in corners that made them stand still."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from reelstream.prefetch.state import EpochState, Tail
from unit.prefetch.board_kit import expected_order
from unit.prefetch.pipeline_kit import MadeArchive, MadeMember, World, running

pytestmark = pytest.mark.timeout(60)


def archive(*numbers: int) -> MadeArchive:
    return MadeArchive("aa", tuple(MadeMember("clip", number) for number in numbers))


def start(world: World, tail: Tail) -> EpochState:
    state = world.start()
    return dataclasses.replace(state, settings=dataclasses.replace(state.settings, tail=tail))


@pytest.mark.parametrize("tail", ["repeat", "drop"])
def test_lanes_in_step_need_no_memory_for_the_frames_of_all_of_them(tmp_path: Path, tail: Tail) -> None:
    # The first lanes end early: what they serve again comes before the clip that tells whether there is another round.
    # The others have as many samples a clip as each other, so that both come to new clips at once.
    world = World([[archive(10)], [archive(15)], [archive(0, 1, 2)], [archive(5, 6, 7)]], cache_size=1)
    order, _ = expected_order(dataclasses.replace(world.case(), tail=tail))
    with running(world, tmp_path, state=start(world, tail), decoded_memory_bytes=0, decode_threads=1) as epoch:
        assert [position for position, _ in epoch.serve()] == [sample.position for sample in order]
