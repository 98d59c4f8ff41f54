"""A dataset opened for streaming: repository, catalog, disk and network, from which epochs are started."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from reelstream.cache import ClipCache, DiskBudget, Room, RunFolder
from reelstream.cache.budget import BLOCK_BYTES, block_bytes_of
from reelstream.cancel import Cancellation
from reelstream.catalog import Catalog, SubsetLayout, catalog_folder, select_subsets
from reelstream.errors import BudgetTooSmallError
from reelstream.prefetch.catalogs import opened_catalog, remove_unused
from reelstream.prefetch.options import StreamOptions
from reelstream.prefetch.pipeline import EpochPipeline
from reelstream.prefetch.state import EpochSettings, EpochState
from reelstream.prefetch.values import PipelineOptions
from reelstream.schedule import WindowLimits, archive_spans, deal_to_lanes, lane_quotas, order_spans
from reelstream.telemetry import Telemetry, events
from reelstream.transport import HubClient, RemoteFile
from reelstream.types import Repository, RepositoryFile, Span, SpanKind
from reelstream.units import format_bytes

CATALOG_FOLDER = "catalog"
# Directories grow with the names in them; a run folder of ten thousand clips takes less.
FOLDERS_BYTES = 1 << 20
# Below this nothing works: a lane could not hold one block.
LEAST_CLIP_BUDGET_BYTES = 1 << 20


class StreamSession:
    """Repository, catalog, run folder and budget of one run; a context manager.

    Opening pins the revision, reads the annotations where no catalog of them is at hand, and reclaims what killed runs
    left in the cache folder.

    Args:
        options: What to stream.
        telemetry: Who is told.
        budget: The run's disk budget; checkpoints and logs have their part reserved in it already.
        token: For the Hub; None takes the one that is logged in, False none.
        progress: Called with the bytes of annotations that were just read.

    Raises:
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
        token: str | bool | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.options = options
        self.telemetry = telemetry
        self.budget = budget
        self._process = os.getpid()
        with contextlib.ExitStack() as stack:
            self._client = stack.enter_context(
                HubClient(
                    endpoint=options.endpoint, token=token, telemetry=telemetry, give_up_after_s=options.give_up_after
                )
            )
            self.repository: Repository = self._client.repository(options.repo_id, options.revision)
            self.layouts: tuple[SubsetLayout, ...] = tuple(
                select_subsets(self.repository, options.subsets, options.annotations)
            )
            self.folder = stack.enter_context(RunFolder(options.cache_dir))
            budget.account("folders").reserve(FOLDERS_BYTES)
            stack.callback(budget.account("folders").release, FOLDERS_BYTES)
            self.catalog: Catalog = stack.enter_context(
                opened_catalog(
                    self.layouts,
                    options.cache_dir / CATALOG_FOLDER,
                    budget=budget,
                    open_file=self._open_annotations,
                    progress=progress,
                    telemetry=telemetry,
                )
            )
            self._cache = ClipCache(self.folder.path, budget.account("clips"))
            self._files: dict[str, RemoteFile] = {}
            self._running: EpochPipeline | None = None
            self._stack = stack.pop_all()
        self._tell_missing_kinds()

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
        """Return the state before the first sample of an epoch."""
        options = self.options
        spans = archive_spans(archive for layout in self.layouts for archive in layout.archives)
        # An empty lane would only make the others' windows smaller.
        num_lanes = min(options.lanes, len(spans))
        limits = WindowLimits.of(
            cache_size=options.cache_size, num_lanes=num_lanes, clip_budget_bytes=self.clip_budget_bytes
        )
        settings = EpochSettings(
            catalog=self.catalog.fingerprint,
            seed=options.seed,
            epoch=epoch,
            shuffle=options.shuffle,
            limit=options.limit,
            span_kind=SpanKind.ARCHIVE,
            tail="skip",
            num_lanes=num_lanes,
            window_clips=limits.clips,
            window_bytes=limits.size_bytes,
        )
        quotas = None if options.limit is None else lane_quotas(options.limit, num_lanes, {})
        return EpochState.at_start(settings, self.catalog.num_clips, quotas)

    def check(self, state: EpochState) -> None:
        """Refuse a saved state that is not of this dataset and seed.

        What was fixed when its epoch began (lanes, windows) is the state's own, and may differ from the options.

        Raises:
            StateError: Where it differs in what must agree.
        """
        saved, now = state.settings, self.start_of(state.settings.epoch).settings
        state.check(
            dataclasses.replace(
                now, num_lanes=saved.num_lanes, window_clips=saved.window_clips, window_bytes=saved.window_bytes
            )
        )

    def lanes_of(self, settings: EpochSettings) -> list[list[Span]]:
        """Return the spans of each lane in an epoch: a pure function of the settings and the repository."""
        spans = archive_spans(archive for layout in self.layouts for archive in layout.archives)
        # Limited epochs keep the first one's lanes, so that they take the same clips.
        epoch = settings.epoch if settings.limit is None else 0
        ordered = order_spans(spans, seed=settings.seed, epoch=epoch, shuffle=settings.shuffle)
        samples_per_byte = {
            layout.name: self.catalog.samples_in(layout.name) / max(1, layout.archive_size_bytes)
            for layout in self.layouts
        }
        return deal_to_lanes(
            ordered, settings.num_lanes, lambda span: span.size_bytes * samples_per_byte[span.archive.subset]
        )

    def pipeline(self, state: EpochState, *, keep_until_window_end: bool = False) -> EpochPipeline:
        """Return a pipeline that serves an epoch from `state` on, and close the one before it.

        Raises:
            BudgetTooSmallError: Where the state's windows do not fit the disk budget.
        """
        options, settings = self.options, state.settings
        if self._running is not None:
            self._running.close()
        room = self._room(settings)
        lanes = self.lanes_of(settings)
        self.telemetry.emit(
            events.EpochStarted(
                epoch=settings.epoch,
                num_spans=sum(map(len, lanes)),
                num_lanes=settings.num_lanes,
                resumed_at=state.num_consumed,
                needed_bytes=sum(span.size_bytes for lane in lanes for span in lane) if settings.limit is None else 0,
            )
        )
        self._running = EpochPipeline(
            lanes=lanes,
            state=state,
            catalog=self.catalog,
            source=self,
            cache=self._cache,
            room=room,
            disk_budget_bytes=self.budget.total_bytes,
            options=PipelineOptions(
                frames=options.frames,
                decode_threads=options.decode_threads,
                decoded_memory_bytes=options.decoded_memory,
                connections=options.connections,
                max_bad_share=options.max_bad_share,
                stop_on_bad_archive=options.on_bad_archive == "stop",
                keep_until_window_end=keep_until_window_end,
            ),
            telemetry=self.telemetry,
        )
        return self._running

    def booked(self, state: EpochState, *, over: bool) -> events.EpochBooked:
        """Return the books of an epoch at a consumed state.

        Args:
            state: What is consumed.
            over: Whether the epoch was served to its end.
        """
        books = state.books
        missing = self.catalog.num_samples - books.delivered - books.quarantined
        limit = state.settings.limit
        limited = limit is not None and sum(lane.clips for lane in state.lanes) >= limit
        reason = "limit" if limited else None if over else "not_seen"
        return events.EpochBooked(
            epoch=state.settings.epoch,
            num_catalog=self.catalog.num_samples,
            num_delivered=books.delivered,
            num_repeated=books.repeated,
            num_quarantined=books.quarantined,
            num_without_media=missing if reason is None else 0,
            left_out={} if reason is None or not missing else {reason: missing},
            order_digest=state.order_digest,
        )

    # ------------------------------------------------------------------ inside

    def read(self, span: Span, first_byte: int, end_byte: int, cancellation: Cancellation) -> Iterator[bytes]:
        """Yield compressed bytes of an archive. See `SpanSource`."""
        file = self._files.get(span.archive.path)
        if file is None:
            # Two lanes never read the same archive, so no lock is needed to make one only.
            file = self._files[span.archive.path] = self._client.open(self.repository, span.archive.file)
        return file.read(first_byte, end_byte, cancellation)

    def _open_annotations(self, file: RepositoryFile) -> Iterator[bytes]:
        return self._client.open(self.repository, file).read(0, file.size_bytes, Cancellation())

    @functools.cached_property
    def clip_budget_bytes(self) -> int:
        """What all clips may take on disk: the budget less all that others have reserved when this is first asked for.

        Catalogs that nobody uses are removed first.

        Raises:
            BudgetTooSmallError: Where nothing can work with what is left.
        """
        parent = self.options.cache_dir / CATALOG_FOLDER
        remove_unused(parent, budget=self.budget, keep=[catalog_folder(layout, parent) for layout in self.layouts])
        clip_budget_bytes = self.budget.free_bytes
        if clip_budget_bytes < LEAST_CLIP_BUDGET_BYTES:
            used = ", ".join(
                f"{name} {format_bytes(size_bytes)}"
                for name, size_bytes in self.budget.by_account().items()
                if size_bytes
            )
            missing_bytes = LEAST_CLIP_BUDGET_BYTES - clip_budget_bytes
            smallest_mb = -(-(self.budget.total_bytes + missing_bytes) // 10**6)
            raise BudgetTooSmallError(
                f"the disk budget of {format_bytes(self.budget.total_bytes)} leaves "
                f"{format_bytes(max(0, clip_budget_bytes))} for clips ({used})",
                f"set disk_budget to {smallest_mb}MB, or to {smallest_mb - 1}MB plus {self.options.lanes + 2} times "
                "your largest clip where that is more",
            )
        return clip_budget_bytes

    def _room(self, settings: EpochSettings) -> Room:
        # Windows are limited in 4 KiB blocks; a file system with larger ones takes more for each clip.
        coarse_bytes = settings.window_clips * (block_bytes_of(self.folder.path) - BLOCK_BYTES)
        window_bytes = settings.window_bytes + coarse_bytes
        if window_bytes * settings.num_lanes > self.clip_budget_bytes:
            missing_bytes = window_bytes * settings.num_lanes - self.clip_budget_bytes
            smallest_mb = -(-(self.budget.total_bytes + missing_bytes) // 10**6)
            raise BudgetTooSmallError(
                f"{settings.num_lanes} windows of {format_bytes(window_bytes)} do not fit the clip budget of "
                f"{format_bytes(self.clip_budget_bytes)}",
                f"this epoch began with a larger disk_budget: set it to {smallest_mb}MB or more",
            )
        return Room(
            clip_budget_bytes=self.clip_budget_bytes,
            num_lanes=settings.num_lanes,
            window_bytes=window_bytes,
            ahead=self.options.prefetch,
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
