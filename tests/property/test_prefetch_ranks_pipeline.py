"""Pipelines of several ranks: the one order for every number of them, exact resumes on any other, and nothing left."""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reelstream.prefetch.shares import merge_shares, share_of
from reelstream.prefetch.state import EpochState
from reelstream.prefetch.together import Together
from reelstream.ranks import MemoryStore, RankPlace, StoreRanks
from reelstream.schedule import RankShare
from reelstream.types import Position, SpanKind
from unit.prefetch.board_kit import NothingToServeError, Served, expected_order
from unit.prefetch.pipeline_kit import CLIP_FRAMES_BYTES, MadeSource, running
from unit.prefetch.span_worlds_kit import SpanWorld, media_archive

pytestmark = pytest.mark.timeout(120)

NUM_LANES = 4
WORLD_SIZES = (1, 2, 4)
Tail = Literal["repeat", "drop"]


@pytest.fixture(autouse=True)
def _threads_take_turns_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)
    yield
    sys.setswitchinterval(before)


@dataclass
class RankedWorld:
    """A world, and how its epoch ends."""

    world: SpanWorld
    tail: Tail

    def start(self) -> EpochState:
        """Before the first sample, of all ranks."""
        state = self.world.start()
        return dataclasses.replace(state, settings=dataclasses.replace(state.settings, tail=self.tail))

    def served(self, world_size: int) -> list[Served]:
        """The samples of all ranks, in order."""
        try:
            return expected_order(dataclasses.replace(self.world.case(), tail=self.tail), world_size)[0]
        except NothingToServeError:
            assume(False)
            raise

    def expected(self, world_size: int = 1) -> list[tuple[Position, int]]:
        """The same as pipelines give them."""
        return [(sample.position, self.world.row(sample)) for sample in self.served(world_size)]

    def digest(self, world_size: int = 1) -> str:
        """Of the order."""
        return expected_order(dataclasses.replace(self.world.case(), tail=self.tail), world_size)[1]

    def share_bytes(self, world_size: int) -> int:
        """A rank's part of the clip budget: two clips beside those of its lanes, at the least."""
        num_lanes = NUM_LANES // world_size
        return int(self.world.largest_clip_bytes * (num_lanes + 2) * self.world.budget_factor)


@st.composite
def worlds(draw: st.DrawFn) -> RankedWorld:
    """Few archives, of which there are not many different ones: packing and searching them takes long."""
    kind = draw(st.sampled_from([SpanKind.CUT, SpanKind.BLOCK, SpanKind.ARCHIVE]))
    if kind is SpanKind.ARCHIVE:
        seeds = [draw(st.integers(0, 5)) for _ in range(draw(st.integers(4, 6)))]
        archives = [media_archive(seed, subset="aa", num_members=6) for seed in seeds]
    else:
        archives = [media_archive(draw(st.integers(0, 5)), subset=subset) for subset in ("aa", "bb")]
    world = SpanWorld(
        [archives],
        kind=kind,
        cut_bytes=draw(st.sampled_from([150_000, 300_000])),
        block_bytes=draw(st.sampled_from([1, 250_000])),
        num_wanted_lanes=NUM_LANES,
        cache_size=draw(st.integers(1, 24)),
        limit=draw(st.none() | st.integers(4, 30)),
        seed=draw(st.integers(0, 2)),
        budget_factor=draw(st.sampled_from([1.0, 1.0, 1.3, 4.0])),
    )
    assert world.num_lanes == NUM_LANES
    return RankedWorld(world, draw(st.sampled_from(["repeat", "repeat", "drop"])))


@st.composite
def ways_of_working(draw: st.DrawFn) -> dict[str, Any]:
    """What must not change the order; each rank has its own."""
    return {
        "connections": draw(st.sampled_from([1, 2, 8])),
        "decode_threads": draw(st.integers(1, 3)),
        "decoded_memory_bytes": draw(st.sampled_from([0, 4 * CLIP_FRAMES_BYTES, 1 << 20])),
        "prefetch": draw(st.booleans()),
        "seed": draw(st.integers(0, 100)),
    }


@dataclass
class RankRun:
    """What one rank did."""

    order: list[tuple[Position, int]] = field(default_factory=list)
    state: EpochState | None = None
    fetched_bytes: int = 0
    error: BaseException | None = None


def run_ranks(
    made: RankedWorld,
    state: EpochState,
    ways: list[dict[str, Any]],
    *,
    most: int | None = None,
    ahead: int = 0,
) -> list[RankRun]:
    """Serve with a rank for each of `ways`, each in a thread: all of the epoch, or `most` samples of it in all.

    Args:
        made: What is served.
        state: Of all ranks.
        ways: How each works.
        most: Samples that are consumed.
        ahead: Samples that each rank is served beyond that, and does not consume.
    """
    world_size = len(ways)
    store = MemoryStore()
    runs = [RankRun() for _ in ways]

    def work(rank: int, folder: Path) -> None:
        run = runs[rank]
        place = RankPlace(rank=rank, world_size=world_size, local_rank=rank, local_world_size=world_size)
        source = MadeSource(made.world.data, ways[rank]["seed"])
        try:
            with (
                StoreRanks(place, store) as ranks,
                running(
                    made.world,
                    folder,
                    state=share_of(state, RankShare(rank=rank, world_size=world_size)),
                    budget_bytes=made.share_bytes(world_size),
                    source=source,
                    together=Together(ranks),
                    **ways[rank],
                ) as epoch,
            ):
                num_consumed = None if most is None else most // world_size
                run.order = epoch.serve(None if num_consumed is None else num_consumed + ahead)
                if num_consumed is not None:
                    run.order = run.order[:num_consumed]
                run.state = epoch.pipeline.state_after(run.order[-1][0] if num_consumed and run.order else None)
            run.fetched_bytes = source.fetched.total()
        except BaseException as error:  # noqa: BLE001 - told by whoever waits
            run.error = error

    with tempfile.TemporaryDirectory() as folder:
        threads = [threading.Thread(target=work, args=(rank, Path(folder) / str(rank))) for rank in range(world_size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for run in runs:
        if run.error is not None:
            raise run.error
    return runs


def joined(runs: list[RankRun]) -> list[tuple[Position, int]]:
    """The order of the whole: sample k is rank (k mod R)'s."""
    return [sample for row in zip(*(run.order for run in runs), strict=True) for sample in row]


def merged(made: RankedWorld, runs: list[RankRun]) -> EpochState:
    """The state of all ranks, as it comes back from a checkpoint."""
    state = merge_shares([run.state for run in runs if run.state is not None])
    return EpochState.from_json(json.loads(json.dumps(state.to_json())), made.world.catalog.num_clips)


@settings(max_examples=18, deadline=None)
@given(worlds(), st.sampled_from(WORLD_SIZES), st.data())
def test_ranks_serve_the_one_order_within_their_shares_and_leave_nothing(
    made: RankedWorld, world_size: int, data: st.DataObject
) -> None:
    expected = made.expected(world_size)
    ways = [data.draw(ways_of_working()) for _ in range(world_size)]
    runs = run_ranks(made, made.start(), ways)
    assert joined(runs) == expected
    state = merged(made, runs)
    assert state.order_digest == made.digest(world_size)
    assert state.num_consumed == state.books.delivered + state.books.repeated == len(expected)


@settings(max_examples=14, deadline=None)
@given(
    worlds(),
    st.lists(st.tuples(st.integers(0, 100), st.sampled_from(WORLD_SIZES)), min_size=1, max_size=2).map(sorted),
    st.sampled_from(WORLD_SIZES),
    st.data(),
)
def test_ranks_resume_on_empty_machines_and_on_another_number_of_them(
    made: RankedWorld, stops: list[tuple[int, int]], last_size: int, data: st.DataObject
) -> None:
    order = made.served(1)
    # Where a lane has nothing at all to serve, who serves in its place depends on the number of ranks; and what a lane
    # served last is in no state.
    assume(all(made.served(size) == order for size in WORLD_SIZES) and not any(sample.is_echo for sample in order))
    expected, state, done = made.expected(), made.start(), 0
    for percent, world_size in stops:
        # A step of a global batch of four.
        most = (percent * len(order) // 100 - done) // 4 * 4
        if not most:
            continue
        ways = [data.draw(ways_of_working()) for _ in range(world_size)]
        runs = run_ranks(made, state, ways, most=most, ahead=data.draw(st.integers(0, 3)))
        assert joined(runs) == expected[done : done + most]
        done += most
        state = merged(made, runs)
        assert state.num_consumed == done
    ways = [data.draw(ways_of_working()) for _ in range(last_size)]
    runs = run_ranks(made, state, ways)
    assert joined(runs) == expected[done:]
    assert merged(made, runs).order_digest == made.digest()


@settings(max_examples=8, deadline=None)
@given(worlds(), st.integers(0, 60), st.data())
def test_ranks_that_are_left_at_any_moment_leave_nothing(made: RankedWorld, most: int, data: st.DataObject) -> None:
    expected = made.expected(2)
    ways = [data.draw(ways_of_working()) for _ in range(2)]
    assert joined(run_ranks(made, made.start(), ways, most=2 * most)) == expected[: 2 * most]
