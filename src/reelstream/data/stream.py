"""What a streamed dataset does, whatever it was made from: epochs, state, ranks, and letting go of all of it."""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from torch.utils.data import IterableDataset, get_worker_info

from reelstream.cache import DiskBudget
from reelstream.cancel import Cancelled
from reelstream.data.divided import refuse_second_division
from reelstream.data.epoch_pass import EpochPass
from reelstream.data.sample import Sample, make_sample
from reelstream.data.states import STATE_VERSION, at_commit_of, merge_states
from reelstream.data.torch_ranks import find_ranks
from reelstream.errors import ConfigError, StateError
from reelstream.prefetch.options import StreamOptions
from reelstream.prefetch.session import StreamSession
from reelstream.prefetch.shares import share_of
from reelstream.prefetch.state import EpochState
from reelstream.prefetch.values import Gauges, ReadySample
from reelstream.ranks import Ranks
from reelstream.telemetry import Telemetry, events
from reelstream.types import Position


class StreamedDataset(IterableDataset[Sample]):
    """The streamed dataset of `StreamOptions`; `StreamingVideoDataset` is the one to make.

    Nothing happens until the samples, the length or the state are asked for.
    """

    @classmethod
    def from_options(
        cls,
        options: StreamOptions,
        *,
        telemetry: Telemetry,
        budget: DiskBudget | None = None,
        ranks: Ranks | None = None,
        token: str | bool | None = None,
        progress: Callable[[int], None] | None = None,
        clip_account: str = "clips",
    ) -> Self:
        """Return a dataset of the given options.

        Args:
            options: What to stream.
            telemetry: Who is told what happens.
            budget: The run's disk budget, where others (checkpoints, logs) reserve their part of it; else one of
                `options.disk_budget` for this dataset alone.
            ranks: The processes that share the dataset; None finds them when it is opened. They are left when it is
                closed.
            token: For the Hub.
            progress: Called with the bytes of annotations that were just read.
            clip_account: The part of a shared budget that clips take; where room is set aside for it, they take no
                more.
        """
        dataset = cls.__new__(cls)
        IterableDataset.__init__(dataset)
        shares_budget = budget is not None
        budget = budget or DiskBudget(options.disk_budget)
        dataset._set_up(options, telemetry, budget, token=token, progress=progress)  # noqa: SLF001 - its own
        dataset._shares_budget = shares_budget  # noqa: SLF001 - its own
        dataset._ranks = ranks  # noqa: SLF001 - its own
        dataset._clip_account = clip_account  # noqa: SLF001 - its own
        return dataset

    def _set_up(
        self,
        options: StreamOptions,
        telemetry: Telemetry,
        budget: DiskBudget,
        *,
        token: str | bool | None,
        progress: Callable[[int], None] | None = None,
        asked_place: tuple[int | None, int | None] = (None, None),
    ) -> None:
        self.options = options
        self._telemetry = telemetry
        self._budget = budget
        self._shares_budget = False
        self._token = token
        self._progress = progress
        self._session: StreamSession | None = None
        self._close_at_exit: weakref.finalize[..., Any] | None = None
        self._epoch = 0
        self._loaded: dict[str, Any] | None = None
        self._start: EpochState | None = None
        self._passes: dict[int, EpochPass] = {}
        self._called_off = False
        self._process = os.getpid()
        self._asked_place = asked_place
        self._ranks: Ranks | None = None
        self._clip_account = "clips"

    # ------------------------------------------------------------------ the dataset

    def __iter__(self) -> Iterator[Sample]:
        """Yield what is left of the epoch, in its order; see the class for what is `left`.

        Raises:
            OutOfReachError: Where a newer iteration, `reset`, `set_epoch` or `cleanup` has ended this one.
            RankLostError: Where another rank is lost.
            RanksApartError: Where another rank has left the epoch, or begins elsewhere.
            ConfigError: Where accelerate would divide this rank's samples among all ranks once more.
        """
        worker = get_worker_info()
        if worker is None:
            yield from self._rest_of_epoch()
        elif worker.id == 0:
            try:
                yield from self._rest_of_epoch()
            finally:
                # A worker's process ends without a word to what lives in it.
                self.cleanup()
        elif worker.id == 1:
            # One worker streams for all: a second would download everything once more.
            warnings.warn(
                f"StreamingVideoDataset streams in the first of {worker.num_workers} workers, the others stay idle: "
                "set num_workers=0 in the DataLoader; it prefetches in the background by itself",
                UserWarning,
                stacklevel=2,
            )

    def _rest_of_epoch(self) -> Iterator[Sample]:
        refuse_second_division()
        session = self._opened()
        self._end_passes()
        state = session.meet(self._start, self._epoch)
        epoch = state.settings.epoch
        with session.pipeline(state) as pipeline:
            current = self._passes[epoch] = EpochPass(pipeline, lambda: session.start_of(epoch + 1))
            if self._called_off:
                # Before the pass could be seen by whoever called it off.
                raise Cancelled
            while (ready := current.next_sample()) is not None:
                current.last = ready.served.position
                yield self._sample(session, ready)
            current.over = True
            whole = session.finish(pipeline)
            self._epoch, self._start, self._loaded = epoch + 1, None, None
            if self.world_size > 1:
                # While all ranks are here: whoever asks for the state later may be one of them alone.
                current.next_start()
            self._tell_end(session, whole)

    def __len__(self) -> int:
        """Samples of an epoch that this rank serves.

        The catalog's; with `limit` or `parts`, as many as so many clips have on average; with several ranks this one's
        share, to which repeats may come at the epoch's end.
        """
        session = self._opened()
        return max(1, -(-round(session.mean_epoch_samples) // self.world_size))

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration serve `epoch`; the epoch that runs, or whose state was loaded, goes on where it is."""
        if epoch != self._epoch:
            self._end_passes()
            self._epoch, self._start, self._loaded = epoch, None, None

    def reset(self) -> None:
        """Go back to the beginning of the epoch."""
        self._end_passes()
        self._take_up_again()
        self._start, self._loaded = None, None

    def cleanup(self) -> None:
        """Stop all work and delete all clips from disk; iterating again starts the epoch anew."""
        self.reset()
        session, self._session = self._session, None
        if session is not None:
            session.close()
            if self._close_at_exit is not None:
                self._close_at_exit.detach()

    close = cleanup

    def cancel(self) -> None:
        """Call off an iteration in another thread, and those to come: they raise `reelstream.cancel.Cancelled`.

        Until `reset` or `load_state_dict`.
        """
        self._called_off = True
        for current in list(self._passes.values()):
            current.pipeline.cancel()
        if self._session is not None:
            self._session.call_off()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cleanup()

    # ------------------------------------------------------------------ the state

    def state_dict(self, after: Position | None = None) -> dict[str, Any]:
        """Return, as JSON values, the state in which a sample and all before it are consumed.

        With several ranks it is this rank's; `gather_state` and `merge_states` make that of all.

        Args:
            after: The last sample that the trainer has consumed; None for the last one that was yielded.

        Raises:
            StateError: Where no such sample was yielded, or a later one was asked for before.
        """
        if _is_idle_worker():
            # What does not stream opens nothing.
            return self._loaded or {"version": STATE_VERSION, "idle": True}
        if after is None:
            running = self._passes.get(self._epoch) or self._passes.get(self._epoch - 1)
        else:
            running = self._passes.get(after.epoch)
            if running is None:
                raise StateError(f"no sample at {after} was served", "ask for the state of an epoch that runs")
        state: EpochState | None
        if running is not None and running.last is not None:
            state = running.state_after(after)
            if after is not None and self._session is not None:
                self._session.paths.consumed(after)
        elif self._loaded is not None and self.world_size == 1:
            return self._loaded
        elif self._start is not None:
            # Of the state of all ranks, which any number of them may have saved, this one's part.
            state = share_of(self._start, self._opened().together.share)
        else:
            # With several ranks only all of them together can begin an epoch.
            state = self._opened().start_of(self._epoch) if self.world_size == 1 else None
        return {
            "version": STATE_VERSION,
            "repo_id": self.options.repo_id,
            "commit": self._opened().repository.commit,
            "rank": self.rank if self.world_size > 1 else None,
            "world_size": self.world_size,
            "epoch": self._epoch if state is None else state.settings.epoch,
            "epoch_state": None if state is None else state.to_json(),
        }

    def gather_state(self, after: Position | None = None) -> dict[str, Any]:
        """Return the state of all ranks, on each of them; all must ask for it after the same number of samples.

        Args:
            after: The last sample that this rank's trainer has consumed; None for the last one that was yielded.

        Raises:
            StateError: Where the ranks have consumed different numbers of samples, or one has no such sample.
            RankLostError: Where another rank is lost.
        """
        together = self._opened().together
        try:
            own = {"state": self.state_dict(after)}
        except StateError as error:
            # The others wait for it.
            together.tell("state", {"problem": error.fact})
            raise
        told = together.tell("state", own)
        for rank, of_rank in enumerate(told):
            if "problem" in of_rank:
                raise StateError(f"rank {rank} has no state to give: {of_rank['problem']}", "see what it says itself")
        return merge_states([of_rank["state"] for of_rank in told])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on after the sample that `state` was taken at.

        A dataset of a branch that is not opened yet is opened at the commit of the state, wherever the branch is now.

        Raises:
            StateError: Where it is of another version, dataset or seed, or damaged.
        """
        if _is_idle_worker():
            self._loaded = state
            return
        if not isinstance(state, dict):
            raise StateError(
                f"a data state is a dict, not {type(state).__name__}", "load what state_dict or merge_states gave"
            )
        if state.get("version") != STATE_VERSION or "epoch_state" not in state:
            raise StateError(
                f"the saved data state has version {state.get('version')!r}; this Reelstream reads {STATE_VERSION}",
                "resume with the Reelstream that saved it",
            )
        if state.get("repo_id") != self.options.repo_id:
            raise StateError(
                f"the saved data state is of {state.get('repo_id')}, this run streams {self.options.repo_id}",
                "resume with the repository it was saved with, or start anew",
            )
        if self._session is None:
            self.options = at_commit_of(self.options, state)
        session = self._opened()
        start: EpochState | None = None
        epoch = state.get("epoch")
        if not isinstance(epoch, int) or epoch < 0:
            raise StateError(f"the saved data state is damaged: epoch {epoch!r}", "resume from another checkpoint")
        if state["epoch_state"] is not None:
            start = EpochState.from_json(state["epoch_state"], session.catalog.num_clips)
            session.check(start)
            epoch = start.settings.epoch
        # Only now: a state that is refused leaves what runs as it is.
        self._end_passes()
        self._take_up_again()
        self._epoch, self._start, self._loaded = epoch, start, state

    # ------------------------------------------------------------------ what else can be asked

    def books_of(self, state: dict[str, Any]) -> events.EpochBooked:
        """Return the books of the epoch at a state that `state_dict` gave: what of it is consumed, and what is not."""
        session = self._opened()
        epoch_state = EpochState.from_json(state["epoch_state"], session.catalog.num_clips)
        return session.booked(epoch_state, over=False)

    @property
    def session(self) -> StreamSession:
        """The opened session: repository, catalog and budget; opens it where need be."""
        return self._opened()

    @property
    def ranks(self) -> Ranks:
        """The processes that share the dataset; opens it where need be."""
        return self._opened().together.ranks

    @property
    def rank(self) -> int:
        """Which of them this process is; opens the dataset where need be."""
        return self.ranks.place.rank

    @property
    def world_size(self) -> int:
        """How many they are; opens the dataset where need be."""
        return self.ranks.place.world_size

    @property
    def is_open(self) -> bool:
        """Whether the catalog is at hand without opening anything."""
        return self._session is not None

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration serves, or the running one."""
        return self._epoch

    def gauges(self) -> Gauges | None:
        """Return what is held now; None where nothing runs."""
        current = self._passes.get(self._epoch)
        return None if current is None else current.pipeline.gauges()

    # ------------------------------------------------------------------ inside

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: options and place, nothing that is open. Telemetry stays here."""
        self._refuse_shared_budget()
        return {
            "options": self.options,
            "token": self._token,
            "epoch": self._epoch,
            "loaded": self._loaded,
            "start": self._start,
            "asked_place": self._asked_place,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        IterableDataset.__init__(self)
        options: StreamOptions = state["options"]
        budget = DiskBudget(options.disk_budget)
        self._set_up(options, Telemetry(), budget, token=state["token"], asked_place=state["asked_place"])
        self._epoch, self._loaded, self._start = state["epoch"], state["loaded"], state["start"]

    def _leave_parent(self) -> None:
        """In a process forked from the one that opened the dataset, let go of folder and threads: they are not ours."""
        if self._process != os.getpid():
            if self._close_at_exit is not None:
                self._close_at_exit.detach()
            self.__setstate__(self.__getstate__())

    def _refuse_shared_budget(self) -> None:
        if self._shares_budget:
            raise ConfigError(
                "this dataset shares its disk budget with a run, and cannot leave that run's process",
                "set num_workers=0 in the DataLoader; it prefetches in the background by itself",
            )

    def _opened(self) -> StreamSession:
        self._leave_parent()
        if self._session is None:
            session = StreamSession(
                self.options,
                telemetry=self._telemetry,
                budget=self._budget,
                ranks=self._ranks or find_ranks(*self._asked_place, telemetry=self._telemetry),
                token=self._token,
                progress=self._progress,
                clip_account=self._clip_account,
            )
            self._session = session
            # A script that ends without closing leaves no clips behind all the same.
            self._close_at_exit = weakref.finalize(self, session.close)
        return self._session

    def _sample(self, session: StreamSession, ready: ReadySample) -> Sample:
        served = ready.served
        return make_sample(
            record=served.clip.record,
            annotation=session.catalog.annotation(served.row),
            position=served.position,
            media=ready.media,
            lease=ready.lease,
            share=served.last_use,
        )

    def _take_up_again(self) -> None:
        self._called_off = False
        if self._session is not None:
            self._session.renew()

    def _end_passes(self) -> None:
        self._leave_parent()
        while self._passes:
            self._passes.popitem()[1].end()

    def _tell_end(self, session: StreamSession, state: EpochState) -> None:
        self._telemetry.emit(session.booked(state, over=True))
        self._telemetry.emit(
            events.EpochFinished(
                epoch=state.settings.epoch, num_samples=state.num_consumed, order_digest=state.order_digest
            )
        )


def _is_idle_worker() -> bool:
    """Whether this process is a worker of a `DataLoader` that leaves the streaming to the first one."""
    worker = get_worker_info()
    return worker is not None and worker.id > 0
