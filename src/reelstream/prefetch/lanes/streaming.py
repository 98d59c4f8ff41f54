"""What a lane's thread does where the members of its spans are unknown: it takes them as they lie, front to back."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

from reelstream.archive.cuts.report import CutReport
from reelstream.cache import allocated_bytes
from reelstream.cancel import Cancellation
from reelstream.catalog import Catalog
from reelstream.errors import ArchiveError
from reelstream.prefetch.lanes.host import ArchiveSource, SpanResult, StreamingHost, identity_of
from reelstream.prefetch.lanes.known_part import KnownPart
from reelstream.prefetch.lanes.paced import PacedSource
from reelstream.prefetch.lanes.reading import AnyMember, RowMember, SpanReading
from reelstream.prefetch.state import LaneState, Mark
from reelstream.prefetch.windows import ResidentClip, Window
from reelstream.schedule import WindowFormer
from reelstream.types import Span

# A ranged read for the last clips of a quota asks for a little more than they have on average.
_QUOTA_MARGIN_BYTES = 1 << 18

# What is learned of a span is written anew as it grows: this share of a lane's time may go into it.
_MOST_KEEPING_SHARE = 0.03
# And as often as it has grown by this much, however little time that took: a span that is read in a second has marks
# too. All of that together is as much as is written five times.
_KEPT_ANEW_GROWTH = 1.25

_CUT_SHORT = "cut short with its archive"

FindKnownPart = Callable[[Span, Mark | None], KnownPart | None]
"""Gives what a run before this one has learned of a span, which is gone on with at a mark or at its beginning."""


class StreamingLane:
    """Reads one lane from a place on; `run` is the body of its thread.

    Args:
        lane: Number of the lane.
        spans: All spans of the lane.
        state: Where its current window begins.
        former: Says where windows end; stands at the state's window.
        catalog: Says which members are clips.
        source: Where compressed bytes come from.
        later_cuts: Tells where the cuts of an archive begin that come after a span.
        known_part: Gives what was learned of a span that is gone on with.
        mean_clip_bytes: Tells the mean size of a clip of a span's archive.
        tells_last: Whether a full window is closed, and a quota is met, only once it is known whether another clip
            follows: a lane's last window must be known as such.
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
        source: ArchiveSource,
        later_cuts: Callable[[Span], Sequence[int]],
        known_part: FindKnownPart,
        mean_clip_bytes: Callable[[Span], float],
        tells_last: bool,
        host: StreamingHost,
        cancellation: Cancellation,
    ) -> None:
        self._lane = lane
        self._spans = spans
        self._state = state
        self._former = former
        self._catalog = catalog
        self._source = source
        self._later_cuts = later_cuts
        self._known_part = known_part
        self._mean_clip_bytes = mean_clip_bytes
        self._tells_last = tells_last
        self._host = host
        self._cancellation = cancellation
        self._reading: SpanReading | None = None
        self._forming: Window | None = None
        self._is_full = False
        self._recent: list[Window] = []
        self._mark: tuple[int, Mark] | None = None
        self._reports: list[tuple[str, CutReport]] = []
        self._num_clips = state.clips
        self._is_resumed = state.slot > 0
        self._num_kept = 0
        self._keep_next_s = 0.0

    def run(self) -> None:
        """Read the lane to its end, or until no more clips are wanted of it.

        Raises:
            Cancelled: Where the epoch is called off.
            ReelstreamError: What ended the reading.
        """
        if not self._tells_last and not self._more_wanted():
            return
        try:
            for ordinal in range(self._state.span, len(self._spans)):
                if not self._read_span(ordinal):
                    return
        finally:
            self._stop_reading()
        if self._forming is not None:
            # Nothing follows: a state at the window's end shall not have the last span read again to find that out.
            self._forming.end_span, self._forming.end_member, self._forming.end_mark = len(self._spans), 0, None
            self._close_window(is_last=True)

    def _read_span(self, ordinal: int) -> bool:
        """Read one span; return False when no more clips are wanted: then no window is forming."""
        span = self._spans[ordinal]
        num_before = self._state.member if ordinal == self._state.span else 0
        try:
            reading, num_met = self._begin(span, ordinal)
        except ArchiveError as error:
            # A zip without a directory is known to be damaged before any member of it.
            self._host.finish_span(self._lane, _unreadable(span, error))
            return True
        clips: list[int] = []
        num_unreferenced = 0
        problem: ArchiveError | None = None
        try:
            for member in reading.members():
                clip = self._catalog.find(span.archive.subset, member.name)
                if clip is None:
                    num_unreferenced += 1
                    continue
                reading.note_clip(member, num_met)
                num_met += 1
                clips.append(clip)
                is_taken = num_met > num_before
                if is_taken and not self._take(clip, member, ordinal, num_met):
                    return False
                self._note_marks(reading, ordinal)
                if is_taken and not self._tells_last and not self._more_wanted():
                    return False
        except ArchiveError as error:
            problem = error
        self._note_marks(reading, ordinal)
        result = reading.result(clips=clips, num_unreferenced=num_unreferenced, problem=problem)
        if result.report is not None:
            self._reports.append((span.archive.path, result.report))
        if problem is not None:
            self._stop_reading()
        self._host.finish_span(self._lane, result)
        if result.rows is not None:
            # All of them are kept now.
            self._num_kept = len(result.rows)
            self._note_marks(reading, ordinal)
        return True

    def _begin(self, span: Span, ordinal: int) -> tuple[SpanReading, int]:
        """Return a reading of the span, and how many of its clips lie before where it begins."""
        self._num_kept = 0
        if self._reading is not None and self._reading.go_on_into(span):
            return self._reading, 0
        self._stop_reading()
        mark = self._state.mark if ordinal == self._state.span else None
        source = PacedSource(
            span.archive,
            self._source,
            host=self._host,
            lane=self._lane,
            window=lambda: self._former.window,
            most_bytes=lambda: self._most_bytes(span),
            cancellation=self._cancellation,
        )
        self._reading = SpanReading(
            span,
            source,
            later_cuts=self._later_cuts(span),
            mark=mark,
            known=self._useful_part(span, mark),
        )
        return self._reading, mark.clips if mark else 0

    def _useful_part(self, span: Span, mark: Mark | None) -> KnownPart | None:
        """Return what is known of a span, where that saves bytes: members ahead come from disk, or singly by range."""
        known = self._known_part(span, mark) if self._is_resumed else None
        if known is None:
            return None
        survive = (row for row in known.ahead if self._host.survives(identity_of(span.archive, row.name)))
        surviving_bytes = sum(row.size_bytes for row in survive)
        if 2 * surviving_bytes >= sum(row.size_bytes for row in known.ahead) > 0:
            return known
        return dataclasses.replace(known, ahead=(), bookmark=None, report=None) if mark else None

    def _stop_reading(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.close()

    def _most_bytes(self, span: Span) -> int | None:
        """Return about how many bytes the lane's quota is still worth; None where it has none."""
        quota = self._host.quota(self._lane)
        if quota is None:
            return None
        return int((quota - self._num_clips) * self._mean_clip_bytes(span)) + _QUOTA_MARGIN_BYTES

    def _take(self, number: int, member: AnyMember, ordinal: int, num_met: int) -> bool:
        """Put a member into its window; return False where no more clips are wanted, and this is one too many."""
        self._cancellation.raise_if_cancelled()
        # With another clip at hand it is known that the lane has not ended.
        if self._tells_last and not self._more_wanted():
            return False
        # Counted in 4 KiB blocks on every machine, so that windows do not depend on the file system.
        size_bytes = allocated_bytes(member.size_bytes)
        if self._is_full or self._former.closes_before(size_bytes):
            self._close_window()
        if self._forming is None:
            self._forming = self._new_window(ordinal, num_met - 1)
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
                identity = identity_of(self._spans[ordinal].archive, member.name)
                clip.file = self._host.write(self._lane, window.number, member, identity)
        except ArchiveError as error:
            clip.problem = f"its bytes cannot be had: {error.fact}" if isinstance(member, RowMember) else _CUT_SHORT
            if not isinstance(member, RowMember):
                raise
        finally:
            if clip.file is not None or clip.problem is not None:
                self._host.meet(self._lane, clip)
                window.clips.append(clip)
                if window.end_span != ordinal:
                    # What is known so far is a place in the span before.
                    window.end_mark = self._latest_mark(ordinal)
                window.end_span, window.end_member = ordinal, num_met
                self._num_clips += 1
        self._is_full = self._former.add(size_bytes)
        if self._is_full and not self._tells_last:
            self._close_window()
        return True

    def _new_window(self, ordinal: int, num_before: int) -> Window:
        mark = self._latest_mark(ordinal)
        window = Window(
            number=self._former.window,
            span=ordinal,
            member=num_before,
            clips_before=self._num_clips,
            end_span=ordinal,
            end_member=num_before,
            mark=mark,
            end_mark=mark,
            reports_before=self._reports,
        )
        self._reports = []
        self._recent = [*self._recent[-1:], window]
        return window

    def _latest_mark(self, ordinal: int) -> Mark | None:
        """Return from where the next clip of a span can be read, as far as that is known."""
        if self._mark is not None and self._mark[0] == ordinal:
            return self._mark[1]
        return self._state.mark if ordinal == self._state.span else None

    def _note_marks(self, reading: SpanReading, ordinal: int) -> None:
        """Note from where windows can be read again: from the last clip at or before each that is known so far.

        Known, and kept: else a run that goes on there would miss rows of the archive's index, and so might have to read
        other spans in its next epoch than one that was never interrupted.
        """
        self._keep_learned()
        for mark in reading.take_marks(self._num_kept if reading.all_known else None):
            self._mark = (ordinal, mark)
            for window in self._recent:
                if window.span == ordinal and mark.clips <= window.member:
                    window.mark = mark
                if window.end_span == ordinal and mark.clips <= window.end_member:
                    window.end_mark = mark

    def _keep_learned(self) -> None:
        """Have the rows kept that are known so far, as often as takes little time in all."""
        reading = self._reading
        if reading is None or not reading.all_known or len(reading.rows) == self._num_kept:
            return
        started_s = time.monotonic()
        if started_s >= self._keep_next_s or len(reading.rows) >= self._num_kept * _KEPT_ANEW_GROWTH:
            self._host.learned(reading.span, reading.rows, reading.bookmark)
            ended_s = time.monotonic()
            self._num_kept = len(reading.rows)
            self._keep_next_s = ended_s + (ended_s - started_s) / _MOST_KEEPING_SHARE

    def _more_wanted(self) -> bool:
        """Return whether the lane shall give another clip; its window ends where it must wait to be told."""
        quota = self._host.quota(self._lane)
        if quota is None or self._num_clips < quota:
            return True
        self._close_window(is_last=True)
        return self._host.wait_for_quota(self._lane, self._num_clips)

    def _close_window(self, *, is_last: bool = False) -> None:
        window, self._forming = self._forming, None
        self._is_full = False
        if window is None:
            return
        window.is_last = is_last
        window.reports, self._reports = self._reports, []
        self._former.close()
        self._host.close_window(self._lane, window)


def _unreadable(span: Span, problem: ArchiveError) -> SpanResult:
    """Return what came of a span that could not even be begun."""
    return SpanResult(
        span=span,
        clips=(),
        num_unreferenced=0,
        report=None,
        rows=None,
        bookmark=None,
        sha256=None,
        index=None,
        problem=problem,
    )
