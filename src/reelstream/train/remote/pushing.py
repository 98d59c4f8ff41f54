"""Pushing beside training: a thread that takes the newest durable checkpoint to a place, whenever that is due."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from reelstream.cancel import Cancellation, Cancelled
from reelstream.clock import Clock, SystemClock
from reelstream.errors import ReelstreamError
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import CheckpointPushed, Notice, PushFailed
from reelstream.train.checkpoints import Saved
from reelstream.train.remote.options import RemoteOptions
from reelstream.train.remote.remote import Bundle, Remote
from reelstream.train.remote.rhythm import Rhythm
from reelstream.units import format_bytes, format_seconds

_TELL_EVERY_S = 10.0
# A wait that nothing ends but a change.
_NEVER_S = 3600.0


class HeldCheckpoints(Protocol):
    """Whoever keeps the run's own checkpoints, and can keep one from being deleted (`CheckpointStore`)."""

    def held(self, step: int) -> contextlib.AbstractContextManager[Path | None]:
        """Keep a checkpoint as long as the block runs; yield its folder, or None where it is gone."""
        ...


class Pusher:
    """Takes checkpoints to a place as long as its block runs, without holding up who saves them.

    Failures are told, tried again, and end nothing. Leaving the block ends a push that is on its way; `finish` waits
    for the last one before.

    Args:
        remote: The place.
        checkpoints: Where the checkpoints are taken from.
        run_folder: The run's folder, for what goes along.
        options: When, and how many stay there.
        pushed_step: The newest checkpoint that is there already.
        telemetry: Hears of each push and each failure.
        clock: The time.
    """

    def __init__(
        self,
        remote: Remote,
        checkpoints: HeldCheckpoints,
        *,
        run_folder: Path,
        options: RemoteOptions,
        pushed_step: int | None = None,
        telemetry: Telemetry | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._remote = remote
        self._checkpoints = checkpoints
        self._run_folder = run_folder
        self._keep = options.keep
        self._telemetry = telemetry or Telemetry()
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._settled = threading.Event()
        self._settled.set()
        self._cancellation = Cancellation()
        self._rhythm = Rhythm(
            every_s=options.every, every_checkpoints=options.every_checkpoints, pushed_step=pushed_step
        )
        self._figures = {"pushes": 0, "failures": 0, "bytes": 0}
        self._longest_push_s = 0.0
        self._problem: str | None = None
        self._thread = threading.Thread(target=self._run, name="reelstream-push", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cancellation.cancel()
        self._changed.set()
        self._thread.join()

    def offer(self, saved: Saved) -> None:
        """Note that a checkpoint is durable; returns at once."""
        self._change(lambda rhythm: rhythm.saved(saved.step))

    def offer_step(self, step: int) -> None:
        """Note the checkpoint that a run goes on from, which an earlier process may not have pushed."""
        self._change(lambda rhythm: rhythm if rhythm.pushed_step == step else rhythm.saved(step))

    def finish(self, wait_s: float) -> bool:
        """Push the newest checkpoint now and wait for it, telling every ten seconds.

        Args:
            wait_s: The most seconds to wait.

        Returns:
            Whether it is there. Where it is not, that is told, too.
        """
        start_s = self._clock.monotonic()
        self._change(lambda rhythm: rhythm.hurry(start_s))
        while not self._settled.is_set():
            waited_s = self._clock.monotonic() - start_s
            left_s = wait_s - waited_s
            if left_s <= 0:
                break
            if waited_s > 0:
                self._tell(
                    f"waiting for the checkpoint of step {self._rhythm.saved_step} to be in {self._remote} "
                    f"({format_seconds(waited_s)} so far, {format_seconds(left_s)} more at most)"
                )
            self._clock.wait(self._settled, min(_TELL_EVERY_S, left_s))
        done = self._settled.is_set()
        if not done:
            reason = f": {self._problem}" if self._problem else ""
            self._tell(
                f"the checkpoint of step {self._rhythm.saved_step} is not in {self._remote}{reason}; it is in "
                f"{self._run_folder}, and a resume there pushes it"
            )
        return done

    @property
    def longest_push_s(self) -> float:
        """Seconds that the slowest push took so far; 0 before the first."""
        return self._longest_push_s

    @property
    def report(self) -> dict[str, Any]:
        """The figures for the run's report."""
        with self._lock:
            return {"place": str(self._remote), "newest_step": self._rhythm.pushed_step, **self._figures}

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        while not self._cancellation.cancelled:
            self._changed.clear()
            now_s = self._clock.monotonic()
            wait_s = self._rhythm.wait_s(now_s)
            if wait_s == 0:
                with contextlib.suppress(Cancelled):
                    self._push_once(now_s)
            else:
                self._clock.wait(self._changed, _NEVER_S if wait_s is None else wait_s)

    def _push_once(self, now_s: float) -> None:
        step = self._rhythm.saved_step
        assert step is not None, "a push is due, so something was saved"
        with self._checkpoints.held(step) as folder:
            if folder is None:
                # A newer one has taken its place, and is offered any moment.
                self._clock.wait(self._changed, 1.0)
                return
            self._change(lambda rhythm: rhythm.begun(now_s))
            bundle = Bundle(step=step, checkpoint=folder, run_folder=self._run_folder)
            try:
                size_bytes = bundle.size_bytes
                self._remote.push(bundle, keep=self._keep, cancellation=self._cancellation)
            except Cancelled:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, a copy's failure must not end the run
                self._note_failure(step, error)
            else:
                self._note_success(step, size_bytes, self._clock.monotonic() - now_s)

    def _note_success(self, step: int, size_bytes: int, wait_s: float) -> None:
        had_failed = self._rhythm.num_failures > 0
        self._longest_push_s = max(self._longest_push_s, wait_s)
        self._problem = None
        with self._lock:
            self._figures["pushes"] += 1
            self._figures["bytes"] += size_bytes
        self._change(lambda rhythm: rhythm.succeeded(step))
        self._telemetry.emit(CheckpointPushed(step=step, size_bytes=size_bytes, wait_s=wait_s))
        if had_failed:
            self._tell(f"the checkpoint of step {step} is in {self._remote} ({format_bytes(size_bytes)})")

    def _note_failure(self, step: int, error: Exception) -> None:
        self._cancellation.raise_if_cancelled()
        fact = error.fact if isinstance(error, ReelstreamError) else f"{type(error).__name__}: {error}"
        is_news = fact != self._problem
        self._problem = fact
        now_s = self._clock.monotonic()
        with self._lock:
            self._figures["failures"] += 1
        self._change(lambda rhythm: rhythm.failed(now_s))
        rhythm = self._rhythm
        wait_s = max(0.0, (rhythm.retry_s or now_s) - now_s)
        self._telemetry.emit(PushFailed(step=step, reason=fact, attempt=rhythm.num_failures, wait_s=wait_s))
        if is_news:
            self._tell(f"pushing the checkpoint of step {step} failed, and is tried again: {fact}")

    def _change(self, change: Callable[[Rhythm], Rhythm]) -> None:
        with self._lock:
            self._rhythm = change(self._rhythm)
            if self._rhythm.up_to_date:
                self._settled.set()
            else:
                self._settled.clear()
        self._changed.set()

    def _tell(self, message: str) -> None:
        self._telemetry.emit(Notice(message=message))
