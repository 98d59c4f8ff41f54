"""Which sample is served next, which clips are needed soon, and what has been consumed: an epoch's one order.

Pure bookkeeping: windows go in as the lanes' readers close them, samples come out in the schedule's order whatever the
timing, and each served sample leaves a step in a journal from which the state at any consumed position is built.

How lanes that have ended are dealt with is the epoch's `tail`. With `skip` they are passed over. With the others lanes
serve *in step*: one sample of each lane is a round, so that several ranks, each with lanes of its own, serve the same
number of samples; whether there is another round is agreed on by all ranks, see `outlook`. With `repeat` a lane that
has ended serves its last window again, whose clips stay for that (where none of them is good, the sample that it served
last, an *echo*, whose frames whoever serves holds); with `drop` the shortest lane ends the epoch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from reelstream.archive.cuts.report import CutReport
from reelstream.errors import StateError
from reelstream.prefetch.journal import Journal, Step
from reelstream.prefetch.state import EpochState, LaneState
from reelstream.prefetch.windows import Lane, ResidentClip, Window
from reelstream.schedule import OrderDigest, lane_quotas, sample_order
from reelstream.types import Position

# How far the order is laid out ahead: at least the half of it, all of it when that is short. More would only take
# memory; one sample at a time would have all of it walked through at each.
_LONGEST_LOOK_AHEAD = 4096

Outlook = Literal["more", "none", "unknown"]
"""Whether a lane has another sample that it has not served: one that is known to be good, none, or not known yet."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A coming sample."""

    place: int
    """Ascending along the look-ahead; comparable between clips."""
    turn: int
    """Number of the lane whose turn it is; another one serves in its place where it has nothing."""
    lane: Lane
    window: Window | None
    """None for an echo."""
    index: int
    """Place in the window's order; beyond its end the window is served again."""
    clip: ResidentClip

    @property
    def is_first(self) -> bool:
        """Whether its lane has not served it before."""
        return self.window is not None and self.index < len(self.window.order)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A sample that was handed out."""

    position: Position
    clip: ResidentClip
    row: int
    repeated: bool
    last_use: bool
    """Whether its clip has no samples left in this visit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a limited epoch still asks of its lanes."""

    lanes: list[int]
    """Own lanes that shall give more clips."""
    goes_on: bool
    """Whether any lane shall, those of other ranks included."""


class Board:
    """The lanes of one epoch. Not thread-safe: its owner holds a lock.

    Args:
        state: Where to begin; it is copied, not changed.
        echoes: Whether what a lane served last can be had again, once nothing of it is on disk.
    """

    def __init__(self, state: EpochState, *, echoes: bool = True) -> None:
        self.settings = state.settings
        self._journal = Journal(state)
        self.num_served = state.num_consumed
        """Samples served of these lanes, repeats included."""
        self.quotas = state.quotas
        self._lengths = list(state.lengths)
        self.lanes = [
            Lane(number=number, slot=lane.slot, digest=lane.digest, num_clips=lane.clips)
            for number, lane in enumerate(state.lanes)
        ]
        """All lanes of the epoch; those of other ranks stay as they are."""
        self.own = [self.lanes[number] for number in state.share.lanes(len(self.lanes))]
        """The lanes that are served here."""
        self._stride = state.share.world_size
        self._in_step = state.settings.tail != "skip"
        self._echoes = echoes and state.settings.tail == "repeat"
        self._first_windows = {number: lane for number, lane in enumerate(state.lanes) if lane.cursor}
        self._turn = state.turn
        self._owned = state.seen.copy()
        self._finished: list[tuple[int, Window]] = []
        # The look-ahead: entries laid out from the served state on, and where laying out goes on.
        self._entries: deque[Entry] = deque()
        self._ahead_turn = self._turn
        self._ahead: list[tuple[int, int]] = [(0, 0)] * len(self.lanes)
        self._ahead_again = [0] * len(self.lanes)
        self._ahead_last: list[ResidentClip | None] = [None] * len(self.lanes)
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
        if self._may_repeat(window):
            # One use that never comes: it stays for the time when its lane has ended.
            for clip in window.clips:
                clip.left += 1
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
        return self.head() is None and all(lane.ended or lane.paused for lane in self.own)

    @property
    def at_border(self) -> bool:
        """Whether lanes serve in step and a round is over: all ranks must agree that there is another one."""
        return self._in_step and self.num_served % len(self.own) == 0

    def outlook(self, lane: Lane) -> Outlook:
        """Return whether a lane has another sample that it has not served before.

        A clip counts only once its frames have been decoded: else the epoch's end would depend on what was found out
        when. At a border of rounds that does not take long, since the samples asked about are the next ones.
        """
        for window in lane.windows:
            if window.cursor < len(window.order):
                clip = window.clips[window.order[window.cursor][0]]
                return "more" if clip.problem is None and clip.decoded_before else "unknown"
        return "none" if lane.ended or lane.paused else "unknown"

    def heads(self) -> Iterable[ResidentClip]:
        """Yield the clip of each lane's next sample, as far as windows are there."""
        for lane in self.own:
            for window in lane.windows:
                if window.cursor < len(window.order):
                    yield window.clips[window.order[window.cursor][0]]
                    break

    def serve(self) -> Served:
        """Hand out the head; its clip must not be quarantined."""
        # Asked anew: a clip found bad since may have cleared what was laid out.
        entry = self.head()
        assert entry is not None, "nothing is there to be served"
        self._entries.popleft()
        lane, window, clip = entry.lane, entry.window, entry.clip
        if window is None:
            return self._serve_echo(entry)
        again = entry.index >= len(window.order)
        assert clip.problem is None
        assert window is lane.windows[0], "a window was left before its end"
        assert again or entry.index == window.cursor, "a sample was left out"
        clip_number, sample = window.order[entry.index % len(window.order)]
        step = Step(
            turn=self._turn_after(entry), position=Position(self.settings.epoch, lane.number, lane.slot), repeated=again
        )
        if again:
            window.cursor = entry.index
        else:
            self._find_owner(step, window, clip_number)
            self._leave_sample(lane, clip)
            lane.last = (clip, sample, window)
        self._note(entry, step, sample)
        self._advance(lane, step)
        self._settle(lane)
        assert step.position is not None
        return Served(
            position=step.position, clip=clip, row=clip.rows[sample], repeated=step.repeated, last_use=clip.left == 0
        )

    def _serve_echo(self, entry: Entry) -> Served:
        """Hand out once more what a lane served last; nothing of it is on disk."""
        lane = entry.lane
        assert lane.last is not None
        clip, sample, window = lane.last
        step = Step(
            turn=self._turn_after(entry), position=Position(self.settings.epoch, lane.number, lane.slot), repeated=True
        )
        self._note(entry, step, sample)
        lane.slot += 1
        step.lane, step.after = lane.number, self._lane_state(lane, lane.left or window)
        self._journal.add(step)
        assert step.position is not None
        return Served(position=step.position, clip=clip, row=clip.rows[sample], repeated=True, last_use=False)

    def _note(self, entry: Entry, step: Step, sample: int) -> None:
        """Count a sample that is handed out."""
        lane, clip = entry.lane, entry.clip
        digest = OrderDigest(lane.digest)
        digest.add(lane.slot, f"{clip.name}#{sample}")
        lane.digest = digest.value
        clip.uses.popleft()
        self.num_served += 1
        self._turn = step.turn

    def next_round(self, lengths: Mapping[int, int] | None = None) -> Round:
        """Set new quotas once all lanes are done, those of other ranks included.

        Args:
            lengths: Clips of the other ranks' lanes that have ended.
        """
        if self.quotas is None or self.settings.limit is None or self.settings.tail == "drop":
            return Round(lanes=[], goes_on=False)
        for number, length in {**self.lengths, **(lengths or {})}.items():
            self._lengths[number] = length
        known = {number: length for number, length in enumerate(self._lengths) if length is not None}
        before, self.quotas = self.quotas, lane_quotas(self.settings.limit, len(self.lanes), known)
        goes_on = any(
            now > then
            for number, (then, now) in enumerate(zip(before, self.quotas, strict=True))
            if number not in known
        )
        # In the journal, since the round before may not be consumed yet: its windows ended at the quotas of then.
        self._journal.add(Step(turn=self._turn, round=(self.quotas, self._lengths.copy())))
        resumed = [lane for lane in self.own if lane.paused and self.quotas[lane.number] > lane.num_clips]
        for lane in resumed:
            lane.paused = False
            self._let_go_of_last(lane)
        return Round(lanes=[lane.number for lane in resumed], goes_on=goes_on)

    @property
    def lengths(self) -> dict[int, int]:
        """Clips of the own lanes that have ended."""
        return {lane.number: lane.num_clips for lane in self.own if lane.ended}

    def end(self) -> None:
        """The epoch is over: no lane serves its last window again."""
        for lane in self.own:
            self._let_go_of_last(lane)

    # ------------------------------------------------------------------ what has been consumed

    def state_after(self, position: Position | None) -> EpochState:
        """Return the state once everything up to and including `position` is consumed; see `Journal.state_after`."""
        return self._journal.state_after(position)

    # ------------------------------------------------------------------ inside

    def _take_up(self, window: Window, state: LaneState) -> None:
        """Leave behind what a resumed lane has consumed of its window."""
        is_there = state.cursor < len(window.order) or self._may_repeat(window)
        if not is_there or window.number != state.window:
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
        while lane.windows and lane.windows[0].cursor < len(lane.windows[0].order):
            window = lane.windows[0]
            clip_number = window.order[window.cursor][0]
            clip = window.clips[clip_number]
            if clip.problem is None:
                return
            self._leave_sample(lane, clip)
            step = Step(turn=self._turn)
            if clip.repeated is not False:
                window.repeats.add(clip_number)
            # No loss where another visit serves the clip's samples.
            if clip.repeated is False or not self._owned[clip.record.clip]:
                step.passed_over = clip
            self._advance(lane, step)

    def _leave_sample(self, lane: Lane, clip: ResidentClip) -> None:
        clip.left -= 1
        lane.ready -= clip.counted

    def _advance(self, lane: Lane, step: Step) -> None:
        """Leave the lane's next sample behind, and its window with the last one; enter it in the journal."""
        window = lane.windows[0]
        window.cursor += 1
        lane.slot += 1
        reports = _taken(window.reports_before)
        if window.cursor >= len(window.order):
            reports += _taken(window.reports)
            if not self._can_repeat(window):
                lane.left = lane.windows.popleft()
                self._finished.append((lane.number, window))
            if lane.windows:
                reports += _taken(lane.windows[0].reports_before)
        step.reports = reports
        step.lane, step.after = lane.number, self._lane_state(lane, window)
        self._journal.add(step)

    def _may_repeat(self, window: Window) -> bool:
        """Whether a window stays when it is used up, to be served again."""
        return window.is_last and self.settings.tail == "repeat"

    def _can_repeat(self, window: Window) -> bool:
        """Whether there is anything in such a window to be served again."""
        return self._may_repeat(window) and any(window.clips[number].problem is None for number, _ in window.order)

    def _let_go_of_last(self, lane: Lane) -> None:
        """Leave a lane's last window behind, if it has been kept."""
        if not lane.windows or lane.windows[0].cursor < len(lane.windows[0].order):
            return
        lane.left = window = lane.windows.popleft()
        self._finished.append((lane.number, window))
        self._lay_out_anew()
        self._journal.add(Step(turn=self._turn, lane=lane.number, after=self._lane_state(lane, window)))

    def _find_owner(self, step: Step, window: Window, clip_number: int) -> None:
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

    def _turn_after(self, entry: Entry) -> int:
        # Passed over, a lane that has ended has no turn; in step it keeps it, whoever serves in its place.
        before = entry.turn if self._in_step else entry.lane.number
        return (before + self._stride) % len(self.lanes)

    def _extend(self) -> None:
        """Lay out the order as far as closed windows allow."""
        if len(self._entries) > _LONGEST_LOOK_AHEAD // 2:
            return
        while len(self._entries) < _LONGEST_LOOK_AHEAD:
            lane = self._lane_after(self._ahead_turn)
            if lane is None:
                return
            if self._has_more(lane):
                offset, cursor = self._ahead_of(lane)
                window = lane.windows[offset]
                self._ahead[lane.number] = (window.number, cursor + 1)
                self._ahead_last[lane.number] = window.clips[window.order[cursor][0]]
            elif self._is_exhausted(lane) and self._goes_round():
                offset, cursor = len(lane.windows) - 1, self._next_again(lane)
                self._ahead_again[lane.number] = cursor + 1
            elif self._is_echoing(lane) and self._goes_round():
                echoed = self._ahead_last[lane.number]
                assert echoed is not None
                self._lay_out(lane, None, 0, echoed)
                continue
            else:
                return
            window = lane.windows[offset]
            self._lay_out(lane, window, cursor, window.clips[window.order[cursor % len(window.order)][0]])

    def _lay_out(self, lane: Lane, window: Window | None, index: int, clip: ResidentClip) -> None:
        clip.uses.append(self._next_place)
        entry = Entry(self._next_place, self._ahead_turn, lane, window, index, clip)
        self._entries.append(entry)
        self._next_place += 1
        self._ahead_turn = self._turn_after(entry)

    def _lane_after(self, turn: int) -> Lane | None:
        """Return the first own lane from `turn` on that has more to lay out, or may come to have."""
        first = turn // self._stride
        for step in range(len(self.own)):
            lane = self.own[(first + step) % len(self.own)]
            if self._has_more(lane) or not (lane.ended or lane.paused):
                return lane
            if self._is_exhausted(lane) or self._is_echoing(lane):
                return lane
            if self.settings.tail == "drop":
                return None
        return None

    def _is_exhausted(self, lane: Lane) -> bool:
        """Whether a lane has laid out all that it has, and goes on with its last window."""
        return (
            (lane.ended or lane.paused)
            and bool(lane.windows)
            and not self._has_more(lane)
            and self._can_repeat(lane.windows[-1])
        )

    def _is_echoing(self, lane: Lane) -> bool:
        """Whether a lane has nothing left but the sample that it served last."""
        return (
            self._echoes
            and (lane.ended or lane.paused)
            and not self._has_more(lane)
            and self._ahead_last[lane.number] is not None
        )

    def _goes_round(self) -> bool:
        """Whether repeats may be laid out: once all lanes have ended, no further than to the end of a round."""
        if any(self._has_more(lane) or not (lane.ended or lane.paused) for lane in self.own):
            return True
        return not self._entries or (self.num_served + len(self._entries)) % len(self.own) != 0

    def _next_again(self, lane: Lane) -> int:
        """Return where in a lane's last window, counted on beyond its end, the next sample is to be served again."""
        window = lane.windows[-1]
        index = max(self._ahead_again[lane.number], window.cursor, len(window.order))
        while window.clips[window.order[index % len(window.order)][0]].problem is not None:
            index += 1
        return index

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
        self._ahead_again = [0] * len(self.lanes)
        self._ahead_last = [lane.last[0] if lane.last else None for lane in self.lanes]
        self._ahead = [
            (lane.windows[0].number, lane.windows[0].cursor) if lane.windows else (0, 0) for lane in self.lanes
        ]


def _taken(reports: list[tuple[str, CutReport]]) -> list[tuple[str, CutReport]]:
    taken = reports.copy()
    reports.clear()
    return taken
