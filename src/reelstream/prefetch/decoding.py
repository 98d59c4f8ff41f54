"""Clips loaded in the background, in the order in which their samples are needed."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from reelstream.cache import ClipCache, Lease
from reelstream.cancel import Cancellation, Cancelled
from reelstream.errors import DecodeError
from reelstream.prefetch.board import Board
from reelstream.prefetch.frames import MediaStore
from reelstream.prefetch.media import expected_bytes, load_media
from reelstream.prefetch.values import Decode, PipelineOptions
from reelstream.prefetch.windows import ResidentClip
from reelstream.telemetry import Telemetry, events
from reelstream.types import ClipMedia


class Decoding:
    """Takes of clips what samples hold of them, ahead as far as threads and memory allow. Shares its owner's lock.

    `now` and `close` are called without the lock; all else while it is held.

    Args:
        lock: The owner's.
        board: Says which clips are needed next.
        cache: Where they lie.
        options: How to work.
        telemetry: Who is told.
        decode: Gives a clip's frames; called from several threads at once.
        cancellation: Calls the work off.
        on_bad: Called with the lock, with a clip that cannot be decoded and why.
        on_change: Called with the lock, when something has come.
        on_failure: Called with the lock, with what else went wrong.
    """

    def __init__(
        self,
        *,
        lock: threading.Lock,
        board: Board,
        cache: ClipCache,
        options: PipelineOptions,
        telemetry: Telemetry,
        decode: Decode,
        cancellation: Cancellation,
        on_bad: Callable[[ResidentClip, str], None],
        on_change: Callable[[], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._lock = lock
        self._board = board
        self._cache = cache
        self._options = options
        self._telemetry = telemetry
        self._decode_file = decode
        self._cancellation = cancellation
        self._on_bad = on_bad
        self._on_change = on_change
        self._on_failure = on_failure
        self.frames = MediaStore(
            limit_bytes=options.decoded_memory_bytes,
            expected_bytes=lambda clip: expected_bytes(clip.size_bytes, options),
            most_in_flight=options.decode_threads,
        )
        """What is in memory."""
        self._decoded_ahead_of = -1
        self._threads = ThreadPoolExecutor(options.decode_threads, thread_name_prefix="reelstream-decode")

    def close(self) -> None:
        """Wait for the threads. What is queued runs, and ends its lease; called off, it decodes nothing."""
        self._threads.shutdown(wait=True)

    def ahead(self, *, arrived: bool = False, first: Iterable[ResidentClip] = ()) -> None:
        """Give the threads the clips that are needed next, as far as there are threads and memory.

        Args:
            arrived: Whether a clip has come whose samples were laid out before.
            first: Clips of which it must be known whether they can be decoded, before all others.
        """
        if self._cancellation.cancelled:
            return
        # First of all: only clips that are laid out have a next use.
        num_laid_out = self._board.lay_out()
        undecoded = [clip for clip in first if clip.arrived and clip.uses and not clip.decoded_before]
        if self._decoded_ahead_of == num_laid_out and not arrived and not undecoded:
            return
        chosen, is_all = self.frames.choose(itertools.chain(undecoded, self._board.coming_clips()))
        self._decoded_ahead_of = num_laid_out if is_all else -1
        for clip in chosen:
            assert clip.file is not None, f"{clip.name} is needed and not on disk"
            self._threads.submit(self._in_background, clip, self._cache.lease(clip.file))

    def now(self, clip: ResidentClip, lease: Lease) -> ClipMedia:
        """Take of a leased clip what samples hold of it, and end the lease.

        Raises:
            DecodeError: Where it cannot be decoded, or not to its end.
            Cancelled: Where the work was called off.
        """
        started_s = time.thread_time()
        with lease:
            self._cancellation.raise_if_cancelled()
            media = load_media(lease.path, self._options, self._decode_file)
        again, clip.decoded_before = clip.decoded_before, True
        self._telemetry.emit(
            events.ClipDecoded(
                subset=clip.record.subset,
                path=clip.record.path,
                num_frames=0 if media.decoded is None else len(media.decoded.frames),
                cpu_s=time.thread_time() - started_s,
                again=again,
            )
        )
        return media

    def _in_background(self, clip: ResidentClip, lease: Lease) -> None:
        try:
            media, reason = self._media_or_reason(clip, lease)
            with self._lock:
                if media is not None:
                    self.frames.put(clip, media)
                else:
                    self._on_bad(clip, reason)
                self.ahead()
                self._on_change()
        except Cancelled:
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, the consumer must hear of it
            with self._lock:
                self._on_failure(error)

    def _media_or_reason(self, clip: ResidentClip, lease: Lease) -> tuple[ClipMedia | None, str]:
        try:
            return self.now(clip, lease), ""
        except DecodeError as error:
            return None, error.fact
