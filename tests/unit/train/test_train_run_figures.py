from __future__ import annotations

import json
from typing import Any

from reelstream.ranks import RankPlace
from reelstream.telemetry import Telemetry, events
from reelstream.telemetry.totals import Totals
from reelstream.train.run_figures import figures_of, high_water_of, merged_figures, with_high_water


def place(rank: int, *, node: int = 0, world_size: int = 2) -> RankPlace:
    return RankPlace(rank=rank, world_size=world_size, local_rank=rank - node, local_world_size=2)


def figures(rank: int, *told: events.Event, high_water_bytes: int = 0, node: int = 0) -> dict[str, Any]:
    totals = Totals()
    telemetry = Telemetry(totals)
    for event in told:
        telemetry.emit(event)
    whole = figures_of(totals, high_water_bytes=high_water_bytes, place=place(rank, node=node, world_size=4))
    # As it travels from rank to rank; the first one's does not.
    travelled: dict[str, Any] = whole if rank == 0 else json.loads(json.dumps(whole))
    return travelled


def step(number: int) -> events.StepFinished:
    return events.StepFinished(
        step=number, epoch=0, loss=1.0, learning_rate=0.1, num_samples=8, data_wait_s=0.5, train_s=2.0
    )


def quarantined(path: str) -> events.ClipQuarantined:
    return events.ClipQuarantined(subset="s", path=path, reason="no frames", num_samples=2)


def epoch_started(epoch: int, needed_bytes: int) -> events.EpochStarted:
    return events.EpochStarted(epoch=epoch, num_spans=1, num_lanes=8, resumed_at=0, needed_bytes=needed_bytes)


def test_one_ranks_figures_are_those_of_the_run() -> None:
    alone = figures(0, step(1))
    assert merged_figures([alone]) is alone


def test_steps_are_counted_once_and_clips_are_added() -> None:
    decoded = events.ClipDecoded(subset="s", path="c", num_frames=2, cpu_s=0.5, again=False)
    merged = merged_figures([figures(0, step(1), decoded), figures(1, step(1), decoded, decoded)])
    totals = Totals.from_json(json.loads(json.dumps(merged)))
    assert totals.consumed.steps == 1
    assert totals.consumed.consumed_samples == {0: 8}
    assert (totals.spent.clips_decoded, totals.spent.decode_cpu_s) == (3, 1.5)
    assert (totals.spent.train_s, totals.spent.stall_s) == (2.0, 0.5)


def test_a_clip_that_two_ranks_met_is_quarantined_once() -> None:
    merged = merged_figures([figures(0, quarantined("a"), quarantined("b")), figures(1, quarantined("b"))])
    assert merged["spent"]["num_quarantined"] == 2
    assert list(merged["spent"]["quarantined"]) == ["s/a", "s/b"]


def test_what_an_epoch_needs_is_added_unless_it_began_before_the_resume() -> None:
    first, second = (
        figures(0, epoch_started(1, 10), epoch_started(2, 20)),
        figures(1, epoch_started(1, 1), epoch_started(2, 2)),
    )
    merged = merged_figures([first, second], begun_before=[1])
    assert merged["consumed"]["needed_bytes"] == {"1": 10, "2": 22}


def test_the_high_water_is_that_of_the_node_that_had_most() -> None:
    ranks = [
        figures(0, high_water_bytes=5),
        figures(1, high_water_bytes=4),
        figures(2, high_water_bytes=8, node=2),
        figures(3, high_water_bytes=2, node=2),
    ]
    merged = merged_figures(ranks)
    assert high_water_of(merged) == 10
    assert high_water_of(with_high_water(merged, 12)) == 12
    assert high_water_of(with_high_water(merged, 3)) == 10
    assert high_water_of(None) == 0
