"""A dataset opened for streaming: repository, catalog, disk and network, from which epochs are started."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from reelstream.archive import ArchiveIndex
from reelstream.archive.containers import Container, read_directory
from reelstream.archive.cuts.entry import ENTRY_RULE_VERSION
from reelstream.archive.seek.inflate import block_inflation
from reelstream.cache import Account, ClipCache, DiskBudget, KeepLimits, KeptClips, RunFolder
from reelstream.cache.names import HUB_FILE
from reelstream.cancel import Cancellation
from reelstream.catalog import Catalog, SubsetLayout, catalog_folder, select_subsets
from reelstream.errors import ConfigError, ReelstreamError, StateError
from reelstream.indexes import INDEX_FOLDER, IndexStore, set_aside_bytes
from reelstream.indexes.sources import CancellableSource, RangedFile
from reelstream.prefetch.catalogs import opened_catalog, remove_unused
from reelstream.prefetch.division import LEAST_CLIP_BUDGET_BYTES, ClipDivision
from reelstream.prefetch.downloads import DownloadFirst
from reelstream.prefetch.learned import IndexKeeper
from reelstream.prefetch.learned_exchange import exchange_learned
from reelstream.prefetch.options import StreamOptions
from reelstream.prefetch.parts import split_parts
from reelstream.prefetch.paths import PathLeases
from reelstream.prefetch.pipeline import EpochPipeline
from reelstream.prefetch.plan import EpochPlan
from reelstream.prefetch.shares import merge_shares, share_of
from reelstream.prefetch.spans import SpanPlanner
from reelstream.prefetch.state import EpochSettings, EpochState, SpanSettings, Tail
from reelstream.prefetch.together import Together
from reelstream.prefetch.values import PipelineOptions
from reelstream.ranks import OneRank, Ranks
from reelstream.schedule import WindowLimits, lane_quotas
from reelstream.telemetry import Telemetry, events
from reelstream.transport import HubClient, RemoteFile
from reelstream.types import Archive, ContainerKind, Repository, RepositoryFile, Span, SpanKind

CATALOG_FOLDER = "catalog"
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
            self._client = stack.enter_context(
                HubClient(
                    endpoint=options.endpoint,
                    token=token,
                    telemetry=telemetry,
                    give_up_after_s=options.give_up_after,
                    shared=self._shared_addresses(),
                )
            )
            self.repository: Repository = self._same_repository()
            names, named_parts = split_parts(options.subsets, self.repository, num_parts=options.parts)
            self.layouts: tuple[SubsetLayout, ...] = tuple(select_subsets(self.repository, names, options.annotations))
            self._files: dict[str, RemoteFile] = {}
            self._files_lock = threading.Lock()
            self._download_first = DownloadFirst.claimed(
                [archive for layout in self.layouts for archive in layout.archives],
                self.repository,
                options,
                open_file=self._remote_file,
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
                    open_file=self._open_annotations,
                    progress=progress,
                    telemetry=telemetry,
                )
            )
            if self.together.is_first_on_node:
                self.together.tell("catalog", None)
            self.catalog: Catalog = stack.enter_context(catalog.on_side(options.clip_split))
            self._indexes = stack.enter_context(self._opened_indexes())
            parts_of = {layout.name: parts for layout, parts in zip(self.layouts, named_parts, strict=True) if parts}
            self._planner = SpanPlanner(
                self.layouts,
                self.catalog,
                options,
                named_parts=parts_of,
                indexes=self._indexes,
                directory=self._directory,
                world_size=self.together.place.world_size,
            )
            self._division = ClipDivision(
                options,
                budget,
                account=clip_account,
                folder=self.folder.path,
                tidy=self._remove_unused_catalogs,
                together=self.together,
            )
            self._keeper = IndexKeeper(self._indexes, keep_cuts=options.parts > 1, telemetry=telemetry)
            self._running: EpochPipeline | None = None
            self._settings_before: EpochSettings | None = None
            self._kept = KeptClips(0)
            self._stack = stack.pop_all()
        self._tell_missing_kinds()
        self._tell_what_is_not_learned()

    def close(self) -> None:
        """Stop, delete the clips and let go of everything; a second call does nothing. The catalog stays on disk."""
        if self._process != os.getpid():
            # Forked: folder, threads and lock are the parent's.
            return
        running, self._running = self._running, None
        if running is not None:
            running.close()
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
        self._exchange_learned()
        # All ranks must take part in it.
        clip_budget_bytes = self.clip_budget_bytes
        chosen = self.together.first_says("epoch", lambda: self._chosen_start(epoch, clip_budget_bytes).to_json())
        state = EpochState.from_json(chosen, self.catalog.num_clips)
        return share_of(state, self.together.share)

    def _chosen_start(self, epoch: int, clip_budget_bytes: int) -> EpochState:
        options = self.options
        spans = self._planner.choose(epoch, self._spans_before)
        num_lanes = self._planner.num_lanes(spans)
        limits = WindowLimits.of(
            cache_size=options.cache_size, num_lanes=num_lanes, clip_budget_bytes=clip_budget_bytes
        )
        settings = EpochSettings(
            catalog=self.catalog.fingerprint,
            seed=options.seed,
            epoch=epoch,
            shuffle=options.shuffle,
            limit=options.limit,
            split=str(options.clip_split),
            spans=spans,
            tail=self._tail(),
            num_lanes=num_lanes,
            window_clips=limits.clips,
            window_bytes=limits.size_bytes,
        )
        state = EpochState.at_start(settings, self.catalog.num_clips, None)
        if options.limit is not None:
            if spans.kind is SpanKind.BLOCK:
                lanes = self._planner.plan(settings).lanes
                state.lengths = [sum(len(span.clips) for span in lane) for lane in lanes]
            lengths = {lane: length for lane, length in enumerate(state.lengths) if length is not None}
            state.quotas = lane_quotas(options.limit, num_lanes, lengths)
        return state

    @property
    def _spans_before(self) -> SpanSettings | None:
        return None if self._settings_before is None else self._settings_before.spans

    def _tail(self) -> Tail:
        tail = self.options.tail
        if tail == "auto":
            # A run that was begun on several ranks takes the same batches on one.
            by_number: Tail = "skip" if self.together.is_alone else "repeat"
            before = None if self._settings_before is None else self._settings_before.tail
            return before if before is not None and before != "skip" else by_number
        if tail == "skip" and not self.together.is_alone:
            raise ConfigError(
                f"tail is skip, and {self.together.place.world_size} ranks would not take the same number of steps",
                "set tail to repeat, drop or auto",
            )
        return tail

    def check(self, state: EpochState) -> None:
        """Refuse a saved state that is not of this dataset and seed, or that these ranks cannot go on from.

        What was fixed when its epoch began (spans, lanes, windows) is the state's own, and may differ from the options.

        Raises:
            StateError: Where it differs in what must agree.
        """
        saved = state.settings
        if saved.spans.kind is SpanKind.CUT and saved.spans.entry_rule != ENTRY_RULE_VERSION:
            raise StateError(
                f"the saved data state enters archives by rule {saved.spans.entry_rule}, this Reelstream by "
                f"{ENTRY_RULE_VERSION}",
                "resume with the Reelstream that saved it",
            )
        options = self.options
        now = dataclasses.replace(
            saved,
            catalog=self.catalog.fingerprint,
            seed=options.seed,
            shuffle=options.shuffle,
            limit=options.limit,
            split=str(options.clip_split),
        )
        state.check(now)
        share_of(state, self.together.share)

    def meet(self, state: EpochState | None) -> EpochState | None:
        """Begin a pass together with the other ranks: all know the same, and stand at the same place.

        Args:
            state: Of all ranks or this one, to go on from; None for an epoch's beginning.

        Returns:
            This rank's part of the state.

        Raises:
            StateError: Where the ranks would go on from different places.
        """
        if state is None:
            return None
        own = share_of(state, self.together.share)
        self._exchange_learned()
        self._division.clip_budget_bytes  # noqa: B018 - asked for by all ranks at the same time
        place = hashlib.sha256(f"{own.settings} {own.num_consumed} {own.quotas}".encode()).hexdigest()
        if len(set(self.together.tell("place", place))) > 1:
            raise StateError(
                "the ranks have loaded states of different places", "load the same merged state on all of them"
            )
        return own

    def pipeline(self, state: EpochState, *, keep_until_window_end: bool = False) -> EpochPipeline:
        """Return a pipeline that serves an epoch from `state` on, and close the one before it.

        Raises:
            BudgetTooSmallError: Where the state's windows do not fit the disk budget.
        """
        options, settings = self.options, state.settings
        self.download()
        if self._running is not None:
            self._running.close()
        plan = self._planner.plan(settings)
        limits = self._divide(settings)
        self._num_passes += 1
        self._settings_before, self._planner.lanes_before = settings, settings.num_lanes
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
            source=self,
            learned=self._keeper,
            cache=self._cache,
            kept=self._kept,
            room=self._division.room(settings, limits),
            disk_budget_bytes=self.budget.total_bytes,
            together=self.together,
            name=f"pass/{self._num_passes}",
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
        """Return the books of an epoch at a consumed state.

        Args:
            state: What is consumed.
            over: Whether the epoch was served to its end.
        """
        books = state.books
        # A clip that two ranks have met was delivered by both: the second time as a repeat.
        twice = max(0, books.delivered + books.quarantined - self.catalog.num_taken_samples) if over else 0
        missing = self.catalog.num_taken_samples - books.delivered - books.quarantined + twice
        limit = state.settings.limit
        limited = limit is not None and sum(lane.clips for lane in state.lanes) >= limit
        reason: str | None = "not_seen"
        if limited:
            reason = "limit"
        elif over:
            # Which clips the other parts hold, and which nobody does, is known only once all of them were read.
            reason = "other_parts" if state.settings.spans.part_of else None
        left_out = {} if reason is None or not missing else {reason: missing}
        other_side = self.catalog.num_samples - self.catalog.num_taken_samples
        if other_side:
            left_out["held_out" if self.options.split == "training" else "trained_on"] = other_side
        return events.EpochBooked(
            epoch=state.settings.epoch,
            num_catalog=self.catalog.num_samples,
            num_delivered=books.delivered - twice,
            num_repeated=books.repeated + twice,
            num_quarantined=books.quarantined,
            num_without_media=missing if reason is None else 0,
            left_out=left_out,
            order_digest=state.order_digest,
        )

    # ------------------------------------------------------------------ inside

    def read(self, archive: Archive, first_byte: int, end_byte: int, cancellation: Cancellation) -> Iterator[bytes]:
        """Yield published bytes of an archive. See `ArchiveSource`."""
        return self._file(archive).read(first_byte, end_byte, cancellation)

    def _file(self, archive: Archive) -> RangedFile:
        if self._download_first is not None and self._download_first.is_done:
            return self._download_first.open(archive)
        return self._remote_file(archive)

    def _remote_file(self, archive: Archive) -> RemoteFile:
        with self._files_lock:
            file = self._files.get(archive.path)
            if file is None:
                file = self._files[archive.path] = self._client.open(self.repository, archive.file)
        return file

    @contextlib.contextmanager
    def _opened_indexes(self) -> Iterator[IndexStore]:
        """Set aside the room of indexes, which follows from the dataset alone, and open those that are at hand."""
        account = self.budget.account(INDEX_FOLDER)
        room_bytes = self.index_room_bytes
        # Another dataset of the same run may have its own room in the same account.
        account.set_aside(account.set_aside_bytes + room_bytes)
        try:
            store = IndexStore(self.options.cache_dir / INDEX_FOLDER, account, telemetry=self.telemetry)
            store.open(self._indexed_archives)
            yield store
        finally:
            account.set_aside(account.set_aside_bytes - room_bytes)

    @functools.cached_property
    def _indexed_archives(self) -> list[Archive]:
        """The archives that an index is kept of: videos by themselves say what they are."""
        return [
            archive for layout in self.layouts for archive in layout.archives if archive.kind is not ContainerKind.FILE
        ]

    def _directory(self, archive: Archive) -> ArchiveIndex | None:
        """Return the members that a container names before any of them is read; None where only a pass can tell."""
        source = CancellableSource(self._file(archive), Cancellation())
        directory = read_directory(Container.of(archive), source)
        return None if directory is None else directory.index

    def download(self) -> None:
        """Have all archives on disk where nothing shall be streamed, else do nothing; all ranks at the same time.

        The first epoch does it by itself; call it before to have it done where an interrupt is heard.

        Raises:
            HubError: Where an archive cannot be had.
            DiskError: Where one cannot be written.
            Cancelled: Where `call_off` was called meanwhile.
        """
        if self._download_first is not None:
            self._download_first.run()

    def call_off(self) -> None:
        """Call off what another thread waits for beside a pass: other ranks, or a download; until `renew`."""
        self.together.call_off()
        if self._download_first is not None:
            self._download_first.call_off()

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

    def _shared_addresses(self) -> Path | None:
        """Return the file in which the ranks of a node share what they know of addresses; None where one is alone."""
        folders: list[str] = self.together.tell("folder", str(self.folder.path))
        return (
            None if self.together.place.local_world_size == 1 else Path(folders[self.together.first_on_node]) / HUB_FILE
        )

    def _same_repository(self) -> Repository:
        """Return the repository as rank 0 finds it: all ranks stream the same commit, and one asks for it."""

        def found() -> dict[str, Any]:
            return dataclasses.asdict(self._client.repository(self.options.repo_id, self.options.revision))

        values = self.together.first_says("repository", found)
        files = tuple(RepositoryFile(**file) for file in values.pop("files"))
        return Repository(**values, files=files)

    def finish(self, pipeline: EpochPipeline) -> EpochState:
        """Return the state of all ranks at an epoch's end; archives whose pieces several have read are judged then.

        All ranks call it together.
        """
        own = pipeline.state_after(None)
        if self.together.is_alone:
            return own
        num_clips = self.catalog.num_clips
        told = self.together.tell("end", own.to_json())
        whole = merge_shares([EpochState.from_json(values, num_clips) for values in told])
        archives = {archive.path: archive for layout in self.layouts for archive in layout.archives}
        pipeline.settle({archives[path]: reports for path, reports in whole.reports.items()})
        return whole

    def _exchange_learned(self) -> None:
        """Have every node know what any has learned of the archives."""
        if not self.together.is_alone:
            exchange_learned(self._indexes, self._indexed_archives, self.together)

    # ------------------------------------------------------------------ what else it is made of

    def _open_annotations(self, file: RepositoryFile) -> Iterator[bytes]:
        return self._client.open(self.repository, file).read(0, file.size_bytes, Cancellation())

    @property
    def clip_budget_bytes(self) -> int:
        """What all clips of this node may take on disk; see `ClipDivision`. All ranks must ask at the same time."""
        return self._division.clip_budget_bytes

    def _remove_unused_catalogs(self) -> None:
        parent = self.options.cache_dir / CATALOG_FOLDER
        remove_unused(parent, budget=self.budget, keep=[catalog_folder(layout, parent) for layout in self.layouts])

    def _divide(self, settings: EpochSettings) -> KeepLimits:
        """Divide the clips between those that stay and those that move, and let go of what is of no more use."""
        size_bytes = sum(layout.archive_size_bytes for layout in self.layouts)
        limits = self._division.keep_limits(settings, self.catalog, size_bytes)
        if not (self.options.keep_clips and self._may_use_again(settings)):
            limits = KeepLimits(kept_bytes=0, moving_bytes=None)
        before, self._kept.limit_bytes = self._spans_before, limits.kept_bytes
        if before is not None and before.part_of != settings.spans.part_of:
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

    def known_indexes(self) -> list[tuple[Archive, ArchiveIndex]]:
        """Return the indexes that are whole, of archives that an index is kept of."""
        found = ((archive, self._indexes.find(archive)) for archive in self._indexed_archives)
        return [(archive, index) for archive, index in found if index is not None]

    @property
    def mean_epoch_samples(self) -> float:
        """Samples of an epoch on average: those of the catalog, or the share of them that parts and limit take."""
        catalog, limit = self.catalog, self.options.limit
        shares = {name: self._planner.share_of(name) for name in catalog.subsets}
        num_samples = sum(catalog.samples_in(name) * share for name, share in shares.items())
        num_clips = sum(catalog.clips_in(name) * share for name, share in shares.items())
        return num_samples if limit is None or limit >= num_clips else num_samples * limit / num_clips

    def open_store(self, folder: Path, account: Account) -> IndexStore:
        """Return a store of this dataset's indexes elsewhere, with room set aside for it and what it holds counted.

        Raises:
            BudgetTooSmallError: Where there is no room for it.
            DiskError: Where the folder cannot be listed.
        """
        account.set_aside(self.index_room_bytes)
        store = IndexStore(folder, account, telemetry=self.telemetry)
        store.open(self._indexed_archives)
        return store

    def save_indexes(self, store: IndexStore) -> bool:
        """Put what is known of the archives so far into another store; return whether all of it is there.

        Beside a state it lets a run that goes on elsewhere take the same spans in the epochs to come as this one would.

        Raises:
            DiskError: Where it cannot be written.
        """
        return store.take_from(self._indexes, self._indexed_archives, mirror=True)

    def take_indexes(self, store: IndexStore) -> None:
        """Take over what another store knows of this dataset's archives, and this one does not.

        Raises:
            DiskError: Where it cannot be written here.
        """
        self._indexes.take_from(store, self._indexed_archives, mirror=False)

    @property
    def index_room_bytes(self) -> int:
        """The room that indexes of this dataset take at most: a function of the dataset alone."""
        archives = self._indexed_archives
        return set_aside_bytes(self.catalog.num_clips, sum(archive.size_bytes for archive in archives), len(archives))

    def drop_kept(self) -> None:
        """Delete the clips that are kept for epochs to come; not while an epoch runs."""
        for file in self._kept.give_up(self._kept.used_bytes):
            self._cache.delete(file)

    def _needed_bytes(self, plan: EpochPlan, state: EpochState) -> int:
        """Return the bytes that an epoch fetches, by this rank: those of spans, or of clips that are not on disk.

        Of archives on disk, what was fetched for it before it began; 0 where it cannot be known beforehand.
        """
        if self._download_first is not None:
            return self._download_first.take_fetched_bytes()
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
        if problem and any(archive.kind is ContainerKind.TAR_GZ for archive in self._indexed_archives):
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
