"""One epoch in motion: readers for the lanes, decoders for the clips, and the consumer they work for.

```
lane threads ──► windows on disk ──► look-ahead ──► decode threads ──► frames in memory ──► next_sample()
   ▲  wait for room, connections          one order, whatever the timing                          │
   └──────────────────────────── files deleted after their last use ◄─────────────────────────────┘
```

All bookkeeping happens under one lock, with two conditions on it: `_arrived` wakes the consumer, `Intake`'s the lanes.
Downloading, decompressing, writing and decoding happen outside of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from reelstream.archive import IndexRow
from reelstream.archive.cuts.bookmark import Bookmark
from reelstream.archive.cuts.report import CutReport
from reelstream.cache import ClipCache, ClipFile, KeptClips, Room
from reelstream.cancel import Cancellation, Cancelled
from reelstream.catalog import Catalog
from reelstream.decode import decode_clip
from reelstream.errors import ConfigError
from reelstream.prefetch.badness import BadClips
from reelstream.prefetch.board import Board, Entry, Served
from reelstream.prefetch.decoding import Decoding
from reelstream.prefetch.intake import Intake
from reelstream.prefetch.lanes.host import ArchiveSource, IncomingClip, SpanResult
from reelstream.prefetch.lanes.opening import open_lane
from reelstream.prefetch.paths import PathLease, PathLeases
from reelstream.prefetch.plan import EpochPlan, Learned
from reelstream.prefetch.span_results import SpanResults
from reelstream.prefetch.state import EpochState
from reelstream.prefetch.together import Rounds, Together
from reelstream.prefetch.values import Decode, Gauges, PipelineOptions, ReadySample
from reelstream.prefetch.windows import ResidentClip, Window
from reelstream.telemetry import Telemetry, events
from reelstream.types import Archive, ClipMedia, Position, Span


class EpochPipeline:
    """Serves one epoch's samples from a state on; a context manager that owns its threads.

    Args:
        plan: What the lanes read.
        state: Where to begin.
        catalog: All clips and samples.
        source: Where compressed bytes come from.
        learned: Keeps what the readers learn of archives.
        cache: Where clips are written; nothing else is in it.
        kept: Clips that stay across epochs; they lie in the same cache.
        room: The policy of this rank's part of the clip budget, at its beginning.
        disk_budget_bytes: The node's budget in all, to name one that works where this one does not.
        together: The ranks that serve the epoch in step.
        name: Of this pass over the epoch, the same on all ranks and used once.
        options: How to work.
        telemetry: Who is told.
        paths: Lends clips to samples that hold them by their path; None where they hold something else.
        decode: Gives a clip's frames; called from several threads at once.
    """

    def __init__(
        self,
        *,
        plan: EpochPlan,
        state: EpochState,
        catalog: Catalog,
        source: ArchiveSource,
        learned: Learned,
        cache: ClipCache,
        kept: KeptClips,
        room: Room,
        disk_budget_bytes: int,
        together: Together,
        name: str,
        options: PipelineOptions,
        telemetry: Telemetry,
        paths: PathLeases | None = None,
        decode: Decode = decode_clip,
    ) -> None:
        self._catalog = catalog
        self._plan = plan
        self._source = source
        self._learned = learned
        self._cache = cache
        self._kept = kept
        self._paths = paths
        self._options = options
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._cancellation = Cancellation()
        self._tail = state.settings.tail
        # A clip that is held by its path is gone with its file.
        self._echoes = self._tail == "repeat" and paths is None
        self._board = Board(state, echoes=self._echoes)
        self._served_last: dict[int, ClipMedia] = {}
        self._rounds = Rounds(together, name, by_all=self._tail == "drop", cancellation=self._cancellation)
        self._agreed_until = -1
        self._is_over = False
        self._results = SpanResults(
            state,
            catalog=catalog,
            learned=learned,
            telemetry=telemetry,
            stop_on_bad_archive=options.stop_on_bad_archive,
        )
        self._intake = Intake(
            lock=self._lock,
            lanes=[lane.number for lane in self._board.own],
            room=room,
            cache=cache,
            kept=kept,
            connections=options.connections,
            disk_budget_bytes=disk_budget_bytes,
            num_sharing=together.place.local_world_size,
            ready=lambda: [lane.ready for lane in self._board.own],
            cancellation=self._cancellation,
            on_short=self._arrived.notify_all,
        )
        self._decoding = Decoding(
            lock=self._lock,
            board=self._board,
            cache=cache,
            options=options,
            telemetry=telemetry,
            decode=decode,
            cancellation=self._cancellation,
            on_bad=self._quarantine,
            on_change=self._arrived.notify_all,
            on_failure=self._fail,
        )
        self._frames = self._decoding.frames
        self._bad_clips = BadClips(options.max_bad_share)
        self._no_more_wanted = False
        self._clips_on_disk = 0
        self._failure: Exception | None = None
        self._threads = [
            threading.Thread(
                target=self._read_lane,
                args=(lane.number, state),
                name=f"reelstream-lane-{lane.number}",
                # A script that ends without closing must not hang; the folder's leftovers are reclaimed.
                daemon=True,
            )
            for lane in self._board.own
        ]
        self._close_lock = threading.Lock()
        self._closed = False

    # ------------------------------------------------------------------ life

    def __enter__(self) -> Self:
        if self._paths is not None:
            self._paths.on_release = self._wake_lanes
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What other ranks are told. By attribute: where the interpreter ends, the names of modules are gone already.
        self.close(getattr(error, "fact", None))

    def cancel(self) -> None:
        """Call off all work, from any thread; `next_sample` raises `Cancelled` from here on. `close` must follow."""
        self._cancellation.cancel()
        with self._lock:
            self._arrived.notify_all()
            self._intake.wake()

    @property
    def is_closed(self) -> bool:
        """Whether its work has ended."""
        return self._closed

    def close(self, reason: str | None = None) -> None:
        """Call off all work, wait for the threads, delete the clips that are not kept; a second call does nothing.

        Args:
            reason: What went wrong, for ranks that go on with the epoch.
        """
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
            self.cancel()
            self._rounds.leave(reason)
            for thread in self._threads:
                if thread.ident is not None:
                    thread.join()
            self._decoding.close()
            self._kept.end_visits()
            self._cache.clear(keep=self._kept.files)
            self._telemetry.emit(events.ClipsKept(num_clips=len(self._kept), size_bytes=self._kept.used_bytes))

    # ------------------------------------------------------------------ the consumer

    def next_sample(self) -> ReadySample | None:
        """Return the next sample of the epoch with its frames; None when the epoch is over.

        Waits for what is needed, and tells telemetry for how long and for what.

        Raises:
            ReelstreamError: What ended the reading or the decoding.
            TooManyBadClipsError: Where more clips are bad than may be.
            RankLostError: Where another rank is lost.
            Cancelled: Where the work was called off.
        """
        if not self._goes_on():
            return None
        with self._lock:
            self._cancellation.raise_if_cancelled()
            while (entry := self._wait_for_head()) is not None:
                if entry.window is None:
                    return ReadySample(served=self._board.serve(), media=self._served_last[entry.lane.number])
                decoded = self._wait_for_frames(entry.clip)
                if decoded is not None:
                    return self._serve(entry, decoded)
            return None

    def _serve(self, entry: Entry, media: ClipMedia) -> ReadySample:
        served = self._board.serve()
        assert served.clip is entry.clip, "the head changed while its frames were waited for"
        lease = self._lend(served)
        self._release(served)
        self._decoding.ahead()
        if self._echoes and entry.is_first:
            # Held here as well: nobody may change it.
            self._served_last[entry.lane.number] = media
            served = dataclasses.replace(served, last_use=False)
        return ReadySample(served=served, media=media, lease=lease)

    def again(self, served: Served) -> ReadySample | None:
        """Return a sample that was served once more, decoding its clip again where needed; None once it is deleted."""
        media = self.frames_again(served.clip)
        with self._lock:
            if media is None or (self._paths is not None and served.clip.file is None):
                return None
            return ReadySample(served=served, media=media, lease=self._lend(served))

    def frames_again(self, clip: ResidentClip) -> ClipMedia | None:
        """Return what samples hold of a clip that was served, decoding it again where needed; None once deleted."""
        with self._lock:
            decoded = self._frames.get(clip)
            if decoded is not None or clip.file is None:
                return decoded
            lease = self._cache.lease(clip.file)
        try:
            return self._decoding.now(clip, lease)
        finally:
            with self._lock:
                # The clip may have been deleted meanwhile; then it is gone now.
                self._intake.wake()

    def state_after(self, position: Position | None) -> EpochState:
        """Return the state once everything up to and including `position` is consumed; see `Board.state_after`."""
        with self._lock:
            return self._board.state_after(position)

    @property
    def judged(self) -> list[str]:
        """Paths of the archives that were judged here, by all their pieces."""
        return self._results.judged

    def settle(self, reports: Mapping[Archive, Sequence[CutReport]]) -> None:
        """Judge archives whose pieces several ranks have read, by what all of them found."""
        self._results.settle(reports)

    def gauges(self) -> Gauges:
        """Return what is held now."""
        with self._lock:
            return Gauges(
                clips_on_disk=self._clips_on_disk,
                clips_bytes=self._cache.used_bytes,
                clips_decoded=self._frames.num_decoded,
                decoded_bytes=self._frames.used_bytes,
                samples_ready=sum(lane.ready for lane in self._board.lanes),
                ranges_open=self._intake.num_open,
            )

    def _goes_on(self) -> bool:
        """Return whether the epoch goes on, where its lanes serve in step: at each round all ranks agree on it."""
        while not self._is_over:
            with self._lock:
                self._cancellation.raise_if_cancelled()
                num_served = self._board.num_served
                if not self._board.at_border or self._agreed_until == num_served:
                    return True
                has_more = self._wait_for_outlook()
            # Without the lock: the other ranks may take their time.
            if self._rounds.goes_on(num_served, has_more=has_more):
                self._agreed_until = num_served
            elif not self._next_round_of_all(num_served):
                self._is_over = True
                self._rounds.end()
        return False

    def _wait_for_outlook(self) -> bool:
        """Wait until it is known whether the own lanes have what another round needs: all of them, or any."""
        # One lane that has ended settles it, or one that has not.
        by_all = self._tail == "drop"
        settling = "none" if by_all else "more"
        with self._waiting("download") as wait:
            while True:
                self._raise_failure()
                outlooks = [self._board.outlook(lane) for lane in self._board.own]
                if settling in outlooks:
                    return not by_all
                if "unknown" not in outlooks:
                    return by_all
                for lane, outlook in zip(self._board.own, outlooks, strict=True):
                    if outlook == "unknown" and lane.failure is not None:
                        raise lane.failure
                # Whatever the memory: what lanes that have ended serve again may fill it, and come before them.
                self._decoding.ahead(first=self._board.heads())
                wait([lane.number for lane in self._board.own])

    def _next_round_of_all(self, num_served: int) -> bool:
        """Ask all ranks' lanes for more where a limit is not met; return whether the epoch goes on."""
        lengths = self._rounds.lengths(num_served, self._board.lengths) if self._board.quotas is not None else {}
        with self._lock:
            more = self._board.next_round(lengths)
            if not more.goes_on:
                self._board.end()
                self._no_more_wanted = True
            self._let_go_of_windows()
            self._intake.ask_for_more(more.lanes)
            return more.goes_on

    def _wait_for_head(self) -> Entry | None:
        """Wait until the next sample's window has arrived; return the sample, None when the epoch is over."""
        with self._waiting("download") as wait:
            while True:
                self._raise_failure()
                entry = self._board.head()
                if entry is not None:
                    return entry
                if self._board.all_lanes_done():
                    if self._tail != "skip":
                        raise self._nothing_to_serve()
                    if not self._next_round():
                        return None
                    continue
                blocking = self._board.blocking_lane()
                if blocking is not None and blocking.failure is not None:
                    raise blocking.failure
                wait(() if blocking is None else (blocking.number,))

    def _wait_for_frames(self, clip: ResidentClip) -> ClipMedia | None:
        """Wait until the head's frames are in memory; None where its clip turned out bad."""
        with self._waiting("download") as wait:
            while clip.problem is None and not clip.arrived:
                self._raise_failure()
                failure = self._board.lanes[clip.lane].failure
                if failure is not None:
                    raise failure
                wait((clip.lane,))
        with self._waiting("decode") as wait:
            while clip.problem is None:
                decoded = self._frames.get(clip)
                if decoded is not None:
                    return decoded
                self._raise_failure()
                self._decoding.ahead()
                wait()
        return None

    @contextlib.contextmanager
    def _waiting(self, stage: events.Stage) -> Iterator[Callable[..., None]]:
        """Give a way to wait for a change, of certain lanes if so, and tell how long the consumer waited in all."""
        started_s: float | None = None

        def wait(lanes: Sequence[int] = ()) -> None:
            nonlocal started_s
            started_s = time.monotonic() if started_s is None else started_s
            self._cancellation.raise_if_cancelled()
            self._arrived.wait(self._make_way(lanes, time.monotonic() - started_s))
            self._cancellation.raise_if_cancelled()

        try:
            yield wait
        finally:
            if started_s is not None:
                self._telemetry.emit(events.Stalled(stage=stage, wait_s=time.monotonic() - started_s))

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._arrived.notify_all()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _next_round(self) -> bool:
        """Ask lanes for more where a limit is not met and others fell short; return whether any gives more."""
        resumed = self._board.next_round().lanes
        self._no_more_wanted = not resumed
        self._intake.ask_for_more(resumed)
        return bool(resumed)

    def _nothing_to_serve(self) -> ConfigError:
        lanes = ", ".join(str(lane.number) for lane in self._board.own)
        return ConfigError(
            f"this rank has no sample to serve while others have: its lanes ({lanes}) gave none that can be used",
            "use fewer ranks, or give the lanes more: a smaller cut_size, or fewer lanes; the report names bad clips",
        )

    # ------------------------------------------------------------------ paths

    def _lend(self, served: Served) -> PathLease | None:
        """Give a sample the path of its clip, where samples hold that."""
        file = served.clip.file
        if self._paths is None or file is None:
            return None
        lease = self._paths.lend(served.position, file, self._cache.lease(file))
        # It may have ended others.
        self._intake.wake()
        return lease

    def _make_way(self, lanes: Sequence[int], waited_s: float) -> float | None:
        """End paths that keep a lane from going on, where that can be; return when to look again at the latest."""
        if self._paths is None:
            return None
        return self._paths.make_way(
            lambda: any(map(self._intake.is_short, lanes)), waited_s=waited_s, on_freed=self._intake.wake
        )

    def _wake_lanes(self) -> None:
        with self._lock:
            self._intake.wake()

    # ------------------------------------------------------------------ letting go

    def _release(self, served: Served) -> None:
        """Let go of what a served sample was the last use of."""
        if served.last_use:
            self._frames.drop(served.clip)
            if not self._options.keep_until_window_end:
                self._delete(served.clip)
        self._let_go_of_windows()

    def _let_go_of_windows(self) -> None:
        for lane, window in self._board.take_finished():
            for clip in window.clips:
                self._frames.drop(clip)
                self._delete(clip)
            self._intake.finish_window(lane, window.number)

    def _delete(self, clip: ResidentClip) -> None:
        """Let go of a clip's file, if it has one: it is deleted, unless it stays for the next epoch."""
        if not self._intake.let_go(clip):
            return
        self._clips_on_disk -= 1
        self._telemetry.emit(
            events.ClipDeleted(subset=clip.record.subset, path=clip.record.path, size_bytes=clip.size_bytes)
        )

    def _quarantine(self, clip: ResidentClip, reason: str) -> None:
        """Pass a clip over from here on, and stop the epoch where there are too many of its like."""
        self._board.quarantine(clip, reason)
        self._frames.drop(clip)
        self._delete(clip)
        self._let_go_of_windows()
        self._telemetry.emit(
            events.ClipQuarantined(
                subset=clip.record.subset,
                path=clip.record.path,
                num_samples=clip.record.num_samples,
                reason=reason,
            )
        )
        self._failure = self._failure or self._bad_clips.add(clip.name, reason)
        self._arrived.notify_all()

    # ------------------------------------------------------------------ the lanes' side

    def _read_lane(self, number: int, state: EpochState) -> None:
        lane = self._board.lanes[number]
        failure: Exception | None = None
        try:
            open_lane(
                number,
                self._plan,
                state,
                catalog=self._catalog,
                source=self._source,
                learned=self._learned,
                host=self,
                cancellation=self._cancellation,
            ).run()
        except Cancelled:
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, the consumer must hear of it
            failure = error
        with self._lock:
            lane.failure = failure
            lane.ended = failure is None
            self._intake.finish_reading(number)
            self._arrived.notify_all()

    def begin_range(self, lane: int, window: int) -> int:
        """Wait until a ranged read may begin; return its most bytes. See `LaneHost`."""
        return self._intake.begin_range(lane, window)

    def end_range(self, lane: int) -> None:
        """The ranged read has ended. See `LaneHost`."""
        self._intake.end_range(lane)

    def write(self, lane: int, window: int, member: IncomingClip, identity: str | None) -> ClipFile:
        """Wait for room, write the member and publish it. See `LaneHost`."""
        return self._intake.write(lane, window, member, identity)

    def quota(self, lane: int) -> int | None:
        """Return how many clips the lane may give in all; None for no end. See `LaneHost`."""
        with self._lock:
            return None if self._board.quotas is None else self._board.quotas[lane]

    def wait_for_quota(self, lane: int, num_clips: int) -> bool:
        """Wait until the lane may give more than `num_clips`; False when no more are wanted. See `LaneHost`."""
        with self._lock:
            self._board.lanes[lane].paused = True
            self._intake.finish_reading(lane)
            self._arrived.notify_all()
            with self._intake.pausing(lane):
                while self._board.quotas is not None and num_clips >= self._board.quotas[lane]:
                    if self._no_more_wanted:
                        return False
                    self._intake.wait()
            return True

    def survives(self, identity: str | None) -> bool:
        """Whether a killed run has left a clip. See `StreamingHost`."""
        return identity is not None and self._cache.has_survivor(identity)

    def meet(self, lane: int, clip: ResidentClip) -> None:
        """A clip is on disk, or known to be bad. See `StreamingHost`."""
        with self._lock:
            self._board.lanes[lane].num_clips += 1
            self._bad_clips.meet()
            if clip.problem is not None:
                self._quarantine(clip, clip.problem)
                return
            self._clips_on_disk += 1
        self._tell_arrival(lane, clip)

    def close_window(self, lane: int, window: Window) -> None:
        """A window has all its clips. See `StreamingHost`."""
        self._board.order_samples(lane, window)
        with self._lock:
            self._close_window(lane, window)

    def _close_window(self, lane: int, window: Window) -> None:
        for clip in self._board.close_window(lane, window):
            self._delete(clip)
        self._let_go_of_windows()
        self._decoding.ahead()
        self._arrived.notify_all()

    def learned(self, span: Span, rows: Sequence[IndexRow], bookmark: Bookmark | None) -> None:
        """Keep what is known of a span so far. See `StreamingHost`."""
        self._learned.learned(span, rows, bookmark)

    def finish_span(self, lane: int, result: SpanResult) -> None:
        """A span was read to its end, or a problem ended it. See `StreamingHost`."""
        self._results.take(lane, result)

    def announce(self, lane: int, window: Window) -> list[ResidentClip]:
        """A window begins whose clips are still to come. See `KnownHost`."""
        self._board.order_samples(lane, window)
        with self._lock:
            self._board.lanes[lane].num_clips += len(window.clips)
            self._close_window(lane, window)
            wanted = dict.fromkeys(window.clips[clip_number] for clip_number, _ in window.order[window.cursor :])
            if window.is_last and self._tail == "repeat":
                # Gone on with in its middle, its first samples are served again all the same.
                wanted |= dict.fromkeys(window.clips)
            return [clip for clip in wanted if clip.problem is None]

    def take_kept(self, lane: int, clip: ResidentClip, identity: str | None) -> bool:
        """Use a clip that is on disk already, if it is. See `KnownHost`."""
        if not self._intake.take_kept(lane, clip, identity):
            return False
        with self._lock:
            self._arrive(clip)
        assert clip.place is not None
        self._telemetry.emit(
            events.ClipReused(
                lane=lane,
                subset=clip.record.subset,
                path=clip.record.path,
                size_bytes=clip.size_bytes,
                saved_bytes=clip.place.row.range_bytes,
            )
        )
        return True

    def arrive(self, lane: int, clip: ResidentClip) -> None:
        """A clip of an announced window is there, or known to be bad. See `KnownHost`."""
        with self._lock:
            self._arrive(clip)
        if clip.problem is None:
            self._tell_arrival(lane, clip)

    def _arrive(self, clip: ResidentClip) -> None:
        self._bad_clips.meet()
        if clip.problem is not None:
            self._quarantine(clip, clip.problem)
            return
        self._clips_on_disk += 1
        self._board.arrive(clip)
        self._decoding.ahead(arrived=True)
        self._arrived.notify_all()

    def _tell_arrival(self, lane: int, clip: ResidentClip) -> None:
        self._telemetry.emit(
            events.ClipArrived(lane=lane, subset=clip.record.subset, path=clip.record.path, size_bytes=clip.size_bytes)
        )
