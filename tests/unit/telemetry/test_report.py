from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from reelstream.errors import DiskError
from reelstream.telemetry.events import ArchiveSuspect, ClipQuarantined
from reelstream.telemetry.report import (
    MOST_QUARANTINED,
    Floor,
    build_report,
    check_balance,
    floor_of,
    summary_lines,
    verdict,
    write_report,
)
from reelstream.telemetry.totals import MOST_LISTED, Consumed, Spent, Totals
from unit.telemetry.run_events import booked, second_epoch, small_run, started, step

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "report.md"


def totals_of_small_run() -> Totals:
    totals = Totals()
    for wall_s, event in small_run():
        totals.receive(wall_s, event)
    return totals


def totals_of_two_epochs() -> Totals:
    totals = totals_of_small_run()
    for wall_s, event in second_epoch():
        totals.receive(wall_s, event)
    return totals


def report_of(totals: Totals) -> dict[str, Any]:
    return build_report(totals, disk_budget_bytes=60_000_000, disk_high_water_bytes=45_000_000, num_cores=2)


def test_the_report_holds_the_figures_of_the_run() -> None:
    report = report_of(totals_of_small_run())
    assert report["version"] == 1
    assert report["disk"] == {"budget_bytes": 60_000_000, "high_water_bytes": 45_000_000}
    assert report["network"] == {
        "bytes_received": 8_000_000,
        "bytes_needed": 8_000_000,
        "saved_bytes": 0,
        "requests": 3,
        "retries": 1,
        "retry_wait_s": 0.5,
        "bytes_per_s": 2_000_000.0,
    }
    assert report["cache"] == {"kept_clips": 3, "kept_bytes": 8192, "reused_clips": 0}
    assert report["samples"] == {
        "catalog": 12,
        "delivered": 8,
        "repeated": 0,
        "quarantined": 2,
        "without_media": 1,
        "left_out": {"limit": 0, "tail": 1, "not_seen": 0},
        "balanced": True,
        "imbalances": [],
    }
    assert report["clips"]["decoded"] == 2
    assert report["clips"]["decoded_again"] == 1
    assert report["clips"]["quarantined"] == [{"clip": "s/bad.mp4", "num_samples": 2, "reason": "empty: zero bytes"}]
    assert report["order_digest"] == report["epochs"][-1]["order_digest"] == "digest 0"
    assert report["time"]["wall_s"] == 10.0
    assert report["time"]["first_batch_s"] == 3.5
    assert report["time"]["stall_s"] == 2.0
    assert report["time"]["floor_s"] == 4.0
    assert report["time"]["floor_by_resource_s"] == {"network": 4.0, "decode": 0.5, "training": 4.0}
    assert report["loss"] == {"first": 2.5, "last": 1.5}
    assert report["evaluation"]["accuracy"] == 0.75
    assert report["steps"] == 2
    assert report["checkpoints"] == {"saved": 1, "last_step": 2, "size_bytes": 5000, "wait_s": 0.2}
    assert report["verdict"] == "training"


def test_what_was_kept_and_what_that_saved_is_told() -> None:
    report = report_of(totals_of_two_epochs())
    assert report["cache"] == {"kept_clips": 4, "kept_bytes": 12_288, "reused_clips": 2}
    assert report["network"]["bytes_received"] == 9_000_000
    assert report["network"]["bytes_needed"] == 9_000_000
    assert report["network"]["saved_bytes"] == 7_000_000


def test_each_epoch_tells_its_spans_and_its_own_bytes() -> None:
    first, second = report_of(totals_of_two_epochs())["epochs"]
    assert (first["spans"], first["bytes_received"], first["saved_bytes"]) == ("cut", 8_000_000, 0)
    assert (second["spans"], second["bytes_received"], second["saved_bytes"]) == ("block", 1_000_000, 7_000_000)


def test_an_epoch_whose_beginning_nobody_told_has_no_bytes_of_its_own() -> None:
    totals = Totals()
    totals.receive(1.0, booked(3))
    (epoch,) = report_of(totals)["epochs"]
    assert (epoch["spans"], epoch["bytes_received"], epoch["saved_bytes"]) == (None, 0, 0)


def test_samples_of_other_parts_are_told_apart_and_balance() -> None:
    totals = Totals()
    totals.receive(1.0, started(0))
    for number in (1, 2):
        totals.receive(2.0, step(number))
    totals.receive(3.0, booked(num_catalog=30, num_without_media=0, left_out={"other_parts": 20}))
    samples = report_of(totals)["samples"]
    assert samples["left_out"] == {"limit": 0, "tail": 0, "not_seen": 0, "other_parts": 20}
    assert samples["balanced"]


def test_suspect_archives_are_told_with_their_clips() -> None:
    totals = Totals()
    totals.receive(1.0, ArchiveSuspect(path="a.tar.gz", reason="CRC", clips=("s/one.mp4", "s/two.mp4")))
    totals.receive(2.0, ArchiveSuspect(path="b.tar.gz", reason="nested", clips=("s/three.mp4",)))
    assert report_of(totals)["archives"] == {
        "num_suspect": 2,
        "suspect": [{"path": "a.tar.gz", "reason": "CRC"}, {"path": "b.tar.gz", "reason": "nested"}],
        "num_suspect_clips": 3,
        "suspect_clips": ["s/one.mp4", "s/two.mp4", "s/three.mp4"],
    }


def test_the_list_of_suspect_clips_is_bounded_and_their_number_is_not() -> None:
    totals = Totals()
    for archive in ("a.tar.gz", "b.tar.gz"):
        names = tuple(f"{archive}/{number}" for number in range(MOST_LISTED - 10))
        totals.receive(1.0, ArchiveSuspect(path=archive, reason="CRC", clips=names))
    archives = report_of(totals)["archives"]
    assert len(archives["suspect_clips"]) == MOST_LISTED
    assert archives["num_suspect_clips"] == 2 * MOST_LISTED - 20


def test_a_run_in_which_nothing_happened_has_a_report() -> None:
    report = report_of(Totals())
    assert report["cache"] == {"kept_clips": 0, "kept_bytes": 0, "reused_clips": 0}
    assert report["loss"] == {"first": None, "last": None}
    assert report["order_digest"] is None
    assert report["evaluation"] is None
    assert report["time"]["floor_s"] == 0
    assert summary_lines(report)


def test_samples_are_summed_over_epochs() -> None:
    totals = totals_of_small_run()
    for number in (3, 4):
        totals.receive(120.0, step(number, epoch=1))
    totals.receive(120.0, booked(1, left_out={"held_out": 1}))
    report = report_of(totals)
    assert report["samples"]["catalog"] == 24
    assert report["samples"]["left_out"] == {"limit": 0, "tail": 1, "not_seen": 0, "held_out": 1}
    assert report["samples"]["balanced"]
    assert report["order_digest"] == "digest 1"
    assert [epoch["samples"]["delivered"] for epoch in report["epochs"]] == [8, 8]


def test_samples_that_vanished_are_told() -> None:
    sentences = check_balance(Consumed(books={0: booked(num_quarantined=0)}, consumed_samples={0: 8}))
    assert sentences == ["epoch 0: 12 samples in the catalog, 10 accounted for"]


def test_books_that_differ_from_the_trainers_own_count_are_told() -> None:
    sentences = check_balance(Consumed(books={0: booked(num_repeated=1)}, consumed_samples={0: 8}))
    assert sentences == ["epoch 0: 9 samples delivered by the books, 8 by the steps"]


def test_an_epoch_that_nobody_booked_is_told() -> None:
    assert check_balance(Consumed(consumed_samples={1: 1})) == ["epoch 1: never booked, though steps consumed 1 sample"]


def test_a_report_with_unbalanced_books_says_so_in_its_last_lines() -> None:
    totals = totals_of_small_run()
    totals.receive(111.0, booked(num_quarantined=0))
    assert "epoch 0: 12 samples in the catalog, 10 accounted for" in summary_lines(report_of(totals))


@pytest.mark.parametrize(
    ("network_s", "decode_s", "training_s", "bound"),
    [(9, 1, 5, "network"), (1, 9, 5, "decode"), (1, 5, 9, "training"), (5, 5, 5, "training"), (0, 0, 0, "training")],
)
def test_the_resource_that_needs_most_time_is_the_bound(
    network_s: float, decode_s: float, training_s: float, bound: str
) -> None:
    floor = Floor(network_s=network_s, decode_s=decode_s, training_s=training_s)
    assert floor.bound == bound
    assert floor.seconds == max(network_s, decode_s, training_s)


def test_the_verdict_names_the_figure_and_the_share_of_waiting() -> None:
    spent = Spent(received_bytes=89_000_000, reading_s=10.0, wall_s=100.0, stall_s=61.0, clips_decoded=10)
    spent.decode_cpu_s, spent.train_s = 20.0, 30.0
    waited = "the trainer waited 61 % of the time"
    sentences = {
        bound: verdict(floor, Consumed(steps=20), spent)[1]
        for bound, floor in {
            "network": Floor(network_s=9, decode_s=1, training_s=1),
            "decode": Floor(network_s=1, decode_s=9, training_s=1),
            "training": Floor(network_s=1, decode_s=1, training_s=9),
        }.items()
    }
    assert sentences == {
        "network": f"network-bound: 8.90 MB/s received; {waited}",
        "decode": f"decode-bound: 2.00 s of CPU a clip; {waited}",
        "training": f"training-bound: 1.50 s a step; {waited}",
    }


def test_bytes_fetched_again_are_no_part_of_the_floor() -> None:
    spent = Spent(received_bytes=200, reading_s=10.0)
    assert floor_of(Consumed(needed_bytes={0: 150}), spent, num_cores=1).network_s == 7.5


def test_a_run_that_ends_within_an_epoch_has_the_floor_of_what_it_received() -> None:
    spent = Spent(received_bytes=200, reading_s=10.0)
    assert floor_of(Consumed(needed_bytes={0: 1000}), spent, num_cores=1).network_s == 10.0


def test_the_list_of_quarantined_clips_is_bounded() -> None:
    totals = Totals()
    for number in range(MOST_QUARANTINED + 1):
        totals.receive(1.0, ClipQuarantined(subset="s", path=f"{number}", num_samples=1, reason="empty"))
    clips = report_of(totals)["clips"]
    assert (len(clips["quarantined"]), clips["num_quarantined"]) == (MOST_QUARANTINED, MOST_QUARANTINED + 1)


def test_the_summary_says_what_was_streamed_the_most_on_disk_the_stall_and_the_verdict() -> None:
    assert summary_lines(report_of(totals_of_small_run())) == [
        "streamed 8.00 MB in 3 requests (1 retry); 2 clips decoded, 8 samples delivered",
        "at most 45.0 MB on disk, of 60.0 MB allowed",
        "waited 2.00 s of 10.0 s for data",
        "1 clip quarantined; the report names them",
        "loss 2.500 at the first step, 1.500 at the last",
        "held-out loss 1.250 on 80 samples, accuracy 0.75 on 40 questions (chance 0.25)",
        "training-bound: 2.00 s a step; the trainer waited 20 % of the time",
    ]


def test_the_summary_says_what_was_not_fetched_since_it_was_on_disk() -> None:
    lines = summary_lines(report_of(totals_of_two_epochs()))
    assert "2 clips used again from disk: 7.00 MB not fetched" in lines


def test_a_loss_that_is_no_number_leaves_the_report_readable(tmp_path: Path) -> None:
    totals = Totals()
    totals.receive(1.0, step(1, loss=math.nan))
    write_report(tmp_path / "report.json", report_of(totals))
    assert json.loads((tmp_path / "report.json").read_text())["loss"] == {"first": None, "last": None}


def test_the_report_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    report = report_of(totals_of_small_run())
    write_report(path, report)
    assert json.loads(path.read_text()) == report
    assert list(tmp_path.iterdir()) == [path]


def test_a_report_that_cannot_be_written_is_a_disk_error_and_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match=r"report\.json: No space left"):
        write_report(path, {"version": 1})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def _paths(value: object, prefix: str = "") -> list[str]:
    if isinstance(value, dict) and value:
        return [path for key, inner in value.items() for path in _paths(inner, f"{prefix}.{key}" if prefix else key)]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return _paths(value[0], f"{prefix}[]")
    return [prefix]


def test_every_field_is_documented() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    fields = [path for path in _paths(report_of(totals_of_small_run())) if not path.startswith("epochs[].samples.")]
    assert [path for path in fields if f"`{path}`" not in text] == []
