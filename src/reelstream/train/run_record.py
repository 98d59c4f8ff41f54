"""What a run has counted, on all of its ranks: the event log, figures at each checkpoint, books, and the report."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reelstream.cache import DiskBudget
from reelstream.data import StreamingVideoDataset, merge_states
from reelstream.errors import DiskError, RankLostError
from reelstream.telemetry import JsonLinesSink, Telemetry, events
from reelstream.telemetry.report import build_report, write_report
from reelstream.telemetry.totals import Totals
from reelstream.train.checkpoints import Checkpoint
from reelstream.train.loop import TrainingLoop
from reelstream.train.parallel import Team
from reelstream.train.run_figures import figures_of, high_water_of, merged_figures, with_high_water
from reelstream.train.run_folder import EVENTS_FILE, REPORT_FILE, TOTALS_FILE
from reelstream.train.saving import saved_run_state


class RunRecord:
    """The record of one run, as one rank keeps it; the first one's speaks for all.

    Args:
        folder: The run's.
        checkpoint: What it goes on from.
        team: The ranks.
        budget: The run's.
        telemetry: Whose events are counted.
    """

    def __init__(
        self, folder: Path, checkpoint: Checkpoint | None, team: Team, *, budget: DiskBudget, telemetry: Telemetry
    ) -> None:
        self._folder = folder
        self._team = team
        self._budget = budget
        self._telemetry = telemetry
        # What all ranks had counted, the first one goes on from.
        saved = saved_run_state(checkpoint) if checkpoint is not None and team.is_first else {}
        latest = self._latest_state() if saved else None
        self._earlier_high_water_bytes = max(high_water_of(saved), high_water_of(latest))
        self.totals = Totals.from_json(saved, latest) if saved else Totals()
        self._begun_before = frozenset(self.totals.consumed.needed_bytes)
        self._others_figures: list[dict[str, Any]] = []
        self._whole_data_state: dict[str, Any] | None = None
        self._whole_at_step: int | None = None
        self._log: JsonLinesSink | None = None
        telemetry.add(self.totals)

    # ------------------------------------------------------------------ the log

    def open_log(self, limit_bytes: int) -> None:
        """Write events from now on, at most so many bytes."""
        self._log = JsonLinesSink(
            self._folder / EVENTS_FILE, limit_bytes=limit_bytes, reserve=self._budget.account("logs").reserve
        )
        self._telemetry.add(self._log)

    def close_log(self) -> None:
        """End the log, if there is one."""
        if self._log is not None:
            self._log.close()

    def raise_log_problem(self) -> None:
        """Raise what the log could not be written for.

        Raises:
            DiskError: That.
        """
        if self._log is not None and self._log.problem is not None:
            raise self._log.problem

    # ------------------------------------------------------------------ figures

    def own_figures(self) -> dict[str, Any]:
        """Return what this rank has counted; the first one, with all that was counted before a resume."""
        return figures_of(self.totals, high_water_bytes=self._budget.high_water_bytes, place=self._team.place)

    def _run_figures(self) -> dict[str, Any]:
        """Return the figures of all ranks, as far as they are known here."""
        figures = merged_figures([self.own_figures(), *self._others_figures], begun_before=self._begun_before)
        return with_high_water(figures, self._earlier_high_water_bytes)

    def write_figures(self) -> dict[str, Any]:
        """Return the figures that a resume goes on from; also kept beside the checkpoints, for what is spent later."""
        self.raise_log_problem()
        state = self._run_figures()
        write_small(self._folder / TOTALS_FILE, json.dumps(state, ensure_ascii=False))
        return state

    def take_others(self, figures: Sequence[dict[str, Any]]) -> None:
        """Take what the other ranks have counted up to a checkpoint."""
        self._others_figures = list(figures)

    def _latest_state(self) -> dict[str, Any] | None:
        """Return the figures as they were last written, which may be later than the checkpoint's."""
        with contextlib.suppress(OSError, ValueError):
            state = json.loads((self._folder / TOTALS_FILE).read_text(encoding="utf-8"))
            return state if isinstance(state, dict) else None
        return None

    # ------------------------------------------------------------------ books

    def merge_data_states(self, states: Sequence[dict[str, Any]], step: int) -> dict[str, Any]:
        """Return the stream's state of all ranks after a step, and remember it for the books."""
        # Until the first step after a resume each rank has what it was given: the state of all.
        whole = states[0] if states[0]["rank"] is None else merge_states(states)
        self._whole_data_state, self._whole_at_step = whole, step
        return whole

    def book(self, loop: TrainingLoop | None, dataset: StreamingVideoDataset | None) -> None:
        """Book the epoch in which the last step was made, unless it was booked at its end."""
        if loop is None or loop.data_state is None or dataset is None:
            return
        own_state = loop.data_state
        states = self._heard("books", loop, lambda: own_state)
        if states:
            self.merge_data_states(states, loop.progress.step)
        state = self._whole_data_state
        if state is None or state["epoch_state"] is None or self._whole_at_step != loop.progress.step:
            # A rank is gone, and what it had consumed since the last checkpoint with it.
            return
        booked = dataset.books_of(state)
        earlier = self.totals.consumed.books.get(booked.epoch)
        # Served to its end, an epoch is booked by the dataset, which then knows what no archive held; the state after
        # its last sample may be the next one's beginning, of which nothing was consumed.
        begun = booked.epoch == loop.progress.epoch
        if begun and (earlier is None or earlier.num_delivered != booked.num_delivered):
            self._telemetry.emit(booked)

    def hear_others(self, loop: TrainingLoop | None) -> None:
        """Take what the other ranks have counted to the run's end."""
        self._others_figures = self._heard("figures", loop, self.own_figures)[1:] or self._others_figures

    def _heard(self, topic: str, loop: TrainingLoop | None, own: Callable[[], dict[str, Any]]) -> list[dict[str, Any]]:
        """Return what each rank says at the run's end; nothing where one is gone, or the run has failed here."""
        if loop is None or self._team.has_left:
            return []
        try:
            return [json.loads(each) for each in self._team.exchange(topic, json.dumps(own()).encode())]
        except RankLostError as error:
            self._team.leave(error)
            message = f"the other ranks' figures are those of the last checkpoint: {error.fact}"
            self._telemetry.emit(events.Notice(message=message))
            return []

    # ------------------------------------------------------------------ the report

    def write_report(self, parts: dict[str, Any]) -> dict[str, Any]:
        """Write the report of all ranks, and return it.

        Args:
            parts: What others have to say in it, by key.

        Raises:
            DiskError: Where it, or the log, could not be written.
        """
        place, figures = self._team.place, self._run_figures()
        num_nodes = place.world_size // place.local_world_size
        report = build_report(
            self.totals if place.world_size == 1 else Totals.from_json(figures),
            disk_budget_bytes=self._budget.total_bytes,
            disk_high_water_bytes=high_water_of(figures),
            num_cores=num_nodes * (os.cpu_count() or 1),
        )
        report["world_size"] = place.world_size
        report |= parts
        write_report(self._folder / REPORT_FILE, report)
        self.write_figures()
        self.raise_log_problem()
        return report


def write_small(path: Path, text: str) -> None:
    """Replace a small file at once: whoever reads it finds the old one or the new one."""
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise DiskError(f"{path} cannot be written: {error.strerror}", "make room, or check permissions") from error
