"""What a lane's thread does where the members of its spans are known: each window is announced, and then fetched.

Since it is known which clips a window has, its samples' order is drawn before a byte of it is fetched; the clip that is
used first comes first, and is served while the others come. What is on disk already is not fetched.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

from reelstream.archive import IndexRow, RangedMember, RequestCosts, WantedRange, plan_requests, read_rows
from reelstream.cache import allocated_bytes
from reelstream.cancel import Cancellation
from reelstream.catalog import Catalog
from reelstream.errors import ArchiveError
from reelstream.prefetch.lanes.host import ArchiveSource, KnownHost, identity_of
from reelstream.prefetch.lanes.paced import PacedSource
from reelstream.prefetch.state import LaneState
from reelstream.prefetch.windows import KnownPlace, ResidentClip, Window
from reelstream.schedule import WindowFormer
from reelstream.types import Archive, Span

# What two clips may have between them to come in one request: as long as asking anew takes at 10 MB/s.
_COSTS = RequestCosts(latency_s=0.05, bandwidth_bytes_per_s=10_000_000)

RowOf = Callable[[Archive, int], IndexRow]
"""Gives a known row of an archive by its number: of a hard link, the row that holds its bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fetch:
    """One request, and the clips it brings, in the order they lie."""

    archive: Archive
    clips: tuple[ResidentClip, ...]


@dataclass(frozen=True, slots=True)
class _Incoming:
    """A ranged member as the pipeline takes it."""

    member: RangedMember

    @property
    def name(self) -> str:
        return self.member.row.name

    @property
    def size_bytes(self) -> int:
        return self.member.row.size_bytes

    @property
    def digest(self) -> bytes:
        return self.member.row.digest

    def chunks(self) -> Iterator[memoryview]:
        return self.member.chunks()


class KnownLane:
    """Serves one lane from a place on; `run` is the body of its thread.

    Args:
        lane: Number of the lane.
        spans: All blocks of the lane.
        state: Where its current window begins.
        former: Says where windows end; stands at the state's window.
        catalog: All clips.
        source: Where compressed bytes come from.
        row_of: Gives the rows of the blocks' members.
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
        row_of: RowOf,
        host: KnownHost,
        cancellation: Cancellation,
    ) -> None:
        self._lane = lane
        self._spans = spans
        self._state = state
        self._former = former
        self._catalog = catalog
        self._source = source
        self._row_of = row_of
        self._host = host
        self._cancellation = cancellation
        self._num_clips = state.clips

    def run(self) -> None:
        """Serve the lane to its end, or until no more clips are wanted of it.

        Raises:
            Cancelled: Where the epoch is called off.
            ReelstreamError: What ended the fetching.
        """
        for window in self._windows():
            self._cancellation.raise_if_cancelled()
            wanted = self._host.announce(self._lane, window)
            missing = [clip for clip in wanted if not self._host.take_kept(self._lane, clip, _identity(clip))]
            for fetch in self._planned(missing):
                self._fetch(fetch)

    # ------------------------------------------------------------------ what is in a window

    def _windows(self) -> Iterator[Window]:
        """Yield the windows of the lane, from the state's on, as far as its quota goes.

        A full one comes once it is known whether another clip follows.
        """
        window: Window | None = None
        is_full = False
        for ordinal, place in self._places():
            quota = self._host.quota(self._lane)
            if quota is not None and self._num_clips >= quota:
                if window is not None:
                    yield self._closed(window, is_last=True)
                    window, is_full = None, False
                if not self._host.wait_for_quota(self._lane, self._num_clips):
                    return
            clip = self._clip(self._spans[ordinal], place)
            size_bytes = allocated_bytes(clip.size_bytes)
            if window is not None and (is_full or self._former.closes_before(size_bytes)):
                yield self._closed(window)
                window = None
            if window is None:
                window = Window(number=self._former.window, span=ordinal, member=place, clips_before=self._num_clips)
            clip.window = window.number
            window.clips.append(clip)
            window.end_span, window.end_member = ordinal, place + 1
            self._num_clips += 1
            is_full = self._former.add(size_bytes)
        if window is not None:
            yield self._closed(window, is_last=True)

    def _closed(self, window: Window, *, is_last: bool = False) -> Window:
        self._former.close()
        window.is_last = is_last
        return window

    def _places(self) -> Iterator[tuple[int, int]]:
        """Yield (ordinal of the block, place in it) of each clip that is still to come."""
        for ordinal in range(self._state.span, len(self._spans)):
            first = self._state.member if ordinal == self._state.span else 0
            for place in range(first, len(self._spans[ordinal].clips)):
                yield ordinal, place

    def _clip(self, span: Span, place: int) -> ResidentClip:
        number = span.clips[place]
        row = self._row_of(span.archive, span.rows[place])
        return ResidentClip(
            lane=self._lane,
            window=self._former.window,
            record=self._catalog.clip(number),
            rows=self._catalog.samples_of(number),
            size_bytes=row.size_bytes,
            file=None,
            place=KnownPlace(archive=span.archive, row=row),
        )

    # ------------------------------------------------------------------ fetching it

    def _planned(self, wanted: Sequence[ResidentClip]) -> list[_Fetch]:
        """Return the requests that bring these clips, the ones that are needed first at first.

        Args:
            wanted: Clips of a window, in the order of their first use.
        """
        urgency = {clip: place for place, clip in enumerate(wanted)}
        by_archive: dict[Archive, list[ResidentClip]] = {}
        for clip in wanted:
            by_archive.setdefault(_place(clip).archive, []).append(clip)
        fetches: list[_Fetch] = []
        for archive, clips in by_archive.items():
            ranges = [
                WantedRange(number=number, first_byte=row.first_byte, end_byte=row.first_byte + row.range_bytes)
                for number, row in enumerate(_place(clip).row for clip in clips)
            ]
            for request in plan_requests(ranges, _COSTS):
                chosen = sorted((clips[number] for number in request.numbers), key=_data_offset)
                fetches.append(_Fetch(archive=archive, clips=tuple(chosen)))
        return sorted(fetches, key=lambda fetch: min(urgency[clip] for clip in fetch.clips))

    def _fetch(self, fetch: _Fetch) -> None:
        """Bring some clips; what does not come out right is asked for once more, by itself."""
        missing = self._brought(fetch)
        for clip in missing:
            alone = dataclasses.replace(fetch, clips=(clip,))
            for _ in self._brought(alone, last_try=True):
                raise AssertionError("a clip that was given up is missing still")

    def _brought(self, fetch: _Fetch, *, last_try: bool = False) -> list[ResidentClip]:
        """Bring clips by one request; return those that failed, or came after one that did."""
        source = PacedSource(
            fetch.archive,
            self._source,
            host=self._host,
            lane=self._lane,
            window=lambda: fetch.clips[0].window,
            cancellation=self._cancellation,
        )
        # Two names may share their bytes: then the second one comes by itself.
        by_row: dict[int, ResidentClip] = {}
        twins: list[ResidentClip] = []
        for clip in fetch.clips:
            if _data_offset(clip) in by_row:
                twins.append(clip)
            else:
                by_row[_data_offset(clip)] = clip
        left = list(by_row.values())
        try:
            with contextlib.closing(_ranged(source, [_place(clip).row for clip in left])) as members:
                for member in members:
                    clip = left[0]
                    clip.file = self._host.write(self._lane, clip.window, _Incoming(member), _identity(clip))
                    left.pop(0)
                    self._host.arrive(self._lane, clip)
        except ArchiveError as error:
            if last_try:
                clip = left.pop(0)
                clip.problem = error.fact
                self._host.arrive(self._lane, clip)
        return left + twins


def _ranged(source: PacedSource, rows: Sequence[IndexRow]) -> Generator[RangedMember, None, None]:
    yield from read_rows(source, rows)


def _place(clip: ResidentClip) -> KnownPlace:
    assert clip.place is not None, f"nobody knows where {clip.name} lies"
    return clip.place


def _identity(clip: ResidentClip) -> str | None:
    place = _place(clip)
    return identity_of(place.archive, place.row.name)


def _data_offset(clip: ResidentClip) -> int:
    return _place(clip).row.data_offset
