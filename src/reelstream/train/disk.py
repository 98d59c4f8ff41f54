"""How the disk budget of a run is divided before its first step, and what the smallest one is that can work."""

from __future__ import annotations

from reelstream.cache import DiskBudget
from reelstream.cache.budget import BLOCK_BYTES
from reelstream.errors import BudgetTooSmallError
from reelstream.prefetch.session import FOLDERS_BYTES, LEAST_CLIP_BUDGET_BYTES, StreamSession
from reelstream.units import count, format_bytes

# config.yaml, totals.json and report.json, old and new during a replacement, with a thousand quarantined clips; and
# the folder itself.
SMALL_FILES_BYTES = 1 << 20


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
    budget: DiskBudget, *, size_bytes: int, num_checkpoints: int, session: StreamSession, lanes: int
) -> None:
    """Give the checkpoints their part, and refuse a budget that leaves too little for clips.

    Args:
        budget: The run's, with all in it but checkpoints and clips.
        size_bytes: The most that one checkpoint takes.
        num_checkpoints: How many there are at once, the one being saved included.
        session: The dataset; its sizes say how large a clip is on average.
        lanes: As asked for.

    Raises:
        BudgetTooSmallError: Where checkpoints and the least clips do not fit; names the smallest that fits clips of
            the mean size.
    """
    needed_bytes = num_checkpoints * size_bytes
    if budget.free_bytes < needed_bytes + LEAST_CLIP_BUDGET_BYTES:
        raise _no_room_for_clips(budget, needed_bytes, num_checkpoints, session, lanes)
    budget.account("checkpoints").set_aside(needed_bytes)


def _no_room_for_clips(
    budget: DiskBudget, checkpoints_bytes: int, num_checkpoints: int, session: StreamSession, lanes: int
) -> BudgetTooSmallError:
    archives = [archive for layout in session.layouts for archive in layout.archives]
    num_lanes = min(lanes, len(archives))
    mean_clip_bytes = sum(archive.size_bytes for archive in archives) // max(1, session.catalog.num_clips)
    clips_bytes = max(LEAST_CLIP_BUDGET_BYTES, (num_lanes + 2) * mean_clip_bytes)
    others = ", ".join(f"{name} {format_bytes(size)}" for name, size in budget.by_account().items() if size)
    smallest_bytes = budget.total_bytes - budget.free_bytes + checkpoints_bytes + clips_bytes
    return BudgetTooSmallError(
        f"the disk budget of {format_bytes(budget.total_bytes)} cannot hold {count(num_checkpoints, 'checkpoint')} "
        f"({format_bytes(checkpoints_bytes)}, the one being saved included) and {num_lanes + 2} clips "
        f"({format_bytes(mean_clip_bytes)} each on average) beside the rest ({others})",
        f"set disk_budget to {_megabytes(smallest_bytes)} or more; fewer lanes need room for fewer clips",
    )


def _megabytes(size_bytes: int) -> str:
    return f"{-(-size_bytes // 10**6)}MB"
