"""The way back: the newest whole checkpoint of a place, into a run's folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from reelstream.cancel import Cancellation
from reelstream.clock import Clock, SystemClock
from reelstream.durable import force_to_disk
from reelstream.errors import BudgetTooSmallError, StateError
from reelstream.train.checkpoints import partial_folder, step_name, verified
from reelstream.train.remote.copying import disk_errors
from reelstream.train.remote.remote import Remote
from reelstream.units import count, format_bytes, format_seconds

_TELL_EVERY_S = 5.0

Tell = Callable[[str], None]
"""Takes a sentence for people."""


def pull_newest(
    remote: Remote,
    run_folder: Path,
    *,
    newer_than: int = -1,
    limit_bytes: int | None = None,
    tell: Tell = lambda _: None,
    cancellation: Cancellation | None = None,
    clock: Clock | None = None,
) -> int | None:
    """Fetch the newest checkpoint that is whole into `run_folder/checkpoints`, and what lies beside it.

    What came is compared with its manifest before it gets its name; where it differs, the one before it is taken.

    Args:
        remote: The place.
        run_folder: The run's folder; made if need be.
        newer_than: Only a checkpoint of a later step is fetched.
        limit_bytes: The disk budget; a checkpoint beyond it is not begun.
        tell: Hears of what is fetched and passed over.
        cancellation: Calls the work off; nothing half fetched is left.
        clock: Tells when to tell again.

    Returns:
        The step; None where there is none that is newer.

    Raises:
        StateError: Where there are newer ones, and all are damaged.
        BudgetTooSmallError: Where it does not fit.
        HubError, DiskError: Where the place cannot be read, or the folder not be written to.
        Cancelled: Where the work is called off.
    """
    cancellation = cancellation or Cancellation()
    steps = [step for step in remote.steps(cancellation) if step > newer_than]
    reasons: list[str] = []
    for step in reversed(steps):
        try:
            _refuse_too_large(remote, step, limit_bytes, cancellation)
            _fetch_one(remote, step, run_folder / "checkpoints", cancellation, _Counter(step, remote, tell, clock))
        except StateError as error:
            reasons.append(error.fact)
            tell(f"passed over in {remote}: {error.fact}")
            continue
        remote.fetch_others(run_folder, cancellation)
        return step
    if reasons:
        raise StateError(
            f"no checkpoint in {remote} can be used: {'; '.join(reasons)}",
            f"delete the {count(len(reasons), 'damaged one')} there and start anew",
        )
    return None


class _Counter:
    """Tells every few seconds how much has come."""

    def __init__(self, step: int, remote: Remote, tell: Tell, clock: Clock | None) -> None:
        self._what = f"the checkpoint of step {step} from {remote}"
        self._tell = tell
        self._clock = clock or SystemClock()
        self._start_s = self._told_s = self._clock.monotonic()
        self._size_bytes = 0

    def __call__(self, size_bytes: int) -> None:
        self._size_bytes += size_bytes
        now_s = self._clock.monotonic()
        if now_s - self._told_s >= _TELL_EVERY_S:
            self._told_s = now_s
            self._tell(f"fetching {self._what}: {format_bytes(self._size_bytes)}")

    def done(self) -> None:
        wait_s = self._clock.monotonic() - self._start_s
        self._tell(f"fetched {self._what}: {format_bytes(self._size_bytes)} in {format_seconds(wait_s)}")


def _refuse_too_large(remote: Remote, step: int, limit_bytes: int | None, cancellation: Cancellation) -> None:
    size_bytes = remote.checkpoint_bytes(step, cancellation)
    if limit_bytes is not None and size_bytes > limit_bytes:
        raise BudgetTooSmallError(
            f"the checkpoint of step {step} in {remote} has {format_bytes(size_bytes)}, more than the disk budget of "
            f"{format_bytes(limit_bytes)}",
            "give the run the disk budget that it had",
        )


def _fetch_one(remote: Remote, step: int, parent: Path, cancellation: Cancellation, counter: _Counter) -> None:
    partial = partial_folder(parent, step)
    try:
        remote.fetch(step, partial, cancellation, counter)
        with disk_errors(f"{parent} cannot be written to", "make room, or check its permissions"):
            verified(partial, step)
            force_to_disk(partial)
            target = parent / step_name(step)
            if target.exists():
                shutil.rmtree(target)
            partial.rename(target)
            force_to_disk(parent)
        counter.done()
    finally:
        shutil.rmtree(partial, ignore_errors=True)
