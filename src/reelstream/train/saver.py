"""Checkpoints of all ranks: each gives its part, the first one writes, and all go on once it is durable."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch

from reelstream.clock import Clock, SystemClock
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import CheckpointSaved
from reelstream.train.checkpoints import CheckpointStore
from reelstream.train.models import LoadedModel
from reelstream.train.options import CheckpointOptions, TrainOptions
from reelstream.train.parallel import Team
from reelstream.train.rank_state import RankState
from reelstream.train.saving import Progress, checkpoint_contents, gather_model_state

States = Sequence[dict[str, Any]]
MergeStates = Callable[[States], dict[str, Any]]


def first_state(states: States) -> dict[str, Any]:
    """Return the first rank's state: all there is to merge where there is one rank."""
    return states[0]


class Saver:
    """Saves what all ranks have come to.

    Args:
        team: The ranks.
        store: Where to; opened. None on ranks that do not write.
        loaded: The model.
        optimizer: Its optimizer.
        options: Of the run; kept so that a resume can say what changed.
        checkpoints: Which weights, and whether for a resume.
        run_state: Returns this rank's figures, as JSON values.
        merge_data_states: Makes one state of the stream of all ranks' states.
        merge_run_states: Makes one value of all ranks' figures.
        telemetry: Receives the events, on the rank that writes.
        clock: For the figures.
    """

    def __init__(
        self,
        team: Team,
        store: CheckpointStore | None,
        *,
        loaded: LoadedModel,
        optimizer: torch.optim.Optimizer,
        options: TrainOptions,
        checkpoints: CheckpointOptions,
        run_state: Callable[[], dict[str, Any]],
        merge_data_states: MergeStates,
        merge_run_states: MergeStates,
        telemetry: Telemetry,
        clock: Clock | None = None,
    ) -> None:
        self._team = team
        self._store = store
        self._loaded = loaded
        self._optimizer = optimizer
        self._options = options
        self._checkpoints = checkpoints
        self._run_state = run_state
        self._merge_data_states = merge_data_states
        self._merge_run_states = merge_run_states
        self._telemetry = telemetry
        self._clock = clock or SystemClock()

    def save(self, progress: Progress, data_state: dict[str, Any]) -> None:
        """Save; all ranks call this together, and return once the checkpoint is durable.

        Args:
            progress: Of the run, the same on all ranks.
            data_state: Of this rank's stream.

        Raises:
            BudgetTooSmallError: On the writing rank, where it does not fit; nothing was written.
            DiskError: On the writing rank, where the disk refused.
            RankLostError: On the others then, and on all where a rank is gone.
        """
        start_s = self._clock.monotonic()
        own = RankState.here(data_state=data_state, run_state=self._run_state())
        parts = [RankState.unpack(each) for each in self._team.exchange("checkpoint", own.pack())]
        with self._team.watched("a checkpoint"):
            state = gather_model_state(self._loaded, self._optimizer, self._checkpoints, keep=self._store is not None)
        if self._store is None:
            self._team.from_first("durable checkpoint", b"")
            return
        contents = checkpoint_contents(
            self._loaded,
            state,
            options=self._options,
            progress=progress,
            ranks=parts,
            data_state=self._merge_data_states([part.data_state for part in parts]),
            run_state=self._merge_run_states([part.run_state for part in parts]),
            checkpoints=self._checkpoints,
        )
        saved = self._store.save(contents)
        self._team.from_first("durable checkpoint", json.dumps(progress.step).encode())
        self._telemetry.emit(
            CheckpointSaved(step=progress.step, size_bytes=saved.size_bytes, wait_s=self._clock.monotonic() - start_s)
        )
