"""Which sample is served next, which clips are needed soon, and what has been consumed: an epoch's one order.

Pure bookkeeping: windows go in as the lanes' readers close them, samples come out in the schedule's order whatever the
timing, and each served sample leaves a step in a journal from which the state at any consumed position is built.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from reelstream.errors import StateError
from reelstream.prefetch.state import EpochState, LaneState
from reelstream.prefetch.windows import Lane, ResidentClip, Window
from reelstream.schedule import OrderDigest, lane_quotas, sample_order
from reelstream.types import Position

# How far the order is laid out ahead; more would only take memory.
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
    """What one served sample, and what was passed over before it, changes in the state."""

    lane: int = 0
    turn: int = 0
    position: Position | None = None
    after: LaneState | None = None
    quotas: list[int] | None = None
    delivered: int = 0
    repeated: int = 0
    quarantined: int = 0
    quarantined_clips: dict[str, str] = field(default_factory=dict)
    seen: list[int] = field(default_factory=list)

    def apply(self, state: EpochState) -> None:
        """Make the change."""
        if self.after is not None:
            state.lanes[self.lane] = self.after
        if self.quotas is not None:
            state.quotas = self.quotas
        state.turn = self.turn
        state.books.delivered += self.delivered
        state.books.repeated += self.repeated
        state.books.quarantined += self.quarantined
        state.books.quarantined_clips.update(self.quarantined_clips)
        state.seen[self.seen] = True


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
        self.lanes = [
            Lane(number=number, slot=lane.slot, digest=lane.digest, num_clips=lane.clips)
            for number, lane in enumerate(state.lanes)
        ]
        self._first_windows = {number: lane for number, lane in enumerate(state.lanes) if lane.cursor}
        self._turn = state.turn
        self._served_clips = state.seen.copy()
        self._owners: dict[int, ResidentClip] = {}
        self._finished: list[tuple[int, Window]] = []
        self._journal: deque[_Step] = deque()
        # The look-ahead: entries laid out from the served state on, and where laying out goes on.
        self._entries: deque[Entry] = deque()
        self._ahead_turn = self._turn
        self._ahead: list[tuple[int, int]] = [(0, 0)] * len(self.lanes)
        self._next_place = 0

    # ------------------------------------------------------------------ what comes in

    def close_window(self, lane_number: int, window: Window) -> list[ResidentClip]:
        """Take a window whose clips have all arrived; return its clips that have no use left (after a resume)."""
        lane, settings = self.lanes[lane_number], self.settings
        window.order = sample_order(
            [clip.record.num_samples for clip in window.clips],
            seed=settings.seed,
            epoch=settings.epoch,
            lane=lane_number,
            window=window.number,
            shuffle=settings.shuffle,
        )
        resumed = self._first_windows.pop(lane_number, None)
        window.cursor = resumed.cursor if resumed is not None else 0
        for clip_number, _ in window.order[window.cursor :]:
            window.clips[clip_number].left += 1
        lane.windows.append(window)
        lane.ready += len(window.order) - window.cursor
        unused = [clip for clip in window.clips if clip.left == 0]
        self._settle(lane)
        return unused

    def quarantine(self, clip: ResidentClip, reason: str) -> None:
        """Pass over all samples of a clip that are still to be served."""
        clip.problem = reason
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

    def coming_clips(self) -> Iterable[ResidentClip]:
        """Yield the clips of the look-ahead in order of their next use, each once."""
        self._extend()
        for entry in self._entries:
            if entry.clip.uses[0] == entry.place:
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
        entry = self._entries.popleft()
        lane, window, clip = entry.lane, entry.window, entry.clip
        assert clip.problem is None
        assert window is lane.windows[0], "a window was left before its end"
        assert entry.index == window.cursor, "a sample was left out"
        sample = window.order[entry.index][1]
        position = Position(self.settings.epoch, lane.number, lane.slot)
        repeated = self._is_repeat(clip)
        digest = OrderDigest(lane.digest)
        digest.add(lane.slot, f"{clip.name}#{sample}")
        lane.digest = digest.value
        clip.uses.popleft()
        clip.left -= 1
        self._turn = (lane.number + 1) % len(self.lanes)
        step = _Step(position=position, delivered=int(not repeated), repeated=int(repeated))
        self._advance(lane, step)
        self._journal.append(step)
        self._settle(lane)
        if len(self._journal) > _LONGEST_JOURNAL:
            self._consume(self._journal.popleft())
        return Served(position=position, clip=clip, row=clip.rows[sample], repeated=repeated, last_use=clip.left == 0)

    def next_round(self) -> list[int]:
        """Return the lanes that shall give more once all lanes are done: none where the epoch is over."""
        assert self.all_lanes_done()
        if self.quotas is None or self.settings.limit is None:
            return []
        lengths = {lane.number: lane.num_clips for lane in self.lanes if lane.ended}
        quotas = lane_quotas(self.settings.limit, len(self.lanes), lengths)
        resumed = [lane for lane in self.lanes if lane.paused and quotas[lane.number] > lane.num_clips]
        for lane in resumed:
            lane.paused = False
        self.quotas = quotas
        # In the journal, since the round before may not be consumed yet: its windows ended at the quotas of then.
        self._journal.append(_Step(turn=self._turn, quotas=quotas))
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

    def _settle(self, lane: Lane) -> None:
        """Pass over quarantined samples that a lane would serve next: no used-up window is held for them."""
        while lane.windows:
            window = lane.windows[0]
            clip = window.clips[window.order[window.cursor][0]]
            if clip.problem is None:
                return
            clip.left -= 1
            step = _Step(quarantined=1, quarantined_clips={clip.name: clip.problem})
            self._advance(lane, step)
            self._journal.append(step)

    def _advance(self, lane: Lane, step: _Step) -> None:
        """Leave the lane's next sample behind, and its window with the last one; note the lane's place in `step`."""
        window = lane.windows[0]
        window.cursor += 1
        lane.slot += 1
        lane.ready -= 1
        if window.cursor == len(window.order):
            lane.windows.popleft()
            self._finished.append((lane.number, window))
            for clip in window.clips:
                number = clip.record.clip
                step.seen.append(number)
                self._served_clips[number] = True
                if self._owners.get(number) is clip:
                    del self._owners[number]
        step.lane, step.turn, step.after = lane.number, self._turn, self._lane_state(lane, window)

    def _is_repeat(self, clip: ResidentClip) -> bool:
        """Whether another visit in this epoch has served, or is serving, the same clip of the catalog."""
        if clip.repeated is None:
            number = clip.record.clip
            clip.repeated = bool(self._served_clips[number]) or number in self._owners
            self._owners.setdefault(number, clip)
        return clip.repeated

    def _lane_state(self, lane: Lane, window: Window) -> LaneState:
        """Return the lane's state now; `window` is the one that was served from last."""
        if lane.windows:
            window = lane.windows[0]
            begins = (window.span, window.member, window.number, window.cursor, window.clips_before)
        else:
            # The next window has not been met: it begins where this one ends.
            clips = window.clips_before + len(window.clips)
            begins = (window.end_span, window.end_member, window.number + 1, 0, clips)
        span, member, number, cursor, clips = begins
        return LaneState(
            span=span, member=member, window=number, cursor=cursor, clips=clips, slot=lane.slot, digest=lane.digest
        )

    def _extend(self) -> None:
        """Lay out the order as far as closed windows allow."""
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
