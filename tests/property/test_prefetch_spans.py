"""Epochs of archives, cuts and blocks: one order whatever the timing, an exact and cheap resume, and nothing left."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reelstream.cache import ClipCache, DiskBudget, KeptClips
from reelstream.cache.clips import Survivor
from reelstream.cache.names import ClipName
from reelstream.prefetch.state import EpochState
from reelstream.telemetry import events
from reelstream.types import SpanKind
from unit.prefetch.pipeline_kit import CLIP_FRAMES_BYTES, MadeSource, running
from unit.prefetch.span_worlds_kit import SpanWorld, Verified, media_archive

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def _threads_take_turns_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)
    yield
    sys.setswitchinterval(before)


@st.composite
def worlds(draw: st.DrawFn) -> SpanWorld:
    """Few archives, of which there are not many different ones: packing and searching them takes long."""
    archives = [
        media_archive(draw(st.integers(0, 5)), subset=subset, num_members=draw(st.sampled_from([6, 16])))
        for subset in ("aa", "bb")[: draw(st.integers(1, 2))]
    ]
    return SpanWorld(
        [archives],
        kind=draw(st.sampled_from([SpanKind.CUT, SpanKind.BLOCK, SpanKind.ARCHIVE])),
        cut_bytes=draw(st.sampled_from([150_000, 300_000, 700_000])),
        block_bytes=draw(st.sampled_from([1, 250_000, 600_000])),
        num_wanted_lanes=draw(st.integers(1, 4)),
        cache_size=draw(st.integers(1, 24)),
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
        "decoded_memory_bytes": draw(st.sampled_from([0, 4 * CLIP_FRAMES_BYTES, 1 << 20])),
        "prefetch": draw(st.booleans()),
        "seed": draw(st.integers(0, 100)),
    }


def through_json(world: SpanWorld, state: EpochState) -> EpochState:
    return EpochState.from_json(json.loads(json.dumps(state.to_json())), world.catalog.num_clips)


@settings(max_examples=40, deadline=None)
@given(worlds(), ways_of_working())
def test_spans_of_any_kind_are_served_in_the_one_order_and_leave_nothing(world: SpanWorld, way: dict[str, Any]) -> None:
    expected, digest = world.expected()
    with tempfile.TemporaryDirectory() as folder, running(world, Path(folder), **way) as epoch:
        assert epoch.serve() == expected
        assert epoch.pipeline.next_sample() is None
        state = epoch.pipeline.state_after(None)
    assert state.order_digest == digest
    assert state.books.delivered == len({row for _, row in expected})
    assert state.books.delivered + state.books.repeated == len(expected)


@settings(max_examples=40, deadline=None)
@given(
    worlds(), ways_of_working(), ways_of_working(), st.lists(st.integers(0, 100), min_size=1, max_size=2).map(sorted)
)
def test_spans_of_any_kind_resume_on_an_empty_machine_to_the_quiet_runs_rest(
    world: SpanWorld, way: dict[str, Any], other_way: dict[str, Any], cuts: list[int]
) -> None:
    expected, digest = world.expected()
    state, done, learned = world.start(), 0, Verified()
    for percent in cuts:
        num_consumed = percent * len(expected) // 100 - done
        with (
            tempfile.TemporaryDirectory() as folder,
            running(world, Path(folder), state=state, learned=learned, **way) as epoch,
        ):
            served = epoch.serve(num_consumed + 5)
            assert served == expected[done : done + len(served)]
            if num_consumed:
                state = epoch.pipeline.state_after(served[num_consumed - 1][0])
        state = through_json(world, state)
        assert state.num_consumed == done + num_consumed
        done += num_consumed
    larger = 2 * world.budget_bytes
    source = MadeSource(world.data)
    with (
        tempfile.TemporaryDirectory() as folder,
        running(
            world, Path(folder), state=state, budget_bytes=larger, source=source, learned=learned, **other_way
        ) as epoch,
    ):
        assert epoch.serve() == expected[done:]
        final = epoch.pipeline.state_after(None)
    assert final.order_digest == digest
    assert final.books.delivered == len({row for _, row in expected})
    assert final.num_consumed == len(expected)
    assert comparable(final) == comparable(quiet_end(world))
    if world.limit is None and not world.is_known:
        # Whoever has read which of their pieces.
        assert set(learned.paths) == set(world.data)
    assert sum(source.fetched.values()) <= world.most_bytes_from(state)


def quiet_end(world: SpanWorld) -> EpochState:
    """The state at the end of an epoch that nothing disturbs."""
    with tempfile.TemporaryDirectory() as folder, running(world, Path(folder)) as epoch:
        epoch.serve()
        return epoch.pipeline.state_after(None)


def comparable(state: EpochState) -> dict[str, Any]:
    """What of a state does not depend on who read what, and on when rows became known."""
    values: dict[str, Any] = json.loads(json.dumps(state.to_json()))
    for lane in values["lanes"]:
        del lane["mark"]
    for reports in values["reports"].values():
        for report in reports:
            del report["border_offset"]
        reports.sort(key=lambda report: report["first_byte"])
    return values


@settings(max_examples=15, deadline=None)
@given(
    worlds(), st.lists(ways_of_working(), min_size=2, max_size=3), st.sampled_from([0.1, 0.5, 1.0]), st.integers(0, 9)
)
def test_clips_that_stay_change_no_order_and_are_not_fetched_again(
    world: SpanWorld, ways: list[dict[str, Any]], kept_share: float, most: int
) -> None:
    expected, _ = world.expected()
    with tempfile.TemporaryDirectory() as folder:
        budget = DiskBudget(world.budget_bytes)
        cache = ClipCache(Path(folder), budget.account("clips"))
        kept = KeptClips(int(kept_share * world.budget_bytes))
        shared: dict[str, Any] = {"budget": budget, "cache": cache, "kept": kept}
        for way in ways:
            reused = {file.path for file in kept.files}
            with running(world, Path(folder), **shared, **way) as epoch:
                assert epoch.serve() == expected
                num_reused = len(epoch.recorder.of(events.ClipReused))
            assert bool(num_reused) <= (world.is_known and bool(reused))
        # And an epoch that is broken off leaves what was kept, and nothing else.
        with running(world, Path(folder), **shared, **ways[0]) as epoch:
            epoch.serve(most)


@settings(max_examples=30, deadline=None)
@given(worlds(), ways_of_working(), st.integers(0, 60))
def test_spans_of_any_kind_left_at_any_moment_leave_nothing(world: SpanWorld, way: dict[str, Any], most: int) -> None:
    with tempfile.TemporaryDirectory() as folder, running(world, Path(folder), **way) as epoch:
        epoch.serve(most)


@settings(max_examples=20, deadline=None)
@given(worlds(), ways_of_working(), ways_of_working(), st.integers(0, 100), st.booleans())
def test_what_a_killed_run_has_left_is_used_where_it_is_true_and_changes_nothing(
    world: SpanWorld, way: dict[str, Any], other_way: dict[str, Any], percent: int, torn: bool
) -> None:
    expected, digest = world.expected()
    num_consumed = percent * len(expected) // 100
    state = world.start()
    with tempfile.TemporaryDirectory() as killed, tempfile.TemporaryDirectory() as folder:
        with running(world, Path(killed), **way) as epoch:
            served = epoch.serve(num_consumed + 5)
            if num_consumed:
                state = through_json(world, epoch.pipeline.state_after(served[num_consumed - 1][0]))
            survivors = copied_survivors(Path(killed), Path(folder))
        if torn and survivors:
            path = survivors[0].path
            path.write_bytes(bytes(path.stat().st_size))
        budget = DiskBudget(world.budget_bytes)
        cache = ClipCache(Path(folder), budget.account("clips"))
        cache.take_over(survivors)
        source = MadeSource(world.data)
        with running(world, Path(folder), state=state, budget=budget, cache=cache, source=source, **other_way) as epoch:
            assert epoch.serve() == expected[num_consumed:]
            assert epoch.pipeline.state_after(None).order_digest == digest


def copied_survivors(killed: Path, folder: Path) -> list[Survivor]:
    """Copy the whole clips that a running epoch has on disk at this moment."""
    survivors: list[Survivor] = []
    for path in list(killed.iterdir()):
        name = ClipName.parse(path.name)
        if name is None or name.identity is None:
            continue
        with contextlib.suppress(FileNotFoundError):
            copy = Path(shutil.copy(path, folder / path.name))
            survivors.append(
                Survivor(path=copy, number=name.number, identity=name.identity, size_bytes=copy.stat().st_size)
            )
    return survivors
