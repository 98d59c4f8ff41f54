"""A dataset opened for streaming: repository, catalog, disk and network, from which epochs are started."""

from __future__ import annotations

import contextlib
import hashlib
import os
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from reelstream.archive.seek.inflate import block_inflation
from reelstream.cache import ClipCache, DiskBudget, KeepLimits, KeptClips, RunFolder
from reelstream.catalog import Catalog, SubsetLayout, catalog_folder, select_subsets
from reelstream.errors import ReelstreamError
from reelstream.prefetch.books import book
from reelstream.prefetch.catalogs import opened_catalog, remove_unused
from reelstream.prefetch.division import LEAST_CLIP_BUDGET_BYTES, ClipDivision
from reelstream.prefetch.downloads import DownloadFirst
from reelstream.prefetch.files import PublishedFiles, shared_addresses
from reelstream.prefetch.learned import IndexKeeper
from reelstream.prefetch.options import StreamOptions
from reelstream.prefetch.parts import split_parts
from reelstream.prefetch.paths import PathLeases
from reelstream.prefetch.pipeline import EpochPipeline
from reelstream.prefetch.plan import EpochPlan
from reelstream.prefetch.run_indexes import RunIndexes, opened_indexes
from reelstream.prefetch.shares import merge_shares, share_of
from reelstream.prefetch.spans import SpanPlanner
from reelstream.prefetch.starts import EpochStarts, refuse_tail
from reelstream.prefetch.state import EpochSettings, EpochState
from reelstream.prefetch.together import Together, leaving_pass
from reelstream.prefetch.values import PipelineOptions
from reelstream.ranks import OneRank, Ranks
from reelstream.telemetry import Telemetry, events
from reelstream.transport import HubClient
from reelstream.types import Archive, ContainerKind, Repository, Span, SpanKind

CATALOG_FOLDER = "catalog"
_open_sessions: weakref.WeakSet[StreamSession] = weakref.WeakSet()
# Directories grow with the names in them; a run folder of ten thousand clips takes less.
FOLDERS_BYTES = 1 << 20


class StreamSession:
    """Repository, catalog, run folder and budget of one run; a context manager.

    Opening pins the revision, reads the annotations where no catalog of them is at hand, and reclaims what killed runs
    left in the cache folder.

    Args:
        options: What to stream.
        telemetry: Who is told.
        budget: The run's disk budget; checkpoints and logs have their part reserved in it already.
        ranks: The processes that share the dataset, which all open it together; None where this one is alone.
        token: For the Hub; None takes the one that is logged in, False none.
        progress: Called with the bytes of annotations that were just read.
        clip_account: The part of the budget that clips take; where room is set aside for it, they take no more.

    Raises:
        RankLostError: Where another rank is lost, or could not open it.
        HubError: Where the repository cannot be had.
        ConfigError: Where the subsets are not in it, or the budget cannot work.
        AnnotationError: Where the annotations are not what the format says.
        DiskError: Where the cache folder cannot be used.
    """

    def __init__(
        self,
        options: StreamOptions,
        *,
        telemetry: Telemetry,
        budget: DiskBudget,
        ranks: Ranks | None = None,
        token: str | bool | None = None,
        progress: Callable[[int], None] | None = None,
        clip_account: str = "clips",
    ) -> None:
        self.options = options
        self.telemetry = telemetry
        self.budget = budget
        self.together = Together(ranks or OneRank())
        refuse_tail(options.tail, self.together.share)
        self._process = os.getpid()
        self._num_passes = 0
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._leaving())
            self.folder = stack.enter_context(
                RunFolder(
                    options.cache_dir,
                    adopt=True,
                    number=self.together.place.local_rank,
                    of=self.together.place.local_world_size,
                )
            )
            client = stack.enter_context(
                HubClient(
                    endpoint=options.endpoint,
                    token=token,
                    telemetry=telemetry,
                    give_up_after_s=options.give_up_after,
                    shared=shared_addresses(self.folder.path, self.together),
                )
            )
            self._files = PublishedFiles(client, options.repo_id, options.revision, self.together)
            names, named_parts = split_parts(options.subsets, self.repository, num_parts=options.parts)
            self.layouts: tuple[SubsetLayout, ...] = tuple(select_subsets(self.repository, names, options.annotations))
            self._files.downloads = self._downloads = DownloadFirst.claimed(
                [archive for layout in self.layouts for archive in layout.archives],
                self.repository,
                options,
                open_file=self._files.remote,
                budget=budget,
                least_others_bytes=FOLDERS_BYTES + LEAST_CLIP_BUDGET_BYTES,
                together=self.together,
                telemetry=telemetry,
            )
            self._cache = ClipCache(self.folder.path, budget.account(clip_account))
            self._cache.take_over(self.folder.survivors)
            # Their room is given back: whoever shares the budget, or opens this dataset anew, has it then.
            stack.callback(self._cache.clear)
            stack.callback(self._cache.drop_survivors)
            self.paths = PathLeases(lease_samples=options.lease_samples, give_up_after_s=options.give_up_after)
            stack.callback(self.paths.close)
            budget.account("folders").reserve(FOLDERS_BYTES)
            stack.callback(budget.account("folders").release, FOLDERS_BYTES)
            if not self.together.is_first_on_node:
                # Made by one rank, it is there for the others.
                self.together.tell("catalog", None)
            catalog = stack.enter_context(
                opened_catalog(
                    self.layouts,
                    options.cache_dir / CATALOG_FOLDER,
                    budget=budget,
                    open_file=self._files.annotations,
                    progress=progress,
                    telemetry=telemetry,
                )
            )
            if self.together.is_first_on_node:
                self.together.tell("catalog", None)
            self.catalog: Catalog = stack.enter_context(catalog.on_side(options.clip_split))
            self.indexes: RunIndexes = stack.enter_context(
                opened_indexes(
                    [archive for layout in self.layouts for archive in layout.archives],
                    num_clips=self.catalog.num_clips,
                    cache_dir=options.cache_dir,
                    budget=budget,
                    telemetry=telemetry,
                )
            )
            parts_of = {layout.name: parts for layout, parts in zip(self.layouts, named_parts, strict=True) if parts}
            self._planner = SpanPlanner(
                self.layouts,
                self.catalog,
                options,
                named_parts=parts_of,
                indexes=self.indexes.store,
                directory=self._files.directory,
                world_size=self.together.place.world_size,
            )
            self._starts = EpochStarts(options, self.catalog, self._planner, self.together.share)
            self._division = ClipDivision(
                options,
                budget,
                account=clip_account,
                folder=self.folder.path,
                tidy=self._remove_unused_catalogs,
                together=self.together,
            )
            self._keeper = IndexKeeper(self.indexes.store, keep_cuts=options.parts > 1, telemetry=telemetry)
            self._running: EpochPipeline | None = None
            self._kept = KeptClips(0)
            self._stack = stack.pop_all()
        self._take_the_place_of_older()
        self._tell_missing_kinds()
        self._tell_what_is_not_learned()

    @property
    def repository(self) -> Repository:
        """The repository, pinned to one commit."""
        return self._files.repository

    def close(self) -> None:
        """Stop, delete the clips and let go of everything; a second call does nothing. The catalog stays on disk."""
        if self._process != os.getpid():
            # Forked: folder, threads and lock are the parent's.
            return
        running, self._running = self._running, None
        if running is not None:
            running.close()
        _open_sessions.discard(self)
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------ epochs

    def start_of(self, epoch: int) -> EpochState:
        """Return the state before the first sample of an epoch: as rank 0 chooses it, on all ranks at the same time."""
        self.download()
        # All ranks must take part in it.
        clip_budget_bytes = self._make_ready()
        chosen = self.together.first_says("epoch", lambda: self._starts.choose(epoch, clip_budget_bytes).to_json())
        state = EpochState.from_json(chosen, self.catalog.num_clips)
        return share_of(state, self.together.share)

    def check(self, state: EpochState) -> None:
        """Refuse a saved state that is not of this dataset and seed, or that these ranks cannot go on from.

        Raises:
            StateError: Where it differs in what must agree; see `EpochStarts.check`.
        """
        self._starts.check(state)

    def meet(self, state: EpochState | None, epoch: int) -> EpochState:
        """Begin a pass together with the other ranks: all know the same, and stand at the same place.

        Args:
            state: Of all ranks or this one, to go on from; None for an epoch's beginning.
            epoch: Which one begins there.

        Returns:
            This rank's part of the state, or of the epoch's beginning.

        Raises:
            RanksApartError: Where the ranks would go on from different places.
        """
        own = None if state is None else share_of(state, self.together.share)
        self.together.agree("pass", f"begins epoch {epoch}" if own is None else _place_of(own))
        if own is None:
            return self.start_of(epoch)
        self._make_ready()
        # Nobody writes a clip before all have made room for it.
        self.together.tell("ready", None)
        return own

    def _make_ready(self) -> int:
        """Have all ranks know the same, and none have more on disk than its share; return the node's clip budget."""
        self.indexes.exchange(self.together)
        clip_budget_bytes = self.clip_budget_bytes
        self._cache.keep_within(self._division.share_bytes)
        return clip_budget_bytes

    def pipeline(self, state: EpochState, *, keep_until_window_end: bool = False) -> EpochPipeline:
        """Return a pipeline that serves an epoch from `state` on, and close the one before it.

        Raises:
            BudgetTooSmallError: Where the state's windows do not fit the disk budget.
        """
        options, settings = self.options, state.settings
        self.download()
        if self._running is not None:
            self._running.close()
        self._num_passes += 1
        name = f"pass/{self._num_passes}"
        with leaving_pass(self.together, name):
            plan = self._planner.plan(settings)
            limits = self._divide(settings)
            room = self._division.room(settings, limits)
        self._starts.begun(settings)
        if not state.num_consumed:
            self._keeper.tidy(archive for layout in self.layouts for archive in layout.archives)
        self.telemetry.emit(
            events.EpochStarted(
                epoch=settings.epoch,
                span_kind=settings.spans.kind.value,
                num_spans=sum(len(plan.lanes[lane]) for lane in state.share.lanes(settings.num_lanes)),
                num_lanes=settings.num_lanes,
                resumed_at=state.num_consumed,
                needed_bytes=self._needed_bytes(plan, state),
            )
        )
        self._running = EpochPipeline(
            plan=plan,
            state=state,
            catalog=self.catalog,
            source=self._files,
            learned=self._keeper,
            cache=self._cache,
            kept=self._kept,
            room=room,
            disk_budget_bytes=self.budget.total_bytes,
            together=self.together,
            name=name,
            options=PipelineOptions(
                frames=options.frames,
                decode_threads=options.decode_threads,
                decoded_memory_bytes=options.decoded_memory,
                connections=options.connections,
                max_bad_share=options.max_bad_share,
                stop_on_bad_archive=options.on_bad_archive == "stop",
                keep_until_window_end=keep_until_window_end,
                media=options.media,
                check=options.check,
                audio=options.audio,
            ),
            telemetry=self.telemetry,
            paths=self.paths if options.media == "path" else None,
        )
        return self._running

    def booked(self, state: EpochState, *, over: bool) -> events.EpochBooked:
        """Return the books of an epoch at a consumed state; see `books`."""
        return book(state, self.catalog, side=self.options.split, over=over)

    def download(self) -> None:
        """Have all archives on disk where nothing shall be streamed, else do nothing; all ranks at the same time.

        The first epoch does it by itself; call it before to have it done where an interrupt is heard.

        Raises:
            HubError: Where an archive cannot be had.
            DiskError: Where one cannot be written.
            Cancelled: Where `call_off` was called meanwhile.
        """
        if self._downloads is not None:
            self._downloads.run()

    def call_off(self) -> None:
        """Call off what another thread waits for beside a pass: other ranks, or a download; until `renew`."""
        self.together.call_off()
        if self._downloads is not None:
            self._downloads.call_off()

    def renew(self) -> None:
        """Work again after `call_off`."""
        self.together.renew()

    # ------------------------------------------------------------------ the other ranks

    @contextlib.contextmanager
    def _leaving(self) -> Iterator[None]:
        """Tell the other ranks when this one is done, and why."""
        reason = "it has closed the dataset"
        try:
            yield
        except BaseException as error:
            reason = error.fact if isinstance(error, ReelstreamError) else f"it ended by {type(error).__name__}"
            raise
        finally:
            self.together.ranks.leave(reason)

    def finish(self, pipeline: EpochPipeline) -> EpochState:
        """Return the state of all ranks at an epoch's end; archives whose pieces several have read are judged then.

        All ranks call it together.
        """
        own = pipeline.state_after(None)
        if self.together.is_alone:
            return own
        num_clips = self.catalog.num_clips
        told = self.together.tell("end", {"state": own.to_json(), "judged": pipeline.judged})
        whole = merge_shares([EpochState.from_json(of_rank["state"], num_clips) for of_rank in told])
        # Who has read all of an archive knows more of it than its pieces' checksums say.
        judged = {path for of_rank in told for path in of_rank["judged"]}
        archives = {archive.path: archive for layout in self.layouts for archive in layout.archives}
        pipeline.settle({archives[path]: of for path, of in whole.reports.items() if path not in judged})
        return whole

    # ------------------------------------------------------------------ what else it is made of

    @property
    def clip_budget_bytes(self) -> int:
        """What all clips of this node may take on disk; see `ClipDivision`. All ranks must ask at the same time."""
        return self._division.clip_budget_bytes

    def _take_the_place_of_older(self) -> None:
        """Have sessions of the same options that nobody uses any more let go of the clips that they keep.

        In a notebook a cell that was interrupted is run again, and what it raised holds its dataset for good.
        """
        for other in list(_open_sessions):
            if other.options == self.options and other.together.place == self.together.place and other.is_idle:
                other.drop_kept()
        _open_sessions.add(self)

    @property
    def is_idle(self) -> bool:
        """Whether no epoch runs."""
        return self._running is None or self._running.is_closed

    def _remove_unused_catalogs(self) -> None:
        parent = self.options.cache_dir / CATALOG_FOLDER
        remove_unused(parent, budget=self.budget, keep=[catalog_folder(layout, parent) for layout in self.layouts])

    def _divide(self, settings: EpochSettings) -> KeepLimits:
        """Divide the clips between those that stay and those that move, and let go of what is of no more use."""
        size_bytes = sum(layout.archive_size_bytes for layout in self.layouts)
        limits = self._division.keep_limits(settings, self.catalog, size_bytes)
        if not (self.options.keep_clips and self._may_use_again(settings)):
            limits = KeepLimits(kept_bytes=0, moving_bytes=None)
        before, self._kept.limit_bytes = self._starts.before, limits.kept_bytes
        if before is not None and before.spans.part_of != settings.spans.part_of:
            # Clips of another part would only take this one's room.
            self.drop_kept()
        return limits

    def _may_use_again(self, settings: EpochSettings) -> bool:
        """Return whether a later epoch can use what stays: only one of blocks does, all others read what they pass."""
        if self.options.limit is not None:
            # All its epochs have the spans of the first.
            return settings.spans.kind is SpanKind.BLOCK
        return self.options.spans in {"auto", "block"}

    def unknown_archives(self) -> list[Archive]:
        """Return the archives of which it is not known here where all their members lie."""
        return self._planner.unknown_archives()

    @property
    def learning_command(self) -> str:
        """What a person types to learn it."""
        return self._planner.learning_command

    @property
    def mean_epoch_samples(self) -> float:
        """Samples of an epoch on average: those of the catalog, or the share of them that parts and limit take."""
        catalog, limit = self.catalog, self.options.limit
        shares = {name: self._planner.share_of(name) for name in catalog.subsets}
        num_samples = sum(catalog.samples_in(name) * share for name, share in shares.items())
        num_clips = sum(catalog.clips_in(name) * share for name, share in shares.items())
        return num_samples if limit is None or limit >= num_clips else num_samples * limit / num_clips

    def drop_kept(self) -> None:
        """Delete the clips that are kept for epochs to come; not while an epoch runs."""
        for file in self._kept.give_up(self._kept.used_bytes):
            self._cache.delete(file)

    def _needed_bytes(self, plan: EpochPlan, state: EpochState) -> int:
        """Return the bytes that an epoch fetches, by this rank: those of spans, or of clips that are not on disk.

        Of archives on disk, what was fetched for it before it began; 0 where it cannot be known beforehand.
        """
        if self._downloads is not None:
            return self._downloads.take_fetched_bytes()
        if state.settings.limit is not None:
            return 0
        lanes = [plan.lanes[lane] for lane in state.share.lanes(len(plan.lanes))]
        if not plan.known:
            return sum(span.size_bytes for lane in lanes for span in lane)
        return sum(self._needed_bytes_of(span, plan) for lane in lanes for span in lane)

    def _needed_bytes_of(self, span: Span, plan: EpochPlan) -> int:
        missing = [row for row, clip in zip(span.rows, span.clips, strict=True) if clip not in self._kept]
        if len(missing) == len(span.rows):
            # Near enough, and there may be a hundred thousand blocks.
            return span.size_bytes
        return sum(plan.row_of(span.archive, row).range_bytes for row in missing)

    def _tell_what_is_not_learned(self) -> None:
        """Say what is dearer where this platform's zlib does not tell where its blocks begin."""
        problem = block_inflation().problem
        if problem and any(archive.kind is ContainerKind.TAR_GZ for archive in self.indexes.archives):
            self.telemetry.emit(
                events.Notice(
                    message=f"nothing is learned of archives here ({problem}): each epoch reads them again, and a run "
                    "that goes on reads its current archives from their beginnings"
                )
            )

    def _tell_missing_kinds(self) -> None:
        """Say which kinds of annotations none of the subsets has: with the default ones that is no mistake."""
        found = {annotation.kind for layout in self.layouts for annotation in layout.annotations}
        missing = [kind for kind in self.options.annotations if kind not in found]
        if missing:
            self.telemetry.emit(
                events.Notice(
                    message=f"{', '.join(self.catalog.subsets)}: no annotations of kind {' or '.join(missing)}; "
                    f"training on {', '.join(sorted(found))}"
                )
            )


def _place_of(state: EpochState) -> str:
    """Return where a saved state stands, in words that follow who stands there."""
    digest = hashlib.sha256(f"{state.settings} {state.quotas}".encode()).hexdigest()[:12]
    return f"goes on in epoch {state.settings.epoch} after {state.num_consumed} samples of its own (state {digest})"
