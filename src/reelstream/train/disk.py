"""How the disk budget of a run is divided before its first step, and what the smallest one is that can work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reelstream.cache import DiskBudget
from reelstream.cache.budget import BLOCK_BYTES
from reelstream.errors import BudgetTooSmallError
from reelstream.prefetch.division import LEAST_CLIP_BUDGET_BYTES
from reelstream.prefetch.session import FOLDERS_BYTES, StreamSession
from reelstream.train.costs import CheckpointCost
from reelstream.units import count, format_bytes

# config.yaml, totals.json and report.json, old and new during a replacement, with a thousand quarantined clips; and
# the folder itself.
SMALL_FILES_BYTES = 1 << 20
# A choice is told at a run's start where it would leave half as much again for clips.
_WORTH_TELLING = 1.5


def set_logs_aside(budget: DiskBudget, *, log_limit_bytes: int, num_datasets: int) -> None:
    """Give the log and the small files their part, and refuse a budget that is too small whatever the dataset.

    Args:
        budget: The run's, still whole.
        log_limit_bytes: The most that the event log takes.
        num_datasets: Datasets that are opened, the held-out one included.

    Raises:
        BudgetTooSmallError: Where log, folders and the least clips do not fit.
    """
    logs_bytes = log_limit_bytes + BLOCK_BYTES + SMALL_FILES_BYTES
    needed_bytes = logs_bytes + num_datasets * FOLDERS_BYTES + LEAST_CLIP_BUDGET_BYTES
    if needed_bytes > budget.total_bytes:
        raise BudgetTooSmallError(
            f"the disk budget of {format_bytes(budget.total_bytes)} is too small for any dataset: log and report take "
            f"{format_bytes(logs_bytes)}, folders {format_bytes(num_datasets * FOLDERS_BYTES)}, clips at least "
            f"{format_bytes(LEAST_CLIP_BUDGET_BYTES)}",
            f"set disk_budget to {_megabytes(needed_bytes)} and what the catalog and the checkpoints take, or more",
        )
    account = budget.account("logs")
    account.set_aside(logs_bytes)
    account.reserve(SMALL_FILES_BYTES)


def set_checkpoints_aside(
    budget: DiskBudget,
    *,
    size_bytes: int,
    num_checkpoints: int,
    session: StreamSession,
    lanes: int,
    costs: Sequence[CheckpointCost] = (),
) -> None:
    """Give the checkpoints their part, and refuse a budget that leaves too little for clips.

    Args:
        budget: The run's, with all in it but checkpoints and clips.
        size_bytes: The most that one checkpoint takes.
        num_checkpoints: How many there are at once, the one being saved included.
        session: The dataset; its sizes say how large a clip is on average.
        lanes: As asked for.
        costs: Other ways to save, named where this one does not fit; see `costs.checkpoint_costs`.

    Raises:
        BudgetTooSmallError: Where checkpoints and the least clips do not fit; names the smallest that fits clips of
            the mean size, and what cheaper checkpoints need.
    """
    needed_bytes = num_checkpoints * size_bytes
    if budget.free_bytes < needed_bytes + LEAST_CLIP_BUDGET_BYTES:
        cheaper = [cost for cost in costs if cost.set_by and cost.size_bytes < size_bytes]
        raise _no_room_for_clips(budget, size_bytes, num_checkpoints, (session, lanes), cheaper)
    budget.account("checkpoints").set_aside(needed_bytes)


def _no_room_for_clips(
    budget: DiskBudget,
    size_bytes: int,
    num_checkpoints: int,
    asked: tuple[StreamSession, int],
    cheaper: Sequence[CheckpointCost],
) -> BudgetTooSmallError:
    session, lanes = asked
    archives = [archive for layout in session.layouts for archive in layout.archives]
    num_lanes = min(lanes, len(archives))
    mean_clip_bytes = sum(archive.size_bytes for archive in archives) // max(1, session.catalog.num_clips)
    clips_bytes = max(LEAST_CLIP_BUDGET_BYTES, (num_lanes + 2) * mean_clip_bytes)
    others = ", ".join(f"{name} {format_bytes(size)}" for name, size in _parts(budget).items() if size)
    rest_bytes = budget.total_bytes - budget.free_bytes + clips_bytes
    hints = [f"set disk_budget to {_megabytes(rest_bytes + num_checkpoints * size_bytes)} or more"]
    hints += [
        f"or {' and '.join(cost.set_by)} ({cost.name}: {num_checkpoints} x {format_bytes(cost.size_bytes)}"
        f"{'' if cost.can_resume else ', nothing to resume from'}) with disk_budget="
        f"{_megabytes(rest_bytes + num_checkpoints * cost.size_bytes)} or more"
        for cost in cheaper
    ]
    return BudgetTooSmallError(
        f"the disk budget of {format_bytes(budget.total_bytes)} cannot hold {count(num_checkpoints, 'checkpoint')} "
        f"({num_checkpoints} x {format_bytes(size_bytes)}, the one being saved included) and {num_lanes + 2} clips "
        f"({format_bytes(mean_clip_bytes)} each on average) beside the rest ({others})",
        "; ".join([*hints, "fewer lanes need room for fewer clips"]),
    )


def _parts(budget: DiskBudget) -> dict[str, int]:
    """Return the bytes of each account, or set aside for it; all catalogs as one, and all sets of archives."""
    parts: dict[str, int] = {}
    for account, size_bytes in budget.by_account().items():
        name = account.partition(" ")[0] if account.startswith(("catalog ", "archives ")) else account
        parts[name] = parts.get(name, 0) + size_bytes
    return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskPlan:
    """How a run's disk budget is divided, once all but clips have their part."""

    disk_budget_bytes: int
    parts: Mapping[str, int]
    """Bytes of each part but clips and checkpoints, by the name of its account: what it has, or is kept for it."""
    checkpoint_bytes: int
    """The most that one checkpoint takes."""
    num_checkpoints: int
    """At once, the one being saved included."""
    clips_bytes: int
    """What is left for clips."""
    costs: tuple[CheckpointCost, ...]
    """Ways to save, the run's own first."""

    def clips_bytes_with(self, cost: CheckpointCost) -> int:
        """Return what another way to save would leave for clips; below 0 where it does not fit."""
        return self.clips_bytes + self.num_checkpoints * (self.checkpoint_bytes - cost.size_bytes)

    @property
    def sentence(self) -> str:
        """The division in a line for people, and what cheaper checkpoints would give to clips where that is a lot."""
        others = ", ".join(f"{name} {format_bytes(size)}" for name, size in self.parts.items() if size)
        cheaper = [
            f"{' '.join(cost.set_by)} would leave {format_bytes(self.clips_bytes_with(cost))}"
            for cost in self.costs
            if cost.set_by and self.clips_bytes_with(cost) > _WORTH_TELLING * self.clips_bytes
        ]
        return (
            f"disk budget {format_bytes(self.disk_budget_bytes)}: clips {format_bytes(self.clips_bytes)}, checkpoints "
            f"{self.num_checkpoints} x {format_bytes(self.checkpoint_bytes)}, {others}"
            + (f"; for clips {', '.join(cheaper)}" if cheaper else "")
        )

    def to_json(self) -> dict[str, Any]:
        """Return the plan as the run's report keeps it."""
        return {
            "disk_budget_bytes": self.disk_budget_bytes,
            "clips_bytes": self.clips_bytes,
            "checkpoints_bytes": self.num_checkpoints * self.checkpoint_bytes,
            "num_checkpoints": self.num_checkpoints,
            "other_bytes": dict(self.parts),
            "checkpoint_choices": [
                {
                    "name": cost.name,
                    "set_by": list(cost.set_by),
                    "checkpoint_bytes": cost.size_bytes,
                    "can_resume": cost.can_resume,
                    "clips_bytes": self.clips_bytes_with(cost),
                }
                for cost in self.costs
            ],
        }


def plan_of(budget: DiskBudget, costs: Sequence[CheckpointCost], *, num_checkpoints: int) -> DiskPlan:
    """Return how a budget is divided.

    Args:
        budget: The run's, with all parts in it, that of checkpoints included.
        costs: Ways to save, the run's own first.
        num_checkpoints: How many there are at once, the one being saved included.
    """
    parts = {name: size for name, size in _parts(budget).items() if name not in ("clips", "checkpoints")}
    return DiskPlan(
        disk_budget_bytes=budget.total_bytes,
        parts=parts,
        checkpoint_bytes=costs[0].size_bytes,
        num_checkpoints=num_checkpoints,
        clips_bytes=budget.account("clips").available_bytes,
        costs=tuple(costs),
    )


def _megabytes(size_bytes: int) -> str:
    return f"{-(-size_bytes // 10**6)}MB"
