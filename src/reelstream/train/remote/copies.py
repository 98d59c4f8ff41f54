"""The copies of one run: what its folder asks of them when it begins, and the thread that makes them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self

from reelstream.cancel import Cancellation
from reelstream.errors import ConfigError, HubError, ReelstreamError
from reelstream.telemetry import Telemetry
from reelstream.train.remote.opening import opened_remote
from reelstream.train.remote.options import RemoteOptions
from reelstream.train.remote.pulling import Tell, pull_newest
from reelstream.train.remote.pushing import HeldCheckpoints, Pusher
from reelstream.train.remote.remote import Remote


class Copies:
    """The places that `remote` names; a context manager that reaches them.

    Without `remote.push` and `remote.pull` it does nothing.

    Args:
        options: The places, and the rhythm.
        endpoint: The Hub; None takes `HF_ENDPOINT`, or else the public one.
        limit_bytes: The disk budget.
        tell: Takes sentences for people.

    Raises (when entered):
        HubError, DiskError: Where the place to push to cannot be reached, made, or written to.
    """

    def __init__(
        self, options: RemoteOptions, *, endpoint: str | None, limit_bytes: int, tell: Tell = lambda _: None
    ) -> None:
        self._options = options
        self._endpoint = options.endpoint or endpoint
        self._limit_bytes = limit_bytes
        self._tell = tell
        self._resources = contextlib.ExitStack()
        self._target: Remote | None = None
        self._source: Remote | None = None

    def __enter__(self) -> Self:
        options = self._options
        with self._resources:
            if options.push is not None:
                self._target = self._open(options.push, "remote.push")
                self._target.prepare(Cancellation())
            if options.pull in {None, options.push}:
                self._source = self._target
            elif options.pull is not None:
                self._source = self._open(options.pull, "remote.pull")
            self._resources = self._resources.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._resources.close()

    def fetch_newer(self, run_folder: Path, *, than_step: int | None) -> bool:
        """Fetch the newest whole checkpoint into the run's folder, where it is of a later step than the one there.

        So a run that went on elsewhere goes on from there, also on a machine that it had left.

        Args:
            run_folder: The run's folder.
            than_step: The newest checkpoint in it; None where it holds none.

        Returns:
            Whether one came.

        Raises:
            ReelstreamError: Where the place cannot be read, or holds damaged ones only, and the folder holds none;
                else that is told, and the run goes on from its own.
        """
        if self._source is None:
            return False
        newest = -1 if than_step is None else than_step
        try:
            step = pull_newest(
                self._source, run_folder, newer_than=newest, limit_bytes=self._limit_bytes, tell=self._tell
            )
        except ReelstreamError as error:
            if than_step is None:
                raise
            self._tell(
                f"{self._source} cannot be asked for a newer checkpoint than that of step {than_step}: {error.fact}"
            )
            return False
        return step is not None

    def refuse_another_run(self) -> None:
        """Refuse to begin a run whose place holds one.

        Raises:
            ConfigError: Where there are checkpoints.
        """
        if self._target is not None and (steps := self._target.steps(Cancellation())):
            raise ConfigError(
                f"a run is in {self._target} already: the checkpoint of step {steps[-1]}",
                "go on with --resume, delete it with --restart, or choose another remote.push",
            )

    def clear(self) -> None:
        """Delete the run that is at the place to push to; one to pull from stays."""
        if self._target is not None and self._target.steps(Cancellation()):
            self._tell(f"deleting the run in {self._target}")
            self._target.clear(Cancellation())

    def pusher(self, checkpoints: HeldCheckpoints, run_folder: Path, telemetry: Telemetry) -> Pusher | None:
        """Return the thread that copies checkpoints, not begun; None where none are copied."""
        if self._target is None:
            return None
        pushed_step = None
        # It only saves one push; the place was reached a moment ago.
        with contextlib.suppress(HubError):
            pushed_step = max(self._target.steps(Cancellation()), default=None)
        return Pusher(
            self._target,
            checkpoints,
            run_folder=run_folder,
            options=self._options,
            pushed_step=pushed_step,
            telemetry=telemetry,
        )

    def _open(self, text: str, setting: str) -> Remote:
        return self._resources.enter_context(
            opened_remote(text, setting=setting, endpoint=self._endpoint, private=self._options.private)
        )
