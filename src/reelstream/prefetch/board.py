"""Which sample is served next, which clips are needed soon, and what has been consumed: an epoch's one order.

Pure bookkeeping: windows go in as the lanes' readers close them, samples come out in the schedule's order whatever the
timing, and each served sample leaves a step in a journal from which the state at any consumed position is built.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reelstream.archive.cuts.report import CutReport
from reelstream.errors import StateError
from reelstream.prefetch.state import EpochState, LaneState
from reelstream.prefetch.windows import Lane, ResidentClip, Window
from reelstream.schedule import OrderDigest, lane_quotas, sample_order
from reelstream.types import Position

# How far the order is laid out ahead: at least the half of it, all of it when that is short. More would only take
# memory; one sample at a time would have all of it walked through at each.
_LONGEST_LOOK_AHEAD = 4096
# Samples that were handed out and whose consumption nobody has told of; older ones are taken as consumed.
_LONGEST_JOURNAL = 1 << 16


@dataclass(frozen=True, slots=True)
class Entry:
    """A coming sample."""

    place: int
    """Ascending along the look-ahead; comparable between clips."""
    lane: Lane
    window: Window
    index: int
    """Place in the window's order."""
    clip: ResidentClip


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A sample that was handed out."""

    position: Position
    clip: ResidentClip
    row: int
    repeated: bool
    last_use: bool
    """Whether its clip has no samples left in this visit."""


@dataclass(slots=True, kw_only=True)
class _Step:
    """What one served sample, or one passed over, changes in the state."""

    turn: int
    lane: int = 0
    after: LaneState | None = None
    """Of the lane."""
    position: Position | None = None
    """Of a served sample."""
    repeated: bool = False
    """Of a served sample: whether another visit owns its clip."""
    owned: ResidentClip | None = None
    """The visit that owns its clip from here on."""
    passed_over: ResidentClip | None = None
    """The visit whose sample is quarantined here."""
    round: tuple[list[int], list[int | None]] | None = None
    """Quotas and lengths of a new round."""
    reports: Sequence[tuple[str, CutReport]] = ()
    """What was found of the spans that were read to their end, by archive."""

    def apply(self, state: EpochState) -> None:
        """Make the change."""
        state.turn = self.turn
        if self.after is not None:
            state.lanes[self.lane] = self.after
        if self.round is not None:
            state.quotas, state.lengths = self.round
        for path, report in self.reports:
            state.add_report(path, report)
        books, clips = state.books, state.books.quarantined_clips
        if self.position is not None:
            books.delivered += not self.repeated
            books.repeated += self.repeated
        if self.owned is not None:
            state.seen[self.owned.record.clip] = True
            # A bad copy of the clip may have been met before.
            clips.pop(self.owned.name, None)
        if self.passed_over is not None:
            num_samples, _ = clips.get(self.passed_over.name, (0, ""))
            # Two bad copies of a clip are one loss.
            num_samples = min(num_samples + 1, self.passed_over.record.num_samples)
            clips[self.passed_over.name] = (num_samples, self.passed_over.problem or "")


class Board:
    """The lanes of one epoch. Not thread-safe: its owner holds a lock.

    Args:
        state: Where to begin; it is copied, not changed.
    """

    def __init__(self, state: EpochState) -> None:
        self.settings = state.settings
        self._consumed = state.copy()
        self._last_consumed: Position | None = None
        self.quotas = state.quotas
        self._lengths = list(state.lengths)
        self.lanes = [
            Lane(number=number, slot=lane.slot, digest=lane.digest, num_clips=lane.clips)
            for number, lane in enumerate(state.lanes)
        ]
        self._first_windows = {number: lane for number, lane in enumerate(state.lanes) if lane.cursor}
        self._turn = state.turn
        self._owned = state.seen.copy()
        self._finished: list[tuple[int, Window]] = []
        self._journal: deque[_Step] = deque()
        # The look-ahead: entries laid out from the served state on, and where laying out goes on.
        self._entries: deque[Entry] = deque()
        self._ahead_turn = self._turn
        self._ahead: list[tuple[int, int]] = [(0, 0)] * len(self.lanes)
        self._next_place = 0

    # ------------------------------------------------------------------ what comes in

    def order_samples(self, lane_number: int, window: Window) -> None:
        """Draw the order of a window that is about to be closed. Needs no lock, and takes long for a large window."""
        settings = self.settings
        window.order = sample_order(
            [clip.record.num_samples for clip in window.clips],
            seed=settings.seed,
            epoch=settings.epoch,
            lane=lane_number,
            window=window.number,
            shuffle=settings.shuffle,
        )

    def close_window(self, lane_number: int, window: Window) -> list[ResidentClip]:
        """Take an ordered window, whose clips are there or are still to come.

        Returns:
            Those that have no use left (after a resume).

        Raises:
            StateError: Where it is not the window that the state says it is.
        """
        lane = self.lanes[lane_number]
        resumed = self._first_windows.pop(lane_number, None)
        if resumed is not None:
            self._take_up(window, resumed)
        for clip_number, _ in window.order[window.cursor :]:
            window.clips[clip_number].left += 1
        lane.windows.append(window)
        for clip in window.clips:
            if clip.arrived:
                self.arrive(clip)
        unused = [clip for clip in window.clips if clip.left == 0]
        self._settle(lane)
        return unused

    def arrive(self, clip: ResidentClip) -> None:
        """A clip of a closed window is there."""
        clip.counted = True
        self.lanes[clip.lane].ready += clip.left

    def quarantine(self, clip: ResidentClip, reason: str) -> None:
        """Pass over all samples of a clip that are still to be served."""
        clip.problem = reason
        if clip.counted:
            clip.counted = False
            self.lanes[clip.lane].ready -= clip.left
        if clip.uses:
            self._lay_out_anew()
        self._settle(self.lanes[clip.lane])

    def take_finished(self) -> list[tuple[int, Window]]:
        """Return (lane, window) of the windows that were used up since the last call."""
        finished, self._finished = self._finished, []
        return finished

    # ------------------------------------------------------------------ what goes out

    def head(self) -> Entry | None:
        """Return the next sample; None where its window has not arrived, or where the epoch (or its round) is over."""
        if not self._entries:
            self._extend()
        return self._entries[0] if self._entries else None

    def lay_out(self) -> int:
        """Lay out the order as far as windows allow; return the places laid out so far.

        As long as that is the same, the look-ahead is the same too, but for what was served of it.
        """
        self._extend()
        return self._next_place

    def coming_clips(self) -> Iterable[ResidentClip]:
        """Yield the clips of the look-ahead that are on disk, in order of their next use, each once."""
        self._extend()
        for entry in self._entries:
            if entry.clip.uses[0] == entry.place and entry.clip.arrived:
                yield entry.clip

    def blocking_lane(self) -> Lane | None:
        """Return the lane whose next window must arrive before the order can be laid out further."""
        lane = self._lane_after(self._ahead_turn)
        return lane if lane is not None and not self._has_more(lane) else None

    def all_lanes_done(self) -> bool:
        """Whether all that has been asked of the lanes is served."""
        return self.head() is None and all(lane.ended or lane.paused for lane in self.lanes)

    def serve(self) -> Served:
        """Hand out the head; its clip must not be quarantined."""
        # Asked anew: a clip found bad since may have cleared what was laid out.
        entry = self.head()
        assert entry is not None, "nothing is there to be served"
        self._entries.popleft()
        lane, window, clip = entry.lane, entry.window, entry.clip
        assert clip.problem is None
        assert window is lane.windows[0], "a window was left before its end"
        assert entry.index == window.cursor, "a sample was left out"
        sample = window.order[entry.index][1]
        step = _Step(
            turn=(lane.number + 1) % len(self.lanes), position=Position(self.settings.epoch, lane.number, lane.slot)
        )
        self._find_owner(step, window, window.order[entry.index][0])
        digest = OrderDigest(lane.digest)
        digest.add(lane.slot, f"{clip.name}#{sample}")
        lane.digest = digest.value
        clip.uses.popleft()
        self._leave_sample(lane, clip)
        self._turn = step.turn
        self._advance(lane, step)
        self._settle(lane)
        while len(self._journal) > _LONGEST_JOURNAL:
            self._consume(self._journal.popleft())
        assert step.position is not None
        return Served(
            position=step.position, clip=clip, row=clip.rows[sample], repeated=step.repeated, last_use=clip.left == 0
        )

    def next_round(self) -> list[int]:
        """Return the lanes that shall give more once all lanes are done: none where the epoch is over."""
        assert self.all_lanes_done()
        if self.quotas is None or self.settings.limit is None:
            return []
        for lane in self.lanes:
            if lane.ended:
                self._lengths[lane.number] = lane.num_clips
        lengths = {number: length for number, length in enumerate(self._lengths) if length is not None}
        self.quotas = lane_quotas(self.settings.limit, len(self.lanes), lengths)
        resumed = [lane for lane in self.lanes if lane.paused and self.quotas[lane.number] > lane.num_clips]
        for lane in resumed:
            lane.paused = False
        # In the journal, since the round before may not be consumed yet: its windows ended at the quotas of then.
        self._journal.append(_Step(turn=self._turn, round=(self.quotas, self._lengths.copy())))
        return [lane.number for lane in resumed]

    # ------------------------------------------------------------------ what has been consumed

    def state_after(self, position: Position | None) -> EpochState:
        """Return the state once everything up to and including `position` is consumed.

        Args:
            position: Of a served sample, no earlier than the one asked for last; None for the last one served, which
                does not tell that it is consumed.

        Raises:
            StateError: Where no such sample was served, or a later one was asked for already.
        """
        if position is None:
            state = self._consumed.copy()
            for step in self._journal:
                step.apply(state)
            return state
        if position != self._last_consumed:
            if not any(step.position == position for step in self._journal):
                raise StateError(
                    f"no sample at {position} awaits its consumption",
                    "ask for the state after a sample that this pass has served, not after an earlier one than before",
                )
            while self._last_consumed != position:
                self._consume(self._journal.popleft())
        return self._consumed.copy()

    def _consume(self, step: _Step) -> None:
        step.apply(self._consumed)
        self._last_consumed = step.position or self._last_consumed

    # ------------------------------------------------------------------ inside

    def _take_up(self, window: Window, state: LaneState) -> None:
        """Leave behind what a resumed lane has consumed of its window."""
        if state.cursor >= len(window.order) or window.number != state.window:
            raise StateError(
                f"the saved data state is {state.cursor} samples into window {state.window} of a lane, and the "
                f"repository gives it window {window.number} of {len(window.order)} samples",
                "resume with the data options it was saved with, or start anew",
            )
        window.cursor = state.cursor
        window.repeats.update(state.repeats)
        for clip_number, _ in window.order[: window.cursor]:
            if clip_number not in window.repeats:
                window.clips[clip_number].repeated = False

    def _settle(self, lane: Lane) -> None:
        """Pass over quarantined samples that a lane would serve next: no used-up window is held for them."""
        while lane.windows:
            window = lane.windows[0]
            clip_number = window.order[window.cursor][0]
            clip = window.clips[clip_number]
            if clip.problem is None:
                return
            self._leave_sample(lane, clip)
            step = _Step(turn=self._turn)
            if clip.repeated is not False:
                window.repeats.add(clip_number)
            # No loss where another visit serves the clip's samples.
            if clip.repeated is False or not self._owned[clip.record.clip]:
                step.passed_over = clip
            self._advance(lane, step)

    def _leave_sample(self, lane: Lane, clip: ResidentClip) -> None:
        clip.left -= 1
        lane.ready -= clip.counted

    def _advance(self, lane: Lane, step: _Step) -> None:
        """Leave the lane's next sample behind, and its window with the last one; enter it in the journal."""
        window = lane.windows[0]
        window.cursor += 1
        lane.slot += 1
        reports = _taken(window.reports_before)
        if window.cursor == len(window.order):
            lane.windows.popleft()
            self._finished.append((lane.number, window))
            reports += window.reports
            if lane.windows:
                reports += _taken(lane.windows[0].reports_before)
        step.reports = reports
        step.lane, step.after = lane.number, self._lane_state(lane, window)
        self._journal.append(step)

    def _find_owner(self, step: _Step, window: Window, clip_number: int) -> None:
        """Note whose the clip of a sample is that is being served: the visit's that serves one of it first."""
        clip = window.clips[clip_number]
        if clip.repeated is None:
            clip.repeated = bool(self._owned[clip.record.clip])
            if clip.repeated:
                window.repeats.add(clip_number)
            else:
                self._owned[clip.record.clip] = True
                step.owned = clip
        step.repeated = clip.repeated

    def _lane_state(self, lane: Lane, window: Window) -> LaneState:
        """Return the lane's state now; `window` is the one that was left last, or is in use."""
        if lane.windows:
            window = lane.windows[0]
            return LaneState(
                span=window.span,
                member=window.member,
                window=window.number,
                cursor=window.cursor,
                clips=window.clips_before,
                slot=lane.slot,
                digest=lane.digest,
                repeats=tuple(sorted(window.repeats)),
                mark=window.mark,
            )
        # The next window has not been met: it begins where this one ends.
        return LaneState(
            span=window.end_span,
            member=window.end_member,
            window=window.number + 1,
            clips=window.clips_before + len(window.clips),
            slot=lane.slot,
            digest=lane.digest,
            mark=window.end_mark,
        )

    def _extend(self) -> None:
        """Lay out the order as far as closed windows allow."""
        if len(self._entries) > _LONGEST_LOOK_AHEAD // 2:
            return
        while len(self._entries) < _LONGEST_LOOK_AHEAD:
            lane = self._lane_after(self._ahead_turn)
            if lane is None or not self._has_more(lane):
                return
            offset, cursor = self._ahead_of(lane)
            window = lane.windows[offset]
            clip = window.clips[window.order[cursor][0]]
            clip.uses.append(self._next_place)
            self._entries.append(Entry(self._next_place, lane, window, cursor, clip))
            self._next_place += 1
            self._ahead[lane.number] = (window.number, cursor + 1)
            self._ahead_turn = (lane.number + 1) % len(self.lanes)

    def _lane_after(self, turn: int) -> Lane | None:
        """Return the first lane from `turn` on that has more to lay out, or may come to have."""
        for step in range(len(self.lanes)):
            lane = self.lanes[(turn + step) % len(self.lanes)]
            if self._has_more(lane) or not (lane.ended or lane.paused):
                return lane
        return None

    def _has_more(self, lane: Lane) -> bool:
        return self._ahead_of(lane)[0] < len(lane.windows)

    def _ahead_of(self, lane: Lane) -> tuple[int, int]:
        """Return where laying out goes on: (index in `lane.windows`, cursor), past samples of quarantined clips."""
        if not lane.windows:
            return 0, 0
        number, cursor = self._ahead[lane.number]
        first = lane.windows[0]
        offset = number - first.number
        if offset < 0 or (offset == 0 and cursor < first.cursor):
            offset, cursor = 0, first.cursor
        while offset < len(lane.windows):
            window = lane.windows[offset]
            while cursor < len(window.order):
                if window.clips[window.order[cursor][0]].problem is None:
                    self._ahead[lane.number] = (window.number, cursor)
                    return offset, cursor
                cursor += 1
            offset, cursor = offset + 1, 0
        return offset, cursor

    def _lay_out_anew(self) -> None:
        for entry in self._entries:
            entry.clip.uses.clear()
        self._entries.clear()
        self._ahead_turn = self._turn
        self._ahead = [
            (lane.windows[0].number, lane.windows[0].cursor) if lane.windows else (0, 0) for lane in self.lanes
        ]


def _taken(reports: list[tuple[str, CutReport]]) -> list[tuple[str, CutReport]]:
    taken = reports.copy()
    reports.clear()
    return taken
