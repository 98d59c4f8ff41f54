"""What one lane's thread does: read its spans from front to back, and put the clips it meets into windows."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Protocol

from reelstream.archive import GunzipReader, Member, read_members
from reelstream.cache import ClipFile, allocated_bytes
from reelstream.cancel import Cancellation
from reelstream.catalog import Catalog
from reelstream.errors import ArchiveError
from reelstream.prefetch.state import LaneState
from reelstream.prefetch.windows import ResidentClip, Window
from reelstream.schedule import WindowFormer
from reelstream.types import Span


class SpanSource(Protocol):
    """Compressed bytes of archives; a protocol, since a Hub is one source of them and a test's dictionary another."""

    def read(self, span: Span, first_byte: int, end_byte: int, cancellation: Cancellation) -> Iterator[bytes]:
        """Yield the bytes [first_byte, end_byte) of the span's archive, surviving a bad network."""
        ...


class LaneHost(Protocol):
    """What a reader asks of the pipeline; each call may wait, and raises `Cancelled` when the epoch is called off."""

    def begin_range(self, lane: int, window: int) -> int:
        """Wait until a ranged read may begin; return its most bytes. `end_range` must follow."""
        ...

    def end_range(self, lane: int) -> None:
        """The ranged read has ended."""
        ...

    def quota(self, lane: int) -> int | None:
        """Return how many clips the lane may give in all; None for no end."""
        ...

    def wait_for_quota(self, lane: int, num_clips: int) -> bool:
        """Wait until the lane may give more than `num_clips`; return False when no more are wanted."""
        ...

    def write(self, lane: int, window: int, member: Member) -> ClipFile:
        """Wait for room, write the member and publish it."""
        ...

    def meet(self, lane: int, clip: ResidentClip) -> None:
        """A clip is on disk, or known to be bad."""
        ...

    def close_window(self, lane: int, window: Window) -> None:
        """A window has all its clips."""
        ...

    def finish_span(
        self, lane: int, span: Span, num_clips: int, num_unreferenced: int, problem: ArchiveError | None
    ) -> None:
        """A span was read to its end, or `problem` ended it; raises the problem where it shall end the epoch."""
        ...


class LaneReader:
    """Reads one lane from a place on; `run` is the body of its thread.

    Args:
        lane: Number of the lane.
        spans: All spans of the lane.
        state: Where its current window begins.
        former: Says where windows end; stands at the state's window.
        catalog: Says which members are clips.
        source: Where compressed bytes come from.
        host: Where clips and windows go to.
        cancellation: Calls the reading off.
    """

    def __init__(
        self,
        *,
        lane: int,
        spans: Sequence[Span],
        state: LaneState,
        former: WindowFormer,
        catalog: Catalog,
        source: SpanSource,
        host: LaneHost,
        cancellation: Cancellation,
    ) -> None:
        self._lane = lane
        self._spans = spans
        self._state = state
        self._former = former
        self._catalog = catalog
        self._source = source
        self._host = host
        self._cancellation = cancellation
        self._forming: Window | None = None
        self._num_clips = state.clips

    def run(self) -> None:
        """Read the lane to its end, or until no more clips are wanted of it.

        Raises:
            Cancelled: Where the epoch is called off.
            ReelstreamError: What ended the reading.
        """
        if not self._more_wanted():
            return
        for ordinal in range(self._state.span, len(self._spans)):
            if not self._read_span(ordinal):
                return
        if self._forming is not None:
            # Nothing follows: a state at the window's end shall not have the last span read again to find that out.
            self._forming.end_span, self._forming.end_member = len(self._spans), 0
            self._close_window()

    def _read_span(self, ordinal: int) -> bool:
        """Read one span; return False when no more clips are wanted: then no window is forming."""
        span = self._spans[ordinal]
        num_before = self._state.member if ordinal == self._state.span else 0
        met: set[int] = set()
        num_unreferenced = 0
        problem: ArchiveError | None = None
        chunks = self._chunks(span)
        try:
            for member in read_members(GunzipReader(chunks, span.archive.path), span.archive.path):
                clip = self._catalog.find(span.archive.subset, member.name)
                if clip is None:
                    num_unreferenced += 1
                elif clip not in met:  # a second member of the same name is passed over
                    met.add(clip)
                    if len(met) > num_before:
                        self._take(clip, member, ordinal, len(met))
                        if not self._more_wanted():
                            return False
        except ArchiveError as error:
            problem = error
        finally:
            chunks.close()
        self._host.finish_span(self._lane, span, len(met), num_unreferenced, problem)
        return True

    def _chunks(self, span: Span) -> Generator[bytes, None, None]:
        """Yield the span's bytes, by ranged reads that begin when there is room for what they bring."""
        position = span.first_byte
        while position < span.end_byte:
            size_bytes = self._host.begin_range(self._lane, self._former.window)
            end = min(position + size_bytes, span.end_byte)
            try:
                yield from self._source.read(span, position, end, self._cancellation)
            finally:
                self._host.end_range(self._lane)
            position = end

    def _take(self, number: int, member: Member, ordinal: int, num_met: int) -> None:
        """Put a member into its window."""
        self._cancellation.raise_if_cancelled()
        # Counted in 4 KiB blocks on every machine, so that windows do not depend on the file system.
        size_bytes = allocated_bytes(member.size_bytes)
        if self._former.closes_before(size_bytes):
            self._close_window()
        if self._forming is None:
            self._forming = Window(
                number=self._former.window, span=ordinal, member=num_met - 1, clips_before=self._num_clips
            )
        window = self._forming
        clip = ResidentClip(
            lane=self._lane,
            window=window.number,
            record=self._catalog.clip(number),
            rows=self._catalog.samples_of(number),
            size_bytes=member.size_bytes,
            file=None,
            problem=member.problem,
        )
        try:
            if member.problem is None:
                clip.file = self._host.write(self._lane, window.number, member)
        except ArchiveError:
            clip.problem = "cut short with its archive"
            raise
        finally:
            if clip.file is not None or clip.problem is not None:
                self._host.meet(self._lane, clip)
                window.clips.append(clip)
                window.end_span, window.end_member = ordinal, num_met
                self._num_clips += 1
        if self._former.add(size_bytes):
            self._close_window()

    def _more_wanted(self) -> bool:
        """Return whether the lane shall give another clip; its window ends where it must wait to be told."""
        quota = self._host.quota(self._lane)
        if quota is None or self._num_clips < quota:
            return True
        self._close_window()
        return self._host.wait_for_quota(self._lane, self._num_clips)

    def _close_window(self) -> None:
        window, self._forming = self._forming, None
        if window is not None:
            self._former.close()
            self._host.close_window(self._lane, window)
