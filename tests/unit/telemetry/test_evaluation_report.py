from __future__ import annotations

import json
from typing import Any

from reelstream.telemetry.evaluation import MOST_LEAKS, evaluation_lines, evaluation_note, evaluation_report
from reelstream.telemetry.events import Evaluated, Event, HeldOut, Leak
from reelstream.telemetry.totals import MOST_LISTED, Totals

HELD_OUT = HeldOut(num_clips=9, num_samples=63, num_evaluated_clips=4, num_evaluated_samples=28)


def evaluated(step: int, **changes: Any) -> Evaluated:
    values = {"loss": 2.0 - step / 100, "num_samples": 28, "accuracy": 0.5, "chance": 0.25, "num_questions": 8}
    return Evaluated(step=step, **{**values, **changes})


def totals_of(*told: Event) -> Totals:
    totals = Totals()
    for event in told:
        totals.receive(1.0, event)
    return totals


def report_of(totals: Totals) -> Any:
    return evaluation_report(totals.consumed, totals.spent)


def test_without_held_out_clips_there_is_no_part_and_no_line() -> None:
    assert report_of(totals_of()) is None
    assert evaluation_lines(None) == []


def test_the_latest_figures_stand_first_and_the_curve_is_by_step() -> None:
    report = report_of(totals_of(HELD_OUT, evaluated(10), evaluated(20, received_bytes=7, wait_s=0.5)))
    assert (report["step"], report["loss"], report["bytes_received"], report["wait_s"]) == (20, 1.8, 7, 0.5)
    assert [(figures["step"], figures["loss"]) for figures in report["curve"]] == [(10, 1.9), (20, 1.8)]
    assert report["held_out"] == {"clips": 9, "samples": 63, "evaluated_clips": 4, "evaluated_samples": 28}
    assert evaluation_lines(report) == ["held-out loss 1.800 on 28 samples, accuracy 0.50 on 8 questions (chance 0.25)"]


def test_held_out_clips_that_were_never_evaluated_are_told_as_such() -> None:
    report = report_of(totals_of(HELD_OUT))
    assert (report["step"], report["loss"], report["accuracy"], report["curve"]) == (None, None, None, [])
    assert evaluation_lines(report) == ["held-out clips were not evaluated"]


def test_no_question_is_no_accuracy_and_no_token_no_loss() -> None:
    figures = report_of(totals_of(evaluated(1, num_questions=0, accuracy=0.0, chance=0.0)))
    assert (figures["accuracy"], figures["chance"], figures["num_questions"]) == (None, None, 0)
    assert evaluation_lines(figures) == ["held-out loss 1.990 on 28 samples"]
    assert evaluation_note(evaluated(3, loss=None, num_questions=0)) == "no held-out sample could be scored at step 3"


def test_a_loss_that_is_no_number_leaves_the_report_readable() -> None:
    report = report_of(totals_of(evaluated(1, loss=float("nan"))))
    assert json.loads(json.dumps(report, allow_nan=False))["loss"] is None


def test_an_evaluation_made_again_replaces_the_one_before() -> None:
    report = report_of(totals_of(evaluated(5, accuracy=0.1), evaluated(5, accuracy=0.9)))
    assert [figures["accuracy"] for figures in report["curve"]] == [0.9]


def test_a_long_curve_is_thinned_out_and_still_tells_of_the_whole_run() -> None:
    report = report_of(totals_of(*(evaluated(step) for step in range(3 * MOST_LISTED))))
    steps = [figures["step"] for figures in report["curve"]]
    assert len(steps) <= MOST_LISTED
    assert steps[0] < 20
    assert steps[-1] == 3 * MOST_LISTED - 1


def test_leaks_are_named_up_to_a_number_and_counted_once() -> None:
    leaks = [Leak(clip=f"s/{number}.mp4", held_out="s/held.mp4") for number in range(MOST_LEAKS + 5)]
    report = report_of(totals_of(HELD_OUT, *leaks, leaks[0]))
    assert report["num_leaks"] == MOST_LEAKS + 5
    assert len(report["leaks"]) == MOST_LEAKS
    assert report["leaks"][0] == {"clip": "s/0.mp4", "held_out": "s/held.mp4"}
    assert "105 clips trained on with the very bytes of a held-out one" in evaluation_lines(report)[1]


def test_a_resume_goes_back_to_the_evaluations_of_its_checkpoint_and_keeps_the_leaks() -> None:
    totals = totals_of(HELD_OUT, evaluated(10), Leak(clip="s/a.mp4", held_out="s/b.mp4"))
    saved = json.loads(json.dumps(totals.to_json()))
    totals.receive(2.0, evaluated(20))
    resumed = report_of(Totals.from_json(saved, totals.to_json()))
    assert [figures["step"] for figures in resumed["curve"]] == [10]
    assert resumed["leaks"] == [{"clip": "s/a.mp4", "held_out": "s/b.mp4"}]
    assert resumed["held_out"]["clips"] == 9
