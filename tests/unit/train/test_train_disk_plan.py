"""What checkpoints cost, and how the disk budget is divided: told before the first step, in numbers that hold."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from reelstream.cache import DiskBudget
from reelstream.errors import BudgetTooSmallError
from reelstream.prefetch.session import StreamSession
from reelstream.train.costs import CheckpointCost, checkpoint_bytes, checkpoint_costs
from reelstream.train.disk import plan_of, set_checkpoints_aside
from reelstream.train.models import load_model
from reelstream.train.options import CheckpointOptions, LoraOptions, ModelOptions
from reelstream.train.saving import checkpoint_size_bytes
from train_kit import SMALLEST, TEXTS

LORA = LoraOptions(rank=4, alpha=8)
MB = 10**6
COSTS = [
    CheckpointCost(name="full", set_by=(), size_bytes=24 * MB, can_resume=True),
    CheckpointCost(name="weights_only", set_by=("checkpoints.weights_only=true",), size_bytes=8 * MB, can_resume=False),
    CheckpointCost(name="lora", set_by=("model.lora.rank=16",), size_bytes=2 * MB, can_resume=True),
]


def session_of(num_clips: int = 100, archive_bytes: int = 10 * MB) -> StreamSession:
    layout = SimpleNamespace(archives=[SimpleNamespace(size_bytes=archive_bytes)] * 2)
    return cast("StreamSession", SimpleNamespace(layouts=[layout], catalog=SimpleNamespace(num_clips=num_clips)))


def costs_of(model: ModelOptions, checkpoints: CheckpointOptions) -> dict[str, CheckpointCost]:
    loaded = load_model(model, texts=TEXTS, seed=0)
    return {cost.name: cost for cost in checkpoint_costs(loaded, model, checkpoints)}


# ---------------------------------------------------------------------- the arithmetic


@pytest.mark.parametrize(
    ("num_saved", "num_trained", "weights_only", "gigabytes"),
    [
        (2_000_000_000, 2_000_000_000, False, 24.0),
        (2_000_000_000, 2_000_000_000, True, 8.0),
        (17_000_000, 17_000_000, False, 0.205),
    ],
)
def test_a_parameter_costs_four_bytes_saved_and_eight_more_trained(
    num_saved: int, num_trained: int, weights_only: bool, gigabytes: float
) -> None:
    told = checkpoint_bytes(num_saved=num_saved, num_trained=num_trained, weights_only=weights_only)
    assert told / 1e9 == pytest.approx(gigabytes, abs=0.002)


def test_the_runs_own_way_is_first_and_exact() -> None:
    model = ModelOptions(tiny=SMALLEST)
    loaded = load_model(model, texts=TEXTS, seed=0)
    own, *others = checkpoint_costs(loaded, model, CheckpointOptions())
    assert (own.name, own.set_by) == ("full", ())
    assert own.size_bytes == checkpoint_size_bytes(loaded, CheckpointOptions())
    assert all(other.set_by for other in others)


@pytest.mark.parametrize(
    ("model", "checkpoints"),
    [
        (ModelOptions(tiny=SMALLEST), CheckpointOptions(weights_only=True)),
        (ModelOptions(tiny=SMALLEST, lora=LoraOptions()), CheckpointOptions()),
        (ModelOptions(tiny=SMALLEST, lora=LoraOptions()), CheckpointOptions(weights_only=True)),
    ],
)
def test_what_another_way_is_said_to_cost_is_close_to_what_it_costs(
    model: ModelOptions, checkpoints: CheckpointOptions
) -> None:
    told = costs_of(ModelOptions(tiny=SMALLEST), CheckpointOptions())
    loaded = load_model(model, texts=TEXTS, seed=0)
    own = checkpoint_costs(loaded, model, checkpoints)[0]
    assert abs(told[own.name].size_bytes - own.size_bytes) < 1.2 * 2**20


@pytest.mark.parametrize(
    ("model", "checkpoints", "expected"),
    [
        (
            ModelOptions(tiny=SMALLEST),
            CheckpointOptions(),
            {
                "weights_only": ("checkpoints.weights_only=true",),
                "lora with its base": ("model.lora.rank=16",),
                "lora with its base, weights_only": ("model.lora.rank=16", "checkpoints.weights_only=true"),
            },
        ),
        (
            ModelOptions(tiny=SMALLEST, lora=LORA),
            CheckpointOptions(weights="full", weights_only=True),
            {
                "full": ("model.lora=null", "checkpoints.weights_only=false"),
                "weights_only": ("model.lora=null",),
                "lora with its base": ("checkpoints.weights_only=false",),
            },
        ),
    ],
)
def test_each_way_names_the_arguments_that_choose_it(
    model: ModelOptions, checkpoints: CheckpointOptions, expected: dict[str, tuple[str, ...]]
) -> None:
    told = costs_of(model, checkpoints)
    assert {name: cost.set_by for name, cost in told.items() if cost.set_by} == expected


# ---------------------------------------------------------------------- the refusal


def test_a_refusal_names_the_smallest_budget_of_each_way_to_save() -> None:
    def refused_with(total_bytes: int, size_bytes: int) -> str | None:
        budget = DiskBudget(total_bytes)
        budget.account("logs").reserve(MB)
        try:
            set_checkpoints_aside(
                budget, size_bytes=size_bytes, num_checkpoints=2, session=session_of(), lanes=8, costs=COSTS
            )
        except BudgetTooSmallError as error:
            return error.hint
        return None

    hint = refused_with(10 * MB, 24 * MB)
    assert hint is not None
    # One block of folders and logs, twice the checkpoint, and room for the least clips.
    assert "set disk_budget to 51MB or more" in hint
    assert (
        "or checkpoints.weights_only=true (weights_only: 2 x 8.00 MB, nothing to resume from) with disk_budget=19MB"
        in hint
    )
    assert "or model.lora.rank=16 (lora: 2 x 2.00 MB) with disk_budget=7MB" in hint
    for total_bytes, size_bytes in ((51 * MB, 24 * MB), (19 * MB, 8 * MB), (7 * MB, 2 * MB)):
        assert refused_with(total_bytes, size_bytes) is None


def test_a_refusal_without_cheaper_ways_names_the_budget_alone() -> None:
    with pytest.raises(BudgetTooSmallError) as caught:
        set_checkpoints_aside(DiskBudget(10 * MB), size_bytes=24 * MB, num_checkpoints=2, session=session_of(), lanes=8)
    assert caught.value.hint == "set disk_budget to 50MB or more; fewer lanes need room for fewer clips"


# ---------------------------------------------------------------------- the plan


def divided_budget() -> DiskBudget:
    budget = DiskBudget(100 * MB)
    budget.account("logs").set_aside(4 * MB)
    budget.account("catalog one").reserve(2 * MB)
    budget.account("catalog two").reserve(3 * MB)
    budget.account("indexes").set_aside(1 * MB)
    budget.account("clips").reserve(5 * MB)
    budget.account("checkpoints").set_aside(48 * MB)
    return budget


def test_the_plan_divides_all_of_the_budget() -> None:
    plan = plan_of(divided_budget(), COSTS, num_checkpoints=2)
    assert plan.parts == {"logs": 4 * MB, "catalog": 5 * MB, "indexes": 1 * MB}
    assert plan.clips_bytes == 42 * MB
    assert sum(plan.parts.values()) + plan.clips_bytes + 2 * plan.checkpoint_bytes == 100 * MB


def test_the_plan_says_what_each_way_to_save_would_leave_for_clips() -> None:
    plan = plan_of(divided_budget(), COSTS, num_checkpoints=2)
    assert [plan.clips_bytes_with(cost) for cost in COSTS] == [42 * MB, 74 * MB, 86 * MB]
    assert plan.sentence == (
        "disk budget 100 MB: clips 42.0 MB, checkpoints 2 x 24.0 MB, logs 4.00 MB, catalog 5.00 MB, indexes 1.00 MB; "
        "for clips checkpoints.weights_only=true would leave 74.0 MB, model.lora.rank=16 would leave 86.0 MB"
    )


def test_choices_that_change_little_are_not_told_at_the_start() -> None:
    budget = DiskBudget(1000 * MB)
    budget.account("checkpoints").set_aside(48 * MB)
    assert "would leave" not in plan_of(budget, COSTS, num_checkpoints=2).sentence


def test_the_report_keeps_the_plan_as_json(tmp_path: Path) -> None:
    kept: dict[str, Any] = plan_of(divided_budget(), COSTS, num_checkpoints=2).to_json()
    assert kept["clips_bytes"] + kept["checkpoints_bytes"] + sum(kept["other_bytes"].values()) == 100 * MB
    assert kept["checkpoint_choices"][2] == {
        "name": "lora",
        "set_by": ["model.lora.rank=16"],
        "checkpoint_bytes": 2 * MB,
        "can_resume": True,
        "clips_bytes": 86 * MB,
    }
