"""A training run from its options to its report: everything else of this package, put together.

`run_folder` draws the folder that it leaves. Its life:

```
claim the folder ─► log, totals, live view ─► local hub ─► dataset, held-out clips ─► model ─► loop ─► finish
```

`finish` runs whatever happened before: it books what was consumed, lets go of the disk and the network, and writes the
report. A run whose dataset could not even be opened leaves nothing instead: its message says all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from reelstream.cache import DiskBudget
from reelstream.catalog import Catalog
from reelstream.data import StreamingVideoDataset
from reelstream.data.states import at_commit_of
from reelstream.errors import ConfigError, ReelstreamError
from reelstream.hubserver import HubProcess
from reelstream.indexes import IndexStore
from reelstream.interrupt import Interrupted, Interrupts
from reelstream.telemetry import Telemetry, events
from reelstream.telemetry.live import Gauges, LiveView
from reelstream.train.annotations_progress import AnnotationsProgress
from reelstream.train.checkpoints import CheckpointStore, Saved
from reelstream.train.costs import checkpoint_costs
from reelstream.train.deadline import Deadline
from reelstream.train.device import choose_compute
from reelstream.train.disk import DiskPlan, plan_of, set_checkpoints_aside, set_logs_aside
from reelstream.train.followed_folder import RunFolder, claimed_by_first
from reelstream.train.held_out import HeldOutClips
from reelstream.train.hub_figures import HubFigures
from reelstream.train.loop import TrainingLoop
from reelstream.train.models import LoadedModel, load_model, load_saved_model
from reelstream.train.parallel import Team, joined_team
from reelstream.train.remote.copies import Copies
from reelstream.train.remote.options import RemoteOptions
from reelstream.train.remote.pushing import Pusher
from reelstream.train.run_folder import (
    CONFIG_FILE,
    CONFIG_HEADER,
    ClaimedFolder,
)
from reelstream.train.run_options import RunOptions
from reelstream.train.run_record import RunRecord, write_small
from reelstream.train.saving import saved_data_state
from reelstream.train.steps import TrainStep, load_step

# Texts that a tiny model's tokenizer is built from; more changes nothing.
_MOST_TOKENIZER_SAMPLES = 20_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended."""

    report: dict[str, Any] | None
    """As in `report.json`; None where the run ended before it began and left nothing, and on ranks but the first."""
    interrupted_by: str | None
    """Name of the signal that ended it; None where it came to its end."""
    checkpoint_step: int | None
    """The newest checkpoint, to go on from; None where there is none."""
    rank: int = 0
    """Of this process; the first one speaks for all."""
    world_size: int = 1
    """Processes of the run."""


def run_training(
    options: RunOptions,
    *,
    resolved: dict[str, Any],
    resume: bool,
    restart: bool = False,
    resume_or_start: bool = False,
    quiet: bool = False,
    trust_imports: bool = False,
) -> RunResult:
    """Train, and leave a report whatever happens once the dataset is open.

    SIGINT, SIGTERM, SIGUSR1, SIGUSR2 and the end of `train.max_time` end the run in good order, at any time: a step
    that is being made is finished, a checkpoint saved, and pushed where `remote.push` says so.

    Started by torchrun or another launcher this process is one rank of several, and all of them call this. The first
    one claims the folder, writes checkpoints, log and report, shows the run, and evaluates.

    Args:
        options: What and how.
        resolved: The options as JSON values, for `config.yaml`.
        resume: Go on from the newest good checkpoint.
        restart: Delete the run that is in the folder, and start.
        resume_or_start: Go on where there is a checkpoint, here or at `remote`, and start where there is none.
        quiet: Show nothing while it runs.
        trust_imports: Whether the code that `train.step` names may run.

    Raises:
        ConfigError: Where an option is wrong, or the folder holds a run and nothing says what to do with it, or another
            process trains in it.
        RankLostError: Where another rank is gone; the run can be resumed from its last checkpoint.
        ReelstreamError: What ended the run; the report says how far it came.
    """
    train_step = load_step(options.train.step, trusted=trust_imports)
    with contextlib.ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        deadline = stack.enter_context(Deadline(options.train.max_time, pushes=options.remote.push is not None))
        try:
            with deadline.telling(interrupts):
                telemetry = Telemetry()
                team = stack.enter_context(joined_team(options.train, telemetry))
                copies = stack.enter_context(
                    Copies(
                        # The others have nothing to push, and follow the folder that the first one fetches into.
                        options.remote if team.is_first else RemoteOptions(),
                        endpoint=options.data.endpoint,
                        limit_bytes=options.data.disk_budget,
                        tell=_say_nothing if quiet else _say,
                    )
                )
                claim = functools.partial(
                    ClaimedFolder,
                    options.run_dir,
                    resume=resume,
                    restart=restart,
                    resume_or_start=resume_or_start,
                    elsewhere=copies if options.remote.source is not None else None,
                )
                folder = stack.enter_context(claimed_by_first(team, options.run_dir, claim))
        except Interrupted as interrupted:
            return RunResult(report=None, interrupted_by=interrupted.reason, checkpoint_step=None)
        run = _Run(options, folder, team, copies=copies, deadline=deadline, telemetry=telemetry)
        try:
            with run.shown(not quiet and team.is_first), run.pushed_at_its_end(), deadline.telling(interrupts):
                run.open()
                run.train(resolved, train_step)
        except BaseException as error:
            # Whatever the others wait for, they wait in vain.
            team.leave(error)
            interrupts.defer()
            interrupted_by = error.reason if isinstance(error, Interrupted) else None
            # What went wrong first is what is told.
            with contextlib.suppress(ReelstreamError):
                report = run.finish(interrupted=interrupted_by is not None)
            if interrupted_by is None:
                raise
        else:
            interrupts.defer()
            interrupted_by = run.interrupted_by
            report = run.finish(interrupted=interrupted_by is not None)
        return RunResult(
            report=report,
            interrupted_by=interrupted_by,
            checkpoint_step=run.checkpoint_step,
            rank=team.place.rank,
            world_size=team.place.world_size,
        )


class _Run:
    """The parts of one run while it is going on."""

    def __init__(
        self,
        options: RunOptions,
        folder: RunFolder,
        team: Team,
        *,
        copies: Copies,
        deadline: Deadline,
        telemetry: Telemetry,
    ) -> None:
        self._options = options
        self._folder = folder
        self._team = team
        self._copies = copies
        self._deadline = deadline
        self._pusher: Pusher | None = None
        # A run stays at its commit: a publisher's change to the branch must not end one that takes weeks.
        self._data = (
            options.training_data
            if folder.checkpoint is None
            else at_commit_of(options.training_data, saved_data_state(folder.checkpoint))
        )
        self._resources = contextlib.ExitStack()
        self._budget = DiskBudget(options.data.disk_budget)
        self._dataset: StreamingVideoDataset | None = None
        self._held_out: HeldOutClips | None = None
        self._loop: TrainingLoop | None = None
        self._store: CheckpointStore | None = None
        self._disk_plan: DiskPlan | None = None
        self._began = False
        self.interrupted_by: str | None = None
        self._telemetry = telemetry
        self._record = RunRecord(folder.path, folder.checkpoint, team, budget=self._budget, telemetry=telemetry)
        telemetry.add(deadline)
        self._hub_figures: HubFigures | None = None
        self._saved_indexes: IndexStore | None = None

    @property
    def checkpoint_step(self) -> int | None:
        """The newest checkpoint's step."""
        steps = [] if self._store is None else self._store.steps
        if not steps and self._folder.checkpoint is not None:
            return self._folder.checkpoint.step
        return steps[-1] if steps else None

    # ------------------------------------------------------------------ before the first step

    def open(self) -> None:
        """Open the log, the hub, the dataset and the held-out clips; what fails here leaves nothing behind."""
        if self._team.is_first:
            self._open_log()
        step = None if self._folder.checkpoint is None else self._folder.checkpoint.step
        self._telemetry.emit(events.RunStarted(resumed_at_step=step))
        self._start_local_hub()
        progress = AnnotationsProgress(self._notice)
        self._dataset = self._resources.enter_context(
            StreamingVideoDataset.from_options(
                self._data, telemetry=self._telemetry, budget=self._budget, progress=progress
            )
        )
        session = self._dataset.session
        if self._team.is_first and self._folder.checkpoint is not None and self._folder.indexes.is_dir():
            session.indexes.take_from(IndexStore(self._folder.indexes, telemetry=self._telemetry))
        if self._options.evaluation.enabled and self._team.is_first:
            self._held_out = self._resources.enter_context(
                HeldOutClips(
                    self._options.evaluation,
                    self._data,
                    trained_on=self._dataset,
                    telemetry=self._telemetry,
                    budget=self._budget,
                    progress=progress,
                )
            )
        # A run that goes on begins once its checkpoint fits.
        self._began = self._folder.checkpoint is None

    def _open_log(self) -> None:
        limit_bytes = self._options.log_limit_bytes
        num_datasets = 2 if self._options.evaluation.enabled else 1
        set_logs_aside(self._budget, log_limit_bytes=limit_bytes, num_datasets=num_datasets)
        self._record.open_log(limit_bytes)

    def _start_local_hub(self) -> None:
        """Start the local Hub where one is asked for, on the first rank, and stream from it on all."""
        local, place = self._options.local_hub, self._team.place
        if local is None:
            return
        if place.local_world_size < place.world_size:
            raise ConfigError(
                "local_hub serves one machine, and the ranks are on several",
                "serve the folder where all of them reach it, with reelstream serve, and set data.endpoint",
            )
        if not self._team.is_first:
            endpoint = self._team.from_first("local hub", b"").decode()
            self._data = dataclasses.replace(self._data, endpoint=endpoint)
            return
        if not local.root.is_dir():
            raise ConfigError(
                f"local_hub.root {local.root} is no folder",
                f"make a sample dataset there: reelstream make-sample {local.root} --clips 100",
            )
        hub = HubProcess(local.root, bandwidth_bytes_per_s=local.bandwidth, latency_s=local.latency)
        self._resources.enter_context(hub)
        self._team.from_first("local hub", hub.endpoint.encode())
        self._data = dataclasses.replace(self._data, endpoint=hub.endpoint)
        self._hub_figures = HubFigures(hub)
        self._telemetry.add(self._hub_figures)

    def _load_model(self, dataset: StreamingVideoDataset) -> LoadedModel:
        options = self._options.model
        if self._folder.checkpoint is not None:
            return load_saved_model(self._folder.checkpoint.folder, options, seed=self._options.train.seed)
        if options.name is not None:
            self._notice(f"loading the model {options.name}")
        return load_model(options, texts=_texts_of(dataset.session.catalog), seed=self._options.train.seed)

    # ------------------------------------------------------------------ the run

    def train(self, resolved: dict[str, Any], train_step: TrainStep) -> None:
        """Train to the end, or to a signal.

        Args:
            resolved: For `config.yaml`; written once a run that goes on is known to be the same one.
            train_step: What is trained on in a batch.
        """
        options, dataset = self._options, self._dataset
        assert dataset is not None, "opened before"
        loaded = self._load_model(dataset)
        if self._team.is_first:
            self._make_room_for_checkpoints(loaded, dataset)
        # Here, once all else has its room, and where a signal ends it at once.
        dataset.session.download()
        if self._held_out is not None:
            self._held_out.download()
        if self._team.is_first:
            self._open_store()
        held_out, compute = self._held_out, choose_compute(options.train, self._team.place)
        self._loop = loop = TrainingLoop(
            loaded,
            dataset,
            options=options.train,
            checkpoints=options.checkpoints,
            store=self._store,
            telemetry=self._telemetry,
            samples_per_epoch=len(dataset) * self._team.place.world_size,
            evaluate=None if held_out is None else held_out.evaluator(loaded, compute),
            make_room=self._make_room_for_evaluation,
            evaluate_every_steps=options.evaluation.every_steps,
            run_state=self._record.own_figures,
            team=self._team,
            train_step=train_step,
            merge_data_states=self._merge_data_states,
            merge_run_states=self._state_of_checkpoint,
            deadline=self._deadline,
        )
        if self._folder.checkpoint is not None:
            loop.resume(self._folder.checkpoint)
        self._began = True
        if self._team.is_first:
            text = CONFIG_HEADER + yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
            write_small(self._folder.path / CONFIG_FILE, text)
        if self._pusher is not None:
            self._resources.enter_context(self._pusher)
            if self._folder.checkpoint is not None:
                self._pusher.offer_step(self._folder.checkpoint.step)
        self.interrupted_by = loop.run().interrupted_by

    def _make_room_for_checkpoints(self, loaded: LoadedModel, dataset: StreamingVideoDataset) -> None:
        """Give checkpoints, and the indexes beside them, their part of the disk budget."""
        options = self._options
        self._saved_indexes = dataset.session.indexes.open_elsewhere(
            self._folder.indexes, self._budget.account("saved indexes")
        )
        num_ranks = self._team.place.world_size
        costs = checkpoint_costs(loaded, options.model, options.checkpoints, num_ranks=num_ranks)
        set_checkpoints_aside(
            self._budget,
            size_bytes=costs[0].size_bytes,
            num_checkpoints=self._num_kept + 1,
            session=dataset.session,
            lanes=options.data.lanes,
            costs=costs,
        )
        self._disk_plan = plan_of(self._budget, costs, num_checkpoints=self._num_kept + 1)
        self._notice(self._disk_plan.sentence)
        self._deadline.expect(costs[0].size_bytes)

    @property
    def _num_kept(self) -> int:
        # One that is being pushed stays beside the newest.
        return max(self._options.checkpoints.keep, 2 if self._options.remote.push is not None else 1)

    def _open_store(self) -> None:
        self._store = CheckpointStore(
            self._folder.checkpoints,
            keep=self._num_kept,
            allowance=self._budget.account("checkpoints"),
            on_saved=self._offer,
        )
        self._store.open()
        self._pusher = self._copies.pusher(self._store, self._folder.path, self._telemetry)

    def _make_room_for_evaluation(self) -> None:
        """Give up what is on disk here, where the first rank evaluates at the run's end only and needs the room."""
        if self._options.evaluation.every_steps is None:
            assert self._dataset is not None
            self._dataset.reset()
            self._dataset.session.drop_kept()

    def _offer(self, saved: Saved) -> None:
        if self._pusher is not None:
            self._pusher.offer(saved)

    @contextlib.contextmanager
    def pushed_at_its_end(self) -> Iterator[None]:
        """Wait for the last push once the block has ended, also where it failed: what was saved may be all there is.

        A signal meanwhile ends the wait; what is not pushed is in the run's folder.
        """
        try:
            yield
        except ReelstreamError:
            # What went wrong first is what is told.
            with contextlib.suppress(ReelstreamError):
                self._finish_push()
            raise
        self._finish_push()

    def _finish_push(self) -> None:
        if self._pusher is None or self._loop is None:
            return
        left_s = self._deadline.left_s
        wait_s = self._options.remote.wait
        self._pusher.finish(wait_s if left_s is None else min(wait_s, left_s))

    def _merge_data_states(self, states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        assert self._loop is not None
        return self._record.merge_data_states(states, self._loop.progress.step)

    def _state_of_checkpoint(self, figures: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return what a checkpoint holds of the run, once what else a resume needs lies beside it."""
        assert self._dataset is not None
        assert self._saved_indexes is not None
        self._dataset.session.indexes.save_to(self._saved_indexes)
        self._record.take_others(figures[1:])
        return self._record.write_figures()

    # ------------------------------------------------------------------ after it

    def finish(self, *, interrupted: bool) -> dict[str, Any] | None:
        """Book what was consumed, let go of everything, write the report; return it.

        Returns:
            The report; None where the run had not begun: then its folder is as it was.

        Raises:
            DiskError: Where the report or the log could not be written.
        """
        with contextlib.ExitStack() as stack:
            # Last of all and whatever fails before: the log ends, and a run that never began is gone.
            if not self._began:
                stack.callback(self._folder.put_back)
            stack.callback(self._record.close_log)
            with self._resources:
                self._record.book(self._loop, self._dataset)
                if self._dataset is not None:
                    # First, so that closing is counted; and the local Hub stays until the others have closed.
                    self._dataset.cleanup()
                self._record.hear_others(self._loop)
            if not self._began or not self._team.is_first:
                return None
            self._telemetry.emit(events.RunFinished(interrupted=interrupted))
            return self._record.write_report(self._report_parts())

    def _report_parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {}
        if self._disk_plan is not None:
            parts["disk_plan"] = self._disk_plan.to_json()
        if self._hub_figures is not None:
            parts["local_hub"] = self._hub_figures.report
        if self._pusher is not None:
            parts["remote"] = self._pusher.report
        return parts

    # ------------------------------------------------------------------ telling

    @contextlib.contextmanager
    def shown(self, show: bool) -> Iterator[None]:
        """Show the run on stderr as long as the block runs, if it shall be shown."""
        if not show:
            yield
            return
        with LiveView(self._gauges) as view:
            self._telemetry.add(view)
            try:
                yield
            finally:
                self._telemetry.remove(view)

    def _notice(self, message: str) -> None:
        self._telemetry.emit(events.Notice(message=message))

    def _gauges(self) -> Gauges:
        dataset, loop = self._dataset, self._loop
        held = None if dataset is None else dataset.gauges()
        epoch = 0 if dataset is None else dataset.epoch
        # Not from the catalog while it is being built, which is opened in another thread.
        is_open = dataset is not None and dataset.is_open
        num_epoch_samples = len(dataset) * self._team.place.world_size if dataset is not None and is_open else 0
        asked_bytes = 0 if self._held_out is None else self._held_out.received_bytes
        return Gauges(
            received_bytes=self._telemetry.received_bytes + asked_bytes,
            disk_used_bytes=self._budget.used_bytes,
            disk_budget_bytes=self._budget.total_bytes,
            decoded_bytes=0 if held is None else held.decoded_bytes,
            num_samples=self._record.totals.consumed.consumed_samples.get(epoch, 0),
            num_epoch_samples=num_epoch_samples,
            num_steps=0 if loop is None else loop.progress.total_steps,
        )


def _say(sentence: str) -> None:
    # Before the live view is there; it is talk, as all of that.
    sys.stderr.write(f"{sentence}\n")


def _say_nothing(sentence: str) -> None:
    """Take a sentence that nobody wants to hear."""


def _texts_of(catalog: Catalog) -> Iterator[str]:
    taken = (row for row in range(catalog.num_samples) if catalog.takes(catalog.clip_of(row)))
    rows = itertools.islice(taken, _MOST_TOKENIZER_SAMPLES)
    return (turn["value"] for row in rows for turn in catalog.annotation(row).conversations)
