"""Training loops of several ranks in real processes: the same steps as one; what happens to one happens to all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).with_name("train_ranks_worker.py")
NUM_SAMPLES, NUM_STEPS = 24, 18
# Its first test runs all scenarios of a fixture.
LONG = pytest.mark.timeout(1200)

Results = dict[str, dict[int, dict[str, Any]]]


def run_scenarios(folder: Path, *scenarios: dict[str, Any]) -> Results:
    """Run each with its ranks, one after the other, in the folder of its name or the one that it gives."""
    listed = [{"ranks": 2, **each, "folder": str(folder / each.get("folder", each["name"]))} for each in scenarios]
    (folder / "scenarios.json").write_text(json.dumps(listed))
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(WORKER), str(folder / "scenarios.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(WORKER.parents[1])},
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    results: Results = defaultdict(dict)
    for line in ended.stdout.splitlines():
        result = json.loads(line)
        results[result["scenario"]][result["rank"]] = result
    return results


def losses(result: dict[str, Any]) -> list[float]:
    return [loss for _, _, loss, _, _ in result["steps"]]


def assert_all_alike(ranks: dict[int, dict[str, Any]]) -> None:
    """All ranks have told the same steps, and hold the same weights."""
    for result in ranks.values():
        assert result["error"] is None
        assert result["steps"] == ranks[0]["steps"]
        assert result["weights"] == ranks[0]["weights"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Results:
    scenarios: list[dict[str, Any]] = [
        {"name": "one", "ranks": 1},
        {"name": "two"},
        {"name": "killed", "event": ["kill", 1, 7]},
        {"name": "resumed", "folder": "killed", "resume": True},
        {"name": "stopped", "event": ["term", 1, 7]},
        {"name": "on one", "folder": "stopped", "ranks": 1, "resume": True},
    ]
    return run_scenarios(tmp_path_factory.mktemp("ranks"), *({"options": {"epochs": 2}, **each} for each in scenarios))


def test_two_ranks_make_the_steps_of_one(ran: Results) -> None:
    assert_all_alike(ran["two"])
    one, two = ran["one"][0], ran["two"][0]
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert [step[:2] + step[3:] for step in two["steps"]] == [step[:2] + step[3:] for step in one["steps"]]
    assert len(two["steps"]) == 12


def test_ranks_share_each_epochs_samples(ran: Results) -> None:
    pulled = [sample for result in ran["two"].values() for sample in result["pulled"]]
    assert len(pulled) == len({tuple(sample) for sample in pulled}) == 2 * NUM_SAMPLES


def test_ranks_go_on_bit_for_bit_where_one_was_killed(ran: Results) -> None:
    assert 1 not in ran["killed"], "it was killed"
    kind, message = ran["killed"][0]["error"]
    assert kind == "RankLostError"
    assert "rank 1" in message
    assert_all_alike(ran["resumed"])
    assert ran["resumed"][0]["steps"] == ran["two"][0]["steps"][6:], "from the checkpoint of step 6"
    assert ran["resumed"][0]["weights"] == ran["two"][0]["weights"]


def test_a_signal_to_one_rank_stops_all_at_the_same_step_with_a_checkpoint(ran: Results) -> None:
    assert_all_alike(ran["stopped"])
    assert {result["interrupted_by"] for result in ran["stopped"].values()} == {"SIGTERM"}
    assert len(ran["stopped"][0]["steps"]) == 7


def test_what_two_ranks_saved_goes_on_with_one(ran: Results) -> None:
    alone = ran["on one"][0]
    assert alone["error"] is None
    assert losses(alone) == pytest.approx(losses(ran["one"][0])[7:], rel=1e-4)
    assert [notice for notice in alone["notices"] if "resumed on 1 rank, saved on 2" in notice]


# ---------------------------------------------------------------------- more ranks, other engines, more that goes wrong


@pytest.fixture(scope="module")
def ran_more(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run_scenarios(
        tmp_path_factory.mktemp("ranks"),
        {"name": "one", "ranks": 1},
        {"name": "four", "ranks": 4},
        {"name": "four killed", "ranks": 4, "event": ["kill", 0, 7]},
        {"name": "four resumed", "ranks": 4, "folder": "four killed", "resume": True},
        {"name": "sharded", "parallel": "fsdp2", "evaluate": True},
        {"name": "sharded killed", "parallel": "fsdp2", "event": ["kill", 1, 7]},
        {"name": "sharded resumed", "parallel": "fsdp2", "folder": "sharded killed", "resume": True},
        {"name": "sharded stopped", "parallel": "fsdp2", "event": ["term", 0, 7]},
        {"name": "replicated on", "ranks": 4, "folder": "sharded stopped", "resume": True},
        {"name": "evaluated", "evaluate": True},
    )


@pytest.fixture(scope="module")
def ran_odd(tmp_path_factory: pytest.TempPathFactory) -> Results:
    odd = {"accumulate": 4}
    return run_scenarios(
        tmp_path_factory.mktemp("ranks"),
        {"name": "one", "ranks": 1},
        {"name": "accumulated by one", "ranks": 1, "options": odd},
        {"name": "accumulated", "options": odd},
        {"name": "accumulated sharded", "parallel": "fsdp2", "options": odd},
        {"name": "poisoned", "event": ["poison", 1, 3]},
        {"name": "raised", "event": ["raise", 1, 3]},
        {"name": "outage", "event": ["outage", 1, 7], "every_steps": None},
        {"name": "mended", "folder": "outage", "resume": True},
        {"name": "silent", "event": ["silent", 1, 0]},
        {"name": "silent sharded", "parallel": "fsdp2", "event": ["silent", 1, 0]},
    )


@LONG
@pytest.mark.slow
def test_four_ranks_go_on_bit_for_bit_where_the_first_was_killed(ran_more: Results) -> None:
    assert_all_alike(ran_more["four"])
    assert losses(ran_more["four"][0]) == pytest.approx(losses(ran_more["one"][0]), rel=1e-5)
    assert {result["error"][0] for result in ran_more["four killed"].values()} == {"RankLostError"}
    assert ran_more["four resumed"][0]["steps"] == ran_more["four"][0]["steps"][6:]
    assert ran_more["four resumed"][0]["weights"] == ran_more["four"][0]["weights"]


@LONG
@pytest.mark.slow
def test_sharded_weights_train_as_whole_ones_and_go_on_bit_for_bit(ran_more: Results) -> None:
    sharded, resumed = ran_more["sharded"], ran_more["sharded resumed"]
    assert_all_alike(sharded)
    assert losses(sharded[0]) == pytest.approx(losses(ran_more["one"][0]), rel=1e-5)
    assert resumed[0]["steps"] == sharded[0]["steps"][6:]
    assert resumed[0]["weights"] == sharded[0]["weights"]


@LONG
@pytest.mark.slow
def test_what_sharded_ranks_saved_goes_on_replicated_on_four(ran_more: Results) -> None:
    assert losses(ran_more["replicated on"][0]) == pytest.approx(losses(ran_more["one"][0])[7:], rel=1e-4)
    assert any("train.parallel was fsdp2, is auto" in notice for notice in ran_more["replicated on"][0]["notices"])


@LONG
@pytest.mark.slow
def test_the_first_rank_evaluates_a_whole_model_and_changes_nothing(ran_more: Results) -> None:
    replicated, sharded = ran_more["evaluated"], ran_more["sharded"]
    assert [step for step, _ in replicated[0]["evaluated"]] == [3, 6, 9, 12, 15, 18, 18]
    assert replicated[0]["evaluated"] == sharded[0]["evaluated"]
    assert replicated[1]["evaluated"] == []
    assert losses(replicated[0]) == pytest.approx(losses(ran_more["one"][0]), rel=1e-5)


@LONG
@pytest.mark.slow
@pytest.mark.parametrize("name", ["accumulated", "accumulated sharded"])
def test_accumulated_steps_are_those_of_one_rank_also_where_an_epoch_ends_within_one(
    ran_odd: Results, name: str
) -> None:
    # Six batches an epoch: a step of four, and one of two.
    assert_all_alike(ran_odd[name])
    assert [step[4] for step in ran_odd[name][0]["steps"]] == [16, 8] * 3
    assert losses(ran_odd[name][0]) == pytest.approx(losses(ran_odd["accumulated by one"][0]), rel=1e-5)


@LONG
@pytest.mark.slow
def test_a_loss_that_is_no_number_on_one_rank_stops_all_at_its_step(ran_odd: Results) -> None:
    for result in ran_odd["poisoned"].values():
        assert result["error"][0] == "TrainingDivergedError"
        assert "the loss of step 4 is nan; the checkpoint of step 2 is kept" in result["error"][1]


@LONG
@pytest.mark.slow
def test_an_error_of_one_rank_ends_the_others_with_its_reason(ran_odd: Results) -> None:
    ranks = ran_odd["raised"]
    assert ranks[1]["error"] == ["ZeroDivisionError", "by mistake"]
    assert ranks[0]["error"][0] == "RankLostError"
    assert "ZeroDivisionError: by mistake" in ranks[0]["error"][1]


@LONG
@pytest.mark.slow
def test_data_that_fail_on_one_rank_cost_no_step_of_any(ran_odd: Results) -> None:
    ranks = ran_odd["outage"]
    assert ranks[1]["error"][0] == "NetworkError"
    assert ranks[0]["error"][0] == "RankLostError"
    assert "rank 1 of 2 has stopped: the cable was cut" in ranks[0]["error"][1]
    num_made = len(ranks[0]["steps"])
    assert num_made == len(ranks[1]["steps"]) > 0
    assert_all_alike(ran_odd["mended"])
    assert losses(ranks[0]) + losses(ran_odd["mended"][0]) == pytest.approx(losses(ran_odd["one"][0]), rel=1e-4)


@LONG
@pytest.mark.slow
@pytest.mark.parametrize("name", ["silent", "silent sharded"])
def test_a_rank_without_a_trained_token_takes_part_in_every_step(ran_odd: Results, name: str) -> None:
    assert_all_alike(ran_odd[name])
    assert len(ran_odd[name][0]["steps"]) == NUM_STEPS
