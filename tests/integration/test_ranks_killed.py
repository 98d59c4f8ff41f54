"""Ranks in real processes, killed one or all at random moments, and resumed on any number of ranks."""

from __future__ import annotations

import dataclasses
import random
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from integration.killed_ranks_kit import Nursery, Order, Plan, RankRun, assert_same_order, served
from reelstream.testing import SMALL_SAMPLE, SampleHub, archive_ranges, overlapping_bytes, sample_hub

pytestmark = pytest.mark.timeout(290)

WORLD_SIZES = (1, 2, 4)
_KINDS: dict[str, dict[str, Any]] = {
    "archives": {"spans": "archive"},
    "cuts": {"spans": "cut", "cut_size": "250kB"},
}
# Each archive is cut in two, and no lane is left without a clip.
_SAMPLE = dataclasses.replace(SMALL_SAMPLE, num_clips=28, num_archives=4)
_LANES = 4
_KILLS_A_RUN = 6
# A rank may be killed while torch still connects them all: that error is torch's own.
_LOST = r"reelstream\.errors\.RankLostError: rank \d of \d has|torch\.distributed\.Dist\w+Error"


@dataclass(frozen=True)
class World:
    """A dataset on a hub, processes to read it, and what they serve undisturbed."""

    sample: SampleHub
    nursery: Nursery
    folder: Path

    def plan(self, kind: str) -> Plan:
        """A run of two epochs, of some 50 steps in all."""
        options = {"disk_budget": "8MB", "cache_size": 16, "decode_threads": 1, "lanes": _LANES, "tail": "repeat"}
        sample = self.sample
        return Plan(
            endpoint=sample.endpoint, repo_id=sample.repo_id, subsets=sample.subsets, options=options | _KINDS[kind]
        )

    def quiet(self, kind: str, world_size: int = 1) -> Order:
        """What so many ranks serve that nobody disturbs; run once."""
        folder = self.folder / f"{kind}-{world_size}"
        if not folder.exists():
            run = RankRun(
                self.nursery, self.plan(kind), folder, world_size=world_size, cache_dir=self.folder / f"{folder}-cache"
            )
            with run:
                assert run.end() == [0] * world_size, run.errors()
        return served(folder)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with sample_hub(_SAMPLE, folder=tmp_path_factory.mktemp("hub")) as sample, Nursery() as nursery:
        yield World(sample, nursery, tmp_path_factory.mktemp("quiet"))


@dataclass(frozen=True)
class Kill:
    """What happens to one start of a run."""

    world_size: int
    victims: tuple[int, ...]
    after_batches: int
    """Of all ranks together."""
    later_s: float


def draw_kills(seed: int, number: int) -> list[Kill]:
    """Draw starts of one, two and four ranks, of which one or all are killed: at once, or some steps on."""
    draw = random.Random(seed)
    kills = []
    for _ in range(number):
        world_size = draw.choice(WORLD_SIZES)
        everyone = tuple(range(world_size))
        victims = draw.choice([everyone, (draw.choice(everyone),)])
        kills.append(Kill(world_size, victims, draw.randrange(6) * world_size, draw.uniform(0, 0.1)))
    return kills


def kill_and_resume(world: World, kind: str, folder: Path, kills: list[Kill], *, new_machines: bool = False) -> Path:
    """Run to the end in spite of these kills; return the folder of the run."""
    plan, run_folder = world.plan(kind), folder / "run"
    for number, kill in enumerate(kills):
        cache_dir = folder / (f"cache-{number}" if new_machines else "cache")
        with RankRun(world.nursery, plan, run_folder, world_size=kill.world_size, cache_dir=cache_dir) as run:
            assert run.wait_for_batches(kill.after_batches), f"over before the kill: {run.errors()}"
            # Any moment will do: while files are opened, samples served, or states saved.
            threading.Event().wait(kill.later_s)
            run.kill(kill.victims)
            codes = run.end()
        for rank, code in enumerate(codes):
            if rank in kill.victims:
                assert code == -9
            else:
                # By itself, and in time: a rank that hangs is killed after a minute.
                assert code == 1, f"rank {rank} of {kill.world_size} ended with {code}"
                assert re.search(_LOST, run.error(rank)), run.error(rank)
    last = random.Random(len(kills)).choice(WORLD_SIZES)
    cache_dir = folder / ("cache-last" if new_machines else "cache")
    with RankRun(world.nursery, plan, run_folder, world_size=last, cache_dir=cache_dir) as run:
        assert run.end() == [0] * last, run.errors()
    assert not (cache_dir / "runs").exists(), "a clip was left behind"
    return run_folder


@pytest.mark.parametrize("world_size", WORLD_SIZES[1:])
def test_ranks_that_nobody_disturbs_serve_one_order_and_fetch_each_byte_once(
    world_size: int, world: World, tmp_path: Path
) -> None:
    plan = world.plan("archives")
    quiet = world.quiet("archives")
    world.sample.hub.reset_stats()
    with RankRun(world.nursery, plan, tmp_path / "run", world_size=world_size, cache_dir=tmp_path / "cache") as run:
        assert run.end() == [0] * world_size, run.errors()
    assert_same_order(served(run.folder), quiet)
    stats = world.sample.hub.stats()
    resolves = {path: stats["paths"][path]["resolves"] for path in archive_ranges(stats)}
    # The ranks of a node share the address of an archive.
    assert set(resolves.values()) == {1}
    for path, ranges in archive_ranges(stats).items():
        size_bytes = (world.sample.summary.folder / Path(*Path(path).parts[2:])).stat().st_size
        # Two epochs, each of which reads it once; what stays on disk is not fetched again.
        assert sum(end - first for first, end in ranges) <= 2 * size_bytes
        assert overlapping_bytes(ranges) <= size_bytes


def test_one_rank_that_is_killed_goes_on_where_it_was(world: World, tmp_path: Path) -> None:
    kills = [Kill(1, (0,), 3, 0.0), Kill(1, (0,), 7, 0.02)]
    run_folder = kill_and_resume(world, "archives", tmp_path, kills)
    assert_same_order(served(run_folder), world.quiet("archives"))


def test_ranks_that_lose_one_stop_and_any_number_of_ranks_goes_on(world: World, tmp_path: Path) -> None:
    kills = [Kill(2, (0,), 5, 0.0), Kill(4, (2,), 6, 0.0), Kill(2, (0, 1), 5, 0.01)]
    run_folder = kill_and_resume(world, "archives", tmp_path, kills)
    assert_same_order(served(run_folder), world.quiet("archives"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "kind", "new_machines"),
    [
        (1, "archives", False),
        (2, "cuts", False),
        (3, "archives", True),
        (4, "cuts", True),
        (5, "archives", False),
    ],
)
def test_thirty_kills_at_random_moments_change_nothing(
    seed: int, kind: str, new_machines: bool, world: World, tmp_path: Path
) -> None:
    quiet = world.quiet(kind)
    world.sample.hub.reset_stats()
    kills = draw_kills(seed, _KILLS_A_RUN)
    run_folder = kill_and_resume(world, kind, tmp_path, kills, new_machines=new_machines)
    assert_same_order(served(run_folder), quiet)
    stats = world.sample.hub.stats()
    for path in archive_ranges(stats):
        # One resolve an archive and start, however many ranks there are.
        assert stats["paths"][path]["resolves"] <= len(kills) + 1
