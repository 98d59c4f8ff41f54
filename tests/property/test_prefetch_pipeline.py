"""Whole epochs with real threads: one order and balanced books, whatever the budget, the connections and the memory."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reelstream.prefetch.state import EpochState
from reelstream.telemetry import events
from unit.prefetch.pipeline_kit import (
    CLIP_FRAMES_BYTES,
    CLIPS_IN_SUBSET,
    SUBSETS,
    MadeArchive,
    MadeMember,
    World,
    running,
)

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def _threads_take_turns_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)
    yield
    sys.setswitchinterval(before)


KINDS = ["clip"] * 8 + ["undecodable", "link", "unreferenced", "folder"]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Archives of different sizes, some empty, with all that can be in them, dealt to lanes."""
    num_lanes = draw(st.integers(1, 8))
    fresh = {subset: iter(range(CLIPS_IN_SUBSET)) for subset in SUBSETS}
    largest = draw(st.sampled_from([300, 5_000, 60_000]))
    copies = draw(st.booleans())
    lanes: list[list[MadeArchive]] = [[] for _ in range(num_lanes)]
    for _ in range(draw(st.integers(0, 8))):
        subset = draw(st.sampled_from(SUBSETS))
        members = []
        for _ in range(draw(st.integers(0, 7))):
            number = draw(st.integers(0, CLIPS_IN_SUBSET - 1)) if copies else next(fresh[subset], 0)
            kind: Any = draw(st.sampled_from(KINDS))
            members.append(MadeMember(kind, number, draw(st.sampled_from([0, 16, largest // 3, largest]))))
        lanes[draw(st.integers(0, num_lanes - 1))].append(MadeArchive(subset, tuple(members)))
    return World(
        lanes,
        cache_size=draw(st.integers(1, 40)),
        limit=draw(st.none() | st.integers(1, 30)),
        seed=draw(st.integers(0, 2)),
        budget_factor=draw(st.sampled_from([1.0, 1.0, 1.3, 4.0])),
    )


@st.composite
def ways_of_working(draw: st.DrawFn) -> dict[str, Any]:
    """What must not change the order."""
    return {
        "connections": draw(st.sampled_from([1, 2, 8])),
        "decode_threads": draw(st.integers(1, 3)),
        "decoded_memory_bytes": draw(st.sampled_from([0, CLIP_FRAMES_BYTES, 4 * CLIP_FRAMES_BYTES, 1 << 20])),
        "prefetch": draw(st.booleans()),
        "seed": draw(st.integers(0, 100)),
    }


@settings(max_examples=120, deadline=None)
@given(worlds(), ways_of_working())
def test_an_epoch_is_served_in_the_one_order_and_leaves_nothing(world: World, way: dict[str, Any]) -> None:
    expected, digest = world.expected()
    with tempfile.TemporaryDirectory() as folder, running(world, Path(folder), **way) as epoch:
        assert epoch.serve() == expected
        assert epoch.pipeline.next_sample() is None
        state = epoch.pipeline.state_after(None)
        assert state.order_digest == digest
        assert epoch.source.twice == []
        books = state.books
        assert books.delivered + books.repeated == len(expected)
        served = {row for _, row in expected}
        assert books.delivered == len(served)
        lost = {name.partition("/")[2] for name in books.quarantined_clips}
        assert all(name.startswith("source/") for name in lost)
        if way["decoded_memory_bytes"] == 1 << 20:
            assert not any(event.again for event in epoch.recorder.of(events.ClipDecoded))


@settings(max_examples=80, deadline=None)
@given(
    worlds(), ways_of_working(), ways_of_working(), st.lists(st.integers(0, 100), min_size=1, max_size=2).map(sorted)
)
def test_a_cut_anywhere_resumes_to_the_quiet_runs_rest(
    world: World, way: dict[str, Any], other_way: dict[str, Any], cuts: list[int]
) -> None:
    expected, digest = world.expected()
    state, done = world.start(), 0
    with tempfile.TemporaryDirectory() as folder:
        for percent in cuts:
            num_consumed = percent * len(expected) // 100 - done
            with running(world, Path(folder), state=state, **way) as epoch:
                served = epoch.serve(num_consumed + 5)
                assert served == expected[done : done + len(served)]
                if num_consumed:
                    state = epoch.pipeline.state_after(served[num_consumed - 1][0])
            state = EpochState.from_json(json.loads(json.dumps(state.to_json())), world.catalog.num_clips)
            done += num_consumed
        larger = 2 * world.budget_bytes
        with running(world, Path(folder), state=state, budget_bytes=larger, **other_way) as epoch:
            assert epoch.serve() == expected[done:]
            final = epoch.pipeline.state_after(None)
    assert final.order_digest == digest
    assert final.books.delivered == len({row for _, row in expected})
    assert final.num_consumed == len(expected)


@settings(max_examples=80, deadline=None)
@given(worlds(), ways_of_working(), st.integers(0, 60))
def test_leaving_at_any_moment_leaves_nothing(world: World, way: dict[str, Any], most: int) -> None:
    with tempfile.TemporaryDirectory() as folder, running(world, Path(folder), **way) as epoch:
        epoch.serve(most)
