"""One epoch in motion: readers for the lanes, decoders for the clips, and the consumer they work for.

```
lane threads ──► windows on disk ──► look-ahead ──► decode threads ──► frames in memory ──► next_sample()
   ▲  wait for room, connections          one order, whatever the timing                          │
   └──────────────────────────── files deleted after their last use ◄─────────────────────────────┘
```

All bookkeeping happens under one lock, with one condition that tells of every change; downloading, decompressing,
writing and decoding happen outside of it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from reelstream.archive import Member
from reelstream.cache import ClipCache, ClipFile, Lease, Room
from reelstream.cancel import Cancellation, Cancelled
from reelstream.catalog import Catalog
from reelstream.decode import decode_clip
from reelstream.errors import (
    ArchiveChecksumError,
    ArchiveError,
    BudgetTooSmallError,
    DecodeError,
    TooManyBadClipsError,
)
from reelstream.prefetch.board import Board, Served
from reelstream.prefetch.frames import FrameStore
from reelstream.prefetch.reader import LaneReader, SpanSource
from reelstream.prefetch.state import EpochState
from reelstream.prefetch.windows import ResidentClip, Window
from reelstream.schedule import WindowFormer, WindowLimits
from reelstream.telemetry import Telemetry, events
from reelstream.types import DecodedClip, FrameSampling, Position, Span
from reelstream.units import count, format_bytes

# Below this many clips a share of bad ones says little.
_FEWEST_CLIPS_JUDGED = 100
_MOST_BAD_LISTED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineOptions:
    """How an epoch is worked on; none of it changes the order."""

    frames: FrameSampling
    decode_threads: int
    decoded_memory_bytes: int
    connections: int
    """The most ranged reads at once."""
    max_bad_share: float
    """More quarantined clips than this share of those met (of 100 at least) stop the epoch."""
    stop_on_bad_archive: bool
    """Whether a damaged archive ends the epoch; else what it did not give is booked as without media."""
    keep_until_window_end: bool = False
    """Whether a clip may be asked for again after its last sample, until its window is used up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadySample:
    """A sample with its frames."""

    served: Served
    decoded: DecodedClip


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """What a pipeline holds at an instant."""

    clips_on_disk: int
    clips_bytes: int
    clips_decoded: int
    decoded_bytes: int
    samples_ready: int
    ranges_open: int


class EpochPipeline:
    """Serves one epoch's samples from a state on; a context manager that owns its threads.

    Args:
        lanes: The spans of each lane.
        state: Where to begin.
        catalog: All clips and samples.
        source: Where compressed bytes come from.
        cache: Where clips are written; nothing else is in it.
        room: The policy of the clip budget, at its beginning.
        disk_budget_bytes: The budget in all, to name one that works where this one does not.
        options: How to work.
        telemetry: Who is told.
    """

    def __init__(
        self,
        *,
        lanes: Sequence[Sequence[Span]],
        state: EpochState,
        catalog: Catalog,
        source: SpanSource,
        cache: ClipCache,
        room: Room,
        disk_budget_bytes: int,
        options: PipelineOptions,
        telemetry: Telemetry,
    ) -> None:
        self._catalog = catalog
        self._source = source
        self._cache = cache
        self._room = room
        self._disk_budget_bytes = disk_budget_bytes
        self._options = options
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._cancellation = Cancellation()
        self._board = Board(state)
        self._frames = FrameStore(
            limit_bytes=options.decoded_memory_bytes,
            estimate_bytes=options.frames.largest_size_bytes,
            most_in_flight=options.decode_threads,
        )
        self._ranges_open: set[int] = set()
        self._ranges_wanted: dict[int, int] = {}
        self._no_more_wanted = False
        self._clips_met = 0
        self._clips_bad = 0
        self._clips_on_disk = 0
        self._last_bad: deque[str] = deque(maxlen=_MOST_BAD_LISTED)
        self._failure: Exception | None = None
        self._threads = [
            threading.Thread(
                target=self._read_lane,
                args=(number, list(spans), state),
                name=f"reelstream-lane-{number}",
                # A script that ends without closing must not hang; the folder's leftovers are reclaimed.
                daemon=True,
            )
            for number, spans in enumerate(lanes)
        ]
        self._decoders = ThreadPoolExecutor(options.decode_threads, thread_name_prefix="reelstream-decode")
        self._close_lock = threading.Lock()
        self._closed = False

    # ------------------------------------------------------------------ life

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def cancel(self) -> None:
        """Call off all work, from any thread; whoever waits in `next_sample` gets `Cancelled`. `close` must follow."""
        self._cancellation.cancel()
        with self._lock:
            self._changed.notify_all()

    def close(self) -> None:
        """Call off all work, wait for the threads, delete the clips; a second call does nothing."""
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
            self.cancel()
            for thread in self._threads:
                if thread.ident is not None:
                    thread.join()
            self._decoders.shutdown(wait=True, cancel_futures=True)
            self._cache.clear()

    # ------------------------------------------------------------------ the consumer

    def next_sample(self) -> ReadySample | None:
        """Return the next sample of the epoch with its frames; None when the epoch is over.

        Waits for what is needed, and tells telemetry for how long and for what.

        Raises:
            ReelstreamError: What ended the reading or the decoding.
            TooManyBadClipsError: Where more clips are bad than may be.
        """
        with self._lock:
            while (clip := self._wait_for_head()) is not None:
                decoded = self._wait_for_frames(clip)
                if decoded is not None:
                    served = self._board.serve()
                    self._release(served)
                    self._decode_ahead()
                    self._changed.notify_all()
                    return ReadySample(served=served, decoded=decoded)
            return None

    def frames_again(self, clip: ResidentClip) -> DecodedClip:
        """Return the frames of a clip that was served and is still on disk, decoding them again where needed."""
        with self._lock:
            decoded = self._frames.get(clip)
            if decoded is not None:
                return decoded
            assert clip.file is not None, f"{clip.name} is no longer on disk"
            lease = self._cache.lease(clip.file)
        return self._decode(clip, lease)

    def state_after(self, position: Position | None) -> EpochState:
        """Return the state once everything up to and including `position` is consumed; see `Board.state_after`."""
        with self._lock:
            return self._board.state_after(position)

    def gauges(self) -> Gauges:
        """Return what is held now."""
        with self._lock:
            return Gauges(
                clips_on_disk=self._clips_on_disk,
                clips_bytes=self._cache.used_bytes,
                clips_decoded=self._frames.num_decoded,
                decoded_bytes=self._frames.used_bytes,
                samples_ready=sum(lane.ready for lane in self._board.lanes),
                ranges_open=len(self._ranges_open),
            )

    def _wait_for_head(self) -> ResidentClip | None:
        """Wait until the next sample's window has arrived; return its clip, None when the epoch is over."""
        with self._waiting("download") as wait:
            while True:
                self._raise_failure()
                entry = self._board.head()
                if entry is not None:
                    return entry.clip
                if self._board.all_lanes_done():
                    if not self._next_round():
                        return None
                    continue
                blocking = self._board.blocking_lane()
                if blocking is not None and blocking.failure is not None:
                    raise blocking.failure
                wait()

    def _wait_for_frames(self, clip: ResidentClip) -> DecodedClip | None:
        """Wait until the head's frames are in memory; None where its clip turned out bad."""
        with self._waiting("decode") as wait:
            while clip.problem is None:
                decoded = self._frames.get(clip)
                if decoded is not None:
                    return decoded
                self._raise_failure()
                self._decode_ahead()
                wait()
        return None

    @contextlib.contextmanager
    def _waiting(self, stage: events.Stage) -> Iterator[Callable[[], None]]:
        """Give a way to wait for a change, and tell how long the consumer waited in all."""
        started_s: float | None = None

        def wait() -> None:
            nonlocal started_s
            started_s = time.monotonic() if started_s is None else started_s
            self._wait()

        try:
            yield wait
        finally:
            if started_s is not None:
                self._telemetry.emit(events.Stalled(stage=stage, wait_s=time.monotonic() - started_s))

    def _wait(self) -> None:
        """Let others change something. The lock is held before and after."""
        self._cancellation.raise_if_cancelled()
        self._changed.wait()
        self._cancellation.raise_if_cancelled()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _next_round(self) -> bool:
        """Ask lanes for more where a limit is not met and others fell short; return whether any gives more."""
        resumed = self._board.next_round()
        for lane in resumed:
            self._room.resume_reading(lane)
        self._no_more_wanted = not resumed
        self._changed.notify_all()
        return bool(resumed)

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
            self._room.finish_window(lane, window.number)

    def _delete(self, clip: ResidentClip) -> None:
        file, clip.file = clip.file, None
        if file is None:
            return
        self._cache.delete(file)
        self._room.free(clip.lane, clip.window, file.reserved_bytes)
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
        self._clips_bad += 1
        self._telemetry.emit(
            events.ClipQuarantined(
                subset=clip.record.subset,
                path=clip.record.path,
                num_samples=clip.record.num_samples,
                reason=reason,
            )
        )
        self._last_bad.append(f"{clip.name}: {reason}")
        if self._clips_bad > self._options.max_bad_share * max(self._clips_met, _FEWEST_CLIPS_JUDGED):
            self._failure = TooManyBadClipsError(
                f"{count(self._clips_bad, 'clip')} of {self._clips_met:,} are bad, more than max_bad_share = "
                f"{self._options.max_bad_share} allows; the last of them:\n  " + "\n  ".join(self._last_bad),
                "look at these clips; raise max_bad_share where they are to be expected",
            )

    # ------------------------------------------------------------------ decoding

    def _decode_ahead(self) -> None:
        """Give the decoders the clips that are needed next, as far as threads and memory allow."""
        if self._cancellation.cancelled:
            return
        for clip in self._frames.choose(self._board.coming_clips()):
            assert clip.file is not None, f"{clip.name} is needed and not on disk"
            self._decoders.submit(self._decode_in_background, clip, self._cache.lease(clip.file))

    def _decode_in_background(self, clip: ResidentClip, lease: Lease) -> None:
        decoded: DecodedClip | None = None
        reason = ""
        failure: Exception | None = None
        try:
            decoded = self._decode(clip, lease)
        except DecodeError as error:
            reason = error.fact
        except Exception as error:  # noqa: BLE001 - whatever it is, the consumer must hear of it
            failure = error
        with self._lock:
            if decoded is not None:
                self._frames.put(clip, decoded)
            elif failure is not None:
                self._failure = failure
            else:
                self._quarantine(clip, reason)
            self._decode_ahead()
            self._changed.notify_all()

    def _decode(self, clip: ResidentClip, lease: Lease) -> DecodedClip:
        """Decode a leased clip and end the lease.

        Raises:
            DecodeError: Where it cannot be decoded, or not to its end.
        """
        started_s = time.thread_time()
        with lease:
            decoded = decode_clip(lease.path, self._options.frames)
        if decoded.truncated:
            raise DecodeError("cut short: its frames end well before the duration that it names")
        again, clip.decoded_before = clip.decoded_before, True
        self._telemetry.emit(
            events.ClipDecoded(
                subset=clip.record.subset,
                path=clip.record.path,
                num_frames=len(decoded.frames),
                cpu_s=time.thread_time() - started_s,
                again=again,
            )
        )
        return decoded

    # ------------------------------------------------------------------ the lanes' side

    def _read_lane(self, number: int, spans: Sequence[Span], state: EpochState) -> None:
        settings, lane_state = state.settings, state.lanes[number]
        lane = self._board.lanes[number]
        failure: Exception | None = None
        try:
            LaneReader(
                lane=number,
                spans=spans,
                state=lane_state,
                former=WindowFormer(
                    lane=number,
                    num_lanes=settings.num_lanes,
                    limits=WindowLimits(clips=settings.window_clips, size_bytes=settings.window_bytes),
                    window=lane_state.window,
                ),
                catalog=self._catalog,
                source=self._source,
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
            self._room.finish_reading(number)
            self._changed.notify_all()

    def begin_range(self, lane: int, window: int) -> int:
        """Wait until a ranged read may begin; return its most bytes. See `LaneHost`."""
        with self._lock:
            self._ranges_wanted[lane] = window
            while not (size_bytes := self._range_granted(lane)):
                self._wait()
            del self._ranges_wanted[lane]
            self._ranges_open.add(lane)
            self._room.announce(lane, size_bytes)
            return size_bytes

    def _range_granted(self, lane: int) -> int:
        """Return the bytes that a lane may ask for now: those first whose samples run out first."""
        if len(self._ranges_open) >= self._options.connections:
            return 0
        sizes = {other: self._room.next_range_bytes(other, at) for other, at in self._ranges_wanted.items()}
        ready = [(self._board.lanes[other].ready, other) for other, size_bytes in sizes.items() if size_bytes]
        return sizes[lane] if ready and min(ready)[1] == lane else 0

    def end_range(self, lane: int) -> None:
        """The ranged read has ended. See `LaneHost`."""
        with self._lock:
            self._ranges_open.discard(lane)
            self._room.announce(lane, 0)
            self._changed.notify_all()

    def quota(self, lane: int) -> int | None:
        """Return how many clips the lane may give in all; None for no end. See `LaneHost`."""
        with self._lock:
            return None if self._board.quotas is None else self._board.quotas[lane]

    def wait_for_quota(self, lane: int, num_clips: int) -> bool:
        """Wait until the lane may give more than `num_clips`; False when no more are wanted. See `LaneHost`."""
        with self._lock:
            while self._board.quotas is not None and num_clips >= self._board.quotas[lane]:
                if self._no_more_wanted:
                    return False
                if not self._board.lanes[lane].paused:
                    self._board.lanes[lane].paused = True
                    self._room.finish_reading(lane)
                    self._changed.notify_all()
                self._wait()
            return True

    def write(self, lane: int, window: int, member: Member) -> ClipFile:
        """Wait for room, write the member and publish it. See `LaneHost`."""
        cost_bytes = self._cache.cost_bytes(member.size_bytes)
        if cost_bytes > self._room.largest_clip_bytes:
            raise self._too_large(member, cost_bytes)
        with self._lock:
            while not (self._room.may_admit(lane, window, cost_bytes) and self._cache.try_reserve(member.size_bytes)):
                self._wait()
            self._room.admit(lane, window, cost_bytes)
        try:
            return self._cache.write(member.size_bytes, member.chunks())
        except BaseException:
            with self._lock:
                self._room.free(lane, window, cost_bytes)
            raise

    def _too_large(self, member: Member, cost_bytes: int) -> BudgetTooSmallError:
        missing_bytes = self._room.smallest_budget_for(cost_bytes) - self._room.clip_budget_bytes
        smallest_mb = -(-(self._disk_budget_bytes + missing_bytes) // 10**6)
        return BudgetTooSmallError(
            f"the clip {member.name} has {format_bytes(member.size_bytes)}; with {self._room.num_lanes} lanes the clip "
            f"budget of {format_bytes(self._room.clip_budget_bytes)} works with clips up to "
            f"{format_bytes(self._room.largest_clip_bytes)}",
            f"set disk_budget to {smallest_mb}MB or more, or use fewer lanes",
        )

    def meet(self, lane: int, clip: ResidentClip) -> None:
        """A clip is on disk, or known to be bad. See `LaneHost`."""
        with self._lock:
            self._board.lanes[lane].num_clips += 1
            self._clips_met += 1
            if clip.problem is not None:
                self._quarantine(clip, clip.problem)
                return
            self._clips_on_disk += 1
        self._telemetry.emit(
            events.ClipArrived(lane=lane, subset=clip.record.subset, path=clip.record.path, size_bytes=clip.size_bytes)
        )

    def close_window(self, lane: int, window: Window) -> None:
        """A window has all its clips. See `LaneHost`."""
        with self._lock:
            for clip in self._board.close_window(lane, window):
                self._delete(clip)
            self._let_go_of_windows()
            self._decode_ahead()
            self._changed.notify_all()

    def finish_span(
        self, lane: int, span: Span, num_clips: int, num_unreferenced: int, problem: ArchiveError | None
    ) -> None:
        """A span was read to its end, or `problem` ended it. See `LaneHost`."""
        if problem is not None:
            if self._options.stop_on_bad_archive and not isinstance(problem, ArchiveChecksumError):
                hint = f"{problem.hint}; set on_bad_archive to skip to go on without what it does not give"
                raise ArchiveError(problem.fact, hint) from problem
            self._telemetry.emit(events.ArchiveSuspect(path=span.archive.path, reason=problem.fact))
        self._telemetry.emit(
            events.SpanFinished(
                lane=lane, path=span.archive.path, num_clips=num_clips, num_unreferenced=num_unreferenced
            )
        )
