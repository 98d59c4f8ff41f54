"""A training run from its options to its report: everything else of this package, put together.

```
RUN/
├── config.yaml      the options, as they were resolved
├── events.jsonl     what happened, a line each
├── totals.json      the figures so far, so that a resumed run's report covers the whole run
├── report.json      what was streamed, what it cost, what bounds it
└── checkpoints/     see `checkpoints`
```
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from reelstream.cache import DiskBudget
from reelstream.catalog import Catalog
from reelstream.data import StreamingVideoDataset
from reelstream.errors import ConfigError, DiskError, StateError
from reelstream.hubserver import HubProcess
from reelstream.prefetch.options import StreamOptions
from reelstream.telemetry import JsonLinesSink, Telemetry, events
from reelstream.telemetry.live import Gauges, LiveView
from reelstream.telemetry.report import build_report, write_report
from reelstream.telemetry.totals import Totals
from reelstream.train.checkpoints import Checkpoint, CheckpointStore, load_newest
from reelstream.train.device import choose_compute
from reelstream.train.evaluate import EvaluationResult, evaluate
from reelstream.train.held_out import held_out_questions
from reelstream.train.loop import TrainingLoop, TrainOutcome
from reelstream.train.models import LoadedModel, load_model, load_saved_model
from reelstream.train.run_options import RunOptions
from reelstream.train.saving import checkpoint_size_bytes, saved_run_state

CONFIG_FILE, EVENTS_FILE, TOTALS_FILE, REPORT_FILE = "config.yaml", "events.jsonl", "totals.json", "report.json"
CHECKPOINTS_FOLDER = "checkpoints"
_OUR_FILES = (CONFIG_FILE, EVENTS_FILE, TOTALS_FILE, REPORT_FILE)

# config.yaml, totals.json and report.json, old and new during a replacement, with a thousand quarantined clips.
_SMALL_FILES_BYTES = 1 << 20
# Texts that a tiny model's tokenizer is built from; more changes nothing.
_MOST_TOKENIZER_SAMPLES = 20_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended."""

    report: dict[str, Any]
    interrupted_by: str | None
    """Name of the signal that ended it; None where it came to its end."""


def prepare_run_folder(run_dir: Path, *, resume: bool, restart: bool) -> None:
    """Make the run's folder, or refuse it where another run is in it.

    Args:
        run_dir: The folder.
        resume: A run is there and goes on.
        restart: A run that is there is deleted: its own files, and nothing else.

    Raises:
        ConfigError: Where a run is there and neither is asked for, or none is there to go on.
        DiskError: Where the folder cannot be made.
    """
    checkpoints = run_dir / CHECKPOINTS_FOLDER
    there = [run_dir / name for name in _OUR_FILES if (run_dir / name).exists()]
    if resume and not checkpoints.is_dir():
        raise ConfigError(f"{run_dir} holds no run that could go on", "start it without --resume")
    if (there or checkpoints.is_dir()) and not resume:
        if not restart:
            raise ConfigError(
                f"a run is in {run_dir} already",
                "go on with --resume, delete it with --restart, or choose another run_dir",
            )
        for path in there:
            path.unlink()
        shutil.rmtree(checkpoints, ignore_errors=True)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(
            f"the run folder {run_dir} cannot be made: {error.strerror}", "choose another run_dir"
        ) from error


def run_training(options: RunOptions, *, resolved: dict[str, Any], resume: bool, quiet: bool = False) -> RunResult:
    """Train, and leave a report whatever happens.

    Args:
        options: What and how.
        resolved: The options as JSON values, for `config.yaml`.
        resume: Go on from the newest good checkpoint.
        quiet: Show nothing while it runs.

    Raises:
        ReelstreamError: What ended the run; the report says how far it came.
    """
    with contextlib.ExitStack() as stack:
        data = _with_endpoint(options, stack)
        run = _Run(options, data, stack, resume=resume)
        run.write_config(resolved)
        try:
            outcome = run.train(show=not quiet)
        finally:
            report = run.write_report()
        return RunResult(report=report, interrupted_by=outcome.interrupted_by)


def _with_endpoint(options: RunOptions, stack: contextlib.ExitStack) -> StreamOptions:
    """Start the local Hub where one is asked for; return the data options with its address."""
    local = options.local_hub
    if local is None:
        return options.data
    if not local.root.is_dir():
        raise ConfigError(
            f"local_hub.root {local.root} is no folder",
            f"make a sample dataset there: reelstream make-sample {local.root} --clips 100",
        )
    hub = stack.enter_context(HubProcess(local.root, bandwidth_bytes_per_s=local.bandwidth, latency_s=local.latency))
    return dataclasses.replace(options.data, endpoint=hub.endpoint)


class _Run:
    """The parts of one run while it is going on."""

    def __init__(self, options: RunOptions, data: StreamOptions, stack: contextlib.ExitStack, *, resume: bool) -> None:
        self._options = options
        self._data = data
        self._stack = stack
        self._checkpoint = self._newest_checkpoint() if resume else None
        self._budget = DiskBudget(data.disk_budget)
        self._budget.account("logs").set_aside(options.log_limit_bytes + _SMALL_FILES_BYTES)
        self._budget.account("logs").reserve(_SMALL_FILES_BYTES)
        self._totals = self._earlier_totals()
        log = JsonLinesSink(
            options.run_dir / EVENTS_FILE,
            limit_bytes=options.log_limit_bytes,
            reserve=self._budget.account("logs").reserve,
        )
        stack.callback(log.close)
        self._telemetry = Telemetry(log, self._totals)
        self._telemetry.emit(
            events.RunStarted(resumed_at_step=None if self._checkpoint is None else self._checkpoint.step)
        )
        self._dataset = stack.enter_context(
            StreamingVideoDataset.from_options(data, telemetry=self._telemetry, budget=self._budget)
        )

    # ------------------------------------------------------------------ before

    def _newest_checkpoint(self) -> Checkpoint:
        folder = self._options.run_dir / CHECKPOINTS_FOLDER
        checkpoint = load_newest(folder)
        if checkpoint is None:
            raise StateError(f"{folder} holds no checkpoint to go on from", "start the run anew with --restart")
        return checkpoint

    def _earlier_totals(self) -> Totals:
        if self._checkpoint is None:
            return Totals()
        latest = None
        with contextlib.suppress(OSError, ValueError):
            latest = json.loads((self._options.run_dir / TOTALS_FILE).read_text(encoding="utf-8"))
        return Totals.from_json(saved_run_state(self._checkpoint), latest)

    def write_config(self, resolved: dict[str, Any]) -> None:
        """Write the resolved options beside what they lead to."""
        text = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
        _write_small(self._options.run_dir / CONFIG_FILE, text)

    def _load_model(self) -> LoadedModel:
        if self._checkpoint is not None:
            return load_saved_model(self._checkpoint.folder, self._options.model)
        texts = _texts_of(self._dataset.session.catalog)
        return load_model(self._options.model, texts=texts, seed=self._options.train.seed)

    # ------------------------------------------------------------------ the run

    def train(self, *, show: bool) -> TrainOutcome:
        """Train to the end, or to a signal."""
        options = self._options
        with self._shown(show):
            loaded = self._load_model()
            room = self._budget.account("checkpoints")
            room.set_aside((options.checkpoints.keep + 1) * checkpoint_size_bytes(loaded, options.checkpoints))
            store = CheckpointStore(options.run_dir / CHECKPOINTS_FOLDER, keep=options.checkpoints.keep, allowance=room)
            store.open()
            loop = TrainingLoop(
                loaded,
                self._dataset,
                options=options.train,
                checkpoints=options.checkpoints,
                store=store,
                telemetry=self._telemetry,
                samples_per_epoch=len(self._dataset),
                evaluate=None if options.evaluation.subset is None else self._evaluator(loaded),
                evaluate_every_steps=options.evaluation.every_steps,
                run_state=self._run_state,
            )
            if self._checkpoint is not None:
                loop.resume(self._checkpoint)
            outcome = loop.run()
            if loop.data_state is not None:
                self._telemetry.emit(self._dataset.books_of(loop.data_state))
            self._telemetry.emit(events.RunFinished(interrupted=outcome.interrupted_by is not None))
            return outcome

    def _run_state(self) -> dict[str, Any]:
        """Return the figures that a resume goes on from; also kept beside the checkpoints, for what is spent later."""
        totals = self._totals.to_json()
        _write_small(self._options.run_dir / TOTALS_FILE, json.dumps(totals, ensure_ascii=False))
        return totals

    def _evaluator(self, loaded: LoadedModel) -> Callable[[], EvaluationResult]:
        options = self._options.evaluation
        # Evaluated in the middle of training, the questions are held in memory, since then the clips of the training
        # data have the disk; at the end the disk is free, and they are streamed.
        held = None
        if options.every_steps is not None:
            held = list(self._questions())

        def run_evaluation() -> EvaluationResult:
            if held is None:
                self._dataset.cancel()
            return evaluate(
                loaded.model,
                loaded.family,
                self._questions() if held is None else held,
                batch_size=options.batch_size,
                compute=choose_compute(self._options.train),
            )

        return run_evaluation

    def _questions(self) -> Iterator[Any]:
        # Its downloads are not the training run's: they go to no books but their own.
        return held_out_questions(self._options.evaluation, self._data, telemetry=Telemetry(), budget=self._budget)

    # ------------------------------------------------------------------ telling

    @contextlib.contextmanager
    def _shown(self, show: bool) -> Iterator[None]:
        if not show:
            yield
            return
        with LiveView(self._gauges) as view:
            self._telemetry.add(view)
            try:
                yield
            finally:
                self._telemetry.remove(view)

    def _gauges(self) -> Gauges:
        held = self._dataset.gauges()
        consumed = self._totals.consumed
        epoch = self._dataset.epoch
        return Gauges(
            received_bytes=self._telemetry.received_bytes,
            disk_used_bytes=self._budget.used_bytes,
            disk_budget_bytes=self._budget.total_bytes,
            decoded_bytes=0 if held is None else held.decoded_bytes,
            num_samples=consumed.consumed_samples.get(epoch, 0),
            num_epoch_samples=len(self._dataset) if self._dataset.is_open else 0,
        )

    def write_report(self) -> dict[str, Any]:
        """Write the report of what has happened so far; return it."""
        report = build_report(
            self._totals,
            disk_budget_bytes=self._budget.total_bytes,
            disk_high_water_bytes=self._budget.high_water_bytes,
            num_cores=os.cpu_count() or 1,
        )
        write_report(self._options.run_dir / REPORT_FILE, report)
        return report


def _texts_of(catalog: Catalog) -> Iterator[str]:
    rows = itertools.islice(range(catalog.num_samples), _MOST_TOKENIZER_SAMPLES)
    return (turn["value"] for row in rows for turn in catalog.annotation(row).conversations)


def _write_small(path: Path, text: str) -> None:
    """Replace a small file at once: whoever reads it finds the old one or the new one."""
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise DiskError(f"{path} cannot be written: {error.strerror}", "make room, or check permissions") from error
