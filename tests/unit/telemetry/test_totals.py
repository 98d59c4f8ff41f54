from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelstream.errors import StateError
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import ArchiveSuspect, BatchReady, ClipQuarantined, ClipsKept, RunStarted
from reelstream.telemetry.totals import MOST_LISTED, BusyTime, Totals
from unit.telemetry.run_events import booked, range_finished, reused, second_epoch, small_run, started, step


def fed(totals: Totals | None = None) -> Totals:
    totals = totals or Totals()
    for wall_s, event in small_run():
        totals.receive(wall_s, event)
    return totals


def reloaded(totals: Totals) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(json.dumps(totals.to_json()))
    return state


def test_events_are_added_up() -> None:
    consumed, spent = fed().consumed, fed().spent
    assert (consumed.steps, consumed.first_loss, consumed.last_loss) == (2, 2.5, 1.5)
    assert consumed.consumed_samples == {0: 8}
    assert consumed.needed_bytes == {0: 8_000_000}
    assert consumed.span_kinds == {0: "cut"}
    assert consumed.books == {0: booked()}
    assert (spent.received_bytes, spent.ranges, spent.resolves, spent.retries) == (8_000_000, 2, 1, 1)
    assert (spent.clips_arrived, spent.clips_deleted) == (1, 1)
    assert (spent.clips_decoded, spent.clips_decoded_again, spent.decode_cpu_s) == (2, 1, 1.0)
    assert (spent.wall_s, spent.first_batch_s, spent.stall_s, spent.train_s) == (10.0, 3.5, 2.0, 4.0)
    assert spent.stall_by_stage_s == {"download": 1.0, "decode": 0.25}
    assert spent.quarantined == {"s/bad.mp4": {"num_samples": 2, "reason": "empty: zero bytes"}}
    assert (spent.checkpoints, spent.last_checkpoint_step, spent.checkpoint_bytes) == (1, 2, 5000)


def test_totals_are_a_sink() -> None:
    totals = Totals()
    Telemetry(totals).emit(step(1))
    assert totals.consumed.steps == 1


def test_the_state_survives_json() -> None:
    totals = fed()
    again = Totals.from_json(reloaded(totals))
    assert again.consumed == totals.consumed
    assert again.spent == totals.spent


def test_a_resume_goes_on_from_the_checkpoint_and_forgets_no_cost() -> None:
    totals = fed()
    checkpoint = reloaded(totals)
    totals.receive(112.0, range_finished(1_000, 1.0))
    totals.receive(115.0, step(3, loss=9.0))
    latest = reloaded(totals)

    resumed = Totals.from_json(checkpoint, latest)
    resumed.receive(500.0, RunStarted(resumed_at_step=2))
    resumed.receive(500.0, started(0, span_kind="cut", needed_bytes=99))
    resumed.receive(501.0, range_finished(1_000, 1.0))
    resumed.receive(502.0, BatchReady(wait_s=2.0))
    resumed.receive(503.0, step(3, loss=1.25))

    consumed, spent = resumed.consumed, resumed.spent
    assert (consumed.steps, consumed.first_loss, consumed.last_loss) == (3, 2.5, 1.25)
    assert consumed.consumed_samples == {0: 12}
    assert consumed.needed_bytes == {0: 8_000_000}
    assert (spent.resumes, spent.received_bytes, spent.reading_s) == (1, 8_002_000, 6.0)
    assert spent.wall_s == 15.0 + 3.0
    assert spent.first_batch_s == 3.5
    assert spent.stall_s == 4.0


def test_clips_used_again_count_with_what_they_saved() -> None:
    totals = fed()
    for wall_s, event in second_epoch():
        totals.receive(wall_s, event)
    spent = totals.spent
    assert (spent.clips_reused, spent.saved_bytes) == (2, 7_000_000)
    assert (spent.clips_arrived, spent.clip_bytes) == (1, 700)


def test_what_is_kept_is_what_the_latest_epoch_left() -> None:
    totals = Totals()
    for num_clips in (9, 4):
        totals.receive(1.0, ClipsKept(num_clips=num_clips, size_bytes=num_clips * 4096))
    assert (totals.spent.kept_clips, totals.spent.kept_bytes) == (4, 4 * 4096)


def test_bytes_count_in_the_epoch_that_runs() -> None:
    totals = Totals()
    totals.receive(1.0, range_finished(5, 0.1))  # before any epoch
    for epoch in (0, 1):
        totals.receive(2.0, started(epoch))
        totals.receive(3.0, range_finished(100 + epoch, 0.1))
        totals.receive(3.0, reused("one.mp4", saved_bytes=10 + epoch))
    spent = totals.spent
    assert spent.received_bytes == 206
    assert spent.received_bytes_by_epoch == {"0": 100, "1": 101}
    assert spent.saved_bytes_by_epoch == {"0": 10, "1": 11}


def test_bytes_of_an_epoch_go_on_counting_after_a_resume() -> None:
    totals = Totals()
    totals.receive(1.0, started(7))
    totals.receive(2.0, range_finished(100, 0.1))
    checkpoint = reloaded(totals)
    totals.receive(3.0, range_finished(50, 0.1))
    totals.receive(3.0, reused("one.mp4", saved_bytes=30))

    resumed = Totals.from_json(checkpoint, reloaded(totals))
    resumed.receive(9.0, started(7))
    resumed.receive(9.5, range_finished(1, 0.1))
    assert resumed.spent.received_bytes_by_epoch == {"7": 151}
    assert resumed.spent.saved_bytes_by_epoch == {"7": 30}
    assert resumed.consumed.span_kinds == {7: "archive"}


def test_suspect_clips_of_an_archive_add_up() -> None:
    totals = Totals()
    totals.receive(1.0, ArchiveSuspect(path="a.tar.gz", reason="CRC", clips=("s/one.mp4",)))
    totals.receive(1.0, ArchiveSuspect(path="a.tar.gz", reason="nested", clips=("s/two.mp4",)))
    totals.receive(1.0, ArchiveSuspect(path="b.tar.gz", reason="CRC"))
    spent = totals.spent
    assert (spent.num_suspect, spent.num_suspect_clips) == (2, 2)
    assert spent.suspect_clips == ["s/one.mp4", "s/two.mp4"]


def test_an_epoch_booked_again_replaces_its_books() -> None:
    totals = fed()
    totals.receive(111.0, booked(num_delivered=9, left_out={}))
    assert totals.consumed.books[0].num_delivered == 9


def test_a_clip_quarantined_in_each_epoch_counts_once() -> None:
    totals = Totals()
    for _ in range(3):
        totals.receive(1.0, ClipQuarantined(subset="s", path="bad.mp4", num_samples=2, reason="empty"))
        totals.receive(1.0, ArchiveSuspect(path="a.tar.gz", reason="CRC"))
    assert (totals.spent.num_quarantined, totals.spent.num_suspect) == (1, 1)


def test_the_list_of_quarantined_clips_is_bounded_and_their_number_is_not() -> None:
    totals = Totals()
    for number in range(MOST_LISTED + 5):
        totals.receive(1.0, ClipQuarantined(subset="s", path=f"{number}.mp4", num_samples=1, reason="empty"))
    assert len(totals.spent.quarantined) == MOST_LISTED
    assert totals.spent.num_quarantined == MOST_LISTED + 5


def test_figures_that_were_read_do_not_change_afterwards() -> None:
    totals = Totals()
    before, before_spent = totals.consumed, totals.spent
    totals.receive(1.0, started(0))
    totals.receive(1.0, step(1))
    totals.receive(1.0, range_finished(5, 0.1))
    totals.receive(1.0, reused("one.mp4", saved_bytes=10))
    totals.receive(1.0, ArchiveSuspect(path="a.tar.gz", reason="CRC", clips=("s/one.mp4",)))
    assert (before.consumed_samples, before.span_kinds) == ({}, {})
    assert (before_spent.received_bytes_by_epoch, before_spent.saved_bytes_by_epoch) == ({}, {})
    assert before_spent.suspect_clips == []


@pytest.mark.parametrize(
    "broken",
    [{}, {"version": 1}, {"version": 2}, {"version": 2, "consumed": {}}, {"version": 2, "consumed": [], "spent": {}}],
)
def test_a_state_of_another_kind_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(StateError, match="totals of the run"):
        Totals.from_json(broken)


def test_a_state_with_an_unknown_field_is_refused() -> None:
    state = reloaded(fed())
    state["spent"]["parsecs"] = 12
    with pytest.raises(StateError, match="parsecs"):
        Totals.from_json(state)


def test_fields_of_the_state_are_those_of_the_documentation() -> None:
    state = fed().to_json()
    assert state.keys() == {"version", "consumed", "spent"}
    assert state["consumed"].keys() == {field.name for field in dataclasses.fields(fed().consumed)}


def test_busy_time_counts_overlapping_intervals_once() -> None:
    busy = BusyTime()
    for start_s, end_s in [(0.0, 2.0), (1.0, 3.0), (5.0, 6.0), (4.0, 7.0), (2.5, 8.0)]:
        busy.add(start_s, end_s)
    assert busy.seconds == 8.0


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=60))
def test_busy_time_is_the_size_of_the_union(intervals: list[tuple[int, int]]) -> None:
    busy = BusyTime()
    for end, length in sorted(intervals):
        busy.add(max(0, end - length), end)
    covered = {second for end, length in intervals for second in range(max(0, end - length), end)}
    assert busy.seconds == len(covered)


def test_busy_time_remembers_no_more_than_it_needs() -> None:
    busy = BusyTime()
    for number in range(10_000):
        busy.add(2.0 * number, 2.0 * number + 1)
    assert busy.seconds == 10_000
    assert len(busy._stretches) == 64
