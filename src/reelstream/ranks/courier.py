"""The one thread's work that carries values to and from the store.

Only one thread uses the store: a client of torch's store serves one call at a time, so a thread that blocked in it
would hold up all others, and could not be called off. Whoever exchanges waits beside it.

Keys, below the run's name (see `meeting`):

```
beat/<rank>              JSON: process, number that grows every two seconds
gone                     there once any rank has left or was found lost
gone/<rank>              what has become of it, in words that follow its name
value/<name>/<rank>      what a rank gave (further pieces: see `store`)
taken/<name>             how many ranks need the values of this exchange no more; the last one deletes them and this
```
"""

from __future__ import annotations

import collections
import threading

from reelstream.clock import Clock
from reelstream.errors import RankLostError
from reelstream.ranks.meeting import Meeting
from reelstream.ranks.patience import RankPatience, Silence
from reelstream.ranks.place import RankPlace
from reelstream.ranks.process import ProcessMark
from reelstream.ranks.store import KeyValueStore, ObservedStore, clear_away, lay_down, take_up
from reelstream.units import format_seconds

_FIRST_POLL_S = 0.0002
_LONGEST_POLL_S = 0.02
_MEETING_POLL_S = 0.1
# How long a rank that leaves in good order stays for those who have not read its last values yet: where it holds the
# store, they could not any more.
_LINGER_S = 3.0
# The same where a rank was lost: all are to learn of that, and values may never be taken.
_LINGER_AFTER_LOSS_S = 0.5
_REMEMBERED_EXCHANGES = 64
_HINT = (
    "the cause is in that rank's own output; the run can be resumed from its last checkpoint, on any number of ranks "
    "that divides its lanes"
)


class Exchange:
    """One exchange that is under way.

    Attributes:
        changed: Set once there is an outcome, or whoever waits should look for another reason.
        values: What all ranks gave, by rank.
        lost: Why that will not be.
        missing: Ranks that had given nothing when last looked.
    """

    def __init__(self, name: str, value: bytes, now_s: float, missing: tuple[int, ...], survey_s: float) -> None:
        self.name = name
        self.value = value
        self.since_s = now_s
        self.changed = threading.Event()
        self.values: list[bytes] | None = None
        self.lost: RankLostError | None = None
        self.missing = missing
        self.given_up = False
        self.given = False
        self.is_over = False
        self.poll_s = _FIRST_POLL_S
        self.next_poll_s = now_s
        self.next_survey_s = now_s + survey_s

    def succeed(self, values: list[bytes]) -> None:
        """Hand over what all gave."""
        self.values, self.is_over = values, True
        self.changed.set()

    def fail(self, error: RankLostError) -> None:
        """Say that it will not be."""
        self.lost, self.is_over = error, True
        self.changed.set()


class Courier:
    """Carries one rank's values. `round` is for one thread; the other calls for any.

    Args:
        place: Whose it is.
        store: What it carries to and from.
        mark: The process.
        clock: The time.
        patience: How long silence is borne.
    """

    def __init__(
        self, place: RankPlace, store: KeyValueStore, *, mark: ProcessMark, clock: Clock, patience: RankPatience
    ) -> None:
        self.wake = threading.Event()
        """Set where `round` has something to do before its time."""
        self.num_steps = 0
        """Grows as long as the store answers."""
        self._place = place
        self._store = ObservedStore(store, self._answered)
        self._mark = mark.to_text()
        self._clock = clock
        self._patience = patience
        self._others = tuple(rank for rank in range(place.world_size) if rank != place.rank)
        self._meeting = Meeting(place.rank, place.world_size, self._store)
        self._to_be_seen = set(self._others)
        self._lock = threading.Lock()
        self._under_way: list[Exchange] = []
        self._leaving: str | None = None
        self._linger_until_s: float | None = None
        self._has_told = False
        self._has_lost = False
        self._not_taken_by_all: collections.deque[str] = collections.deque(maxlen=_REMEMBERED_EXCHANGES)
        self._failure: Exception | None = None
        self._num_beats = 0
        self._next_beat_s = float("-inf")
        self._silences = {rank: Silence(patience.longest_gap_s) for rank in self._others}
        self.has_ended = False
        """Whether there will be no further round."""

    # ------------------------------------------------------------------ from any thread

    def ask(self, name: str, value: bytes) -> Exchange:
        """Begin an exchange; its outcome comes by the rounds."""
        exchange = Exchange(name, value, self._clock.monotonic(), self._others, self._patience.survey_s)
        with self._lock:
            assert all(other.name != name for other in self._under_way), f"{name!r} is being exchanged"
            if self._leaving is None and self._failure is None:
                self._under_way.append(exchange)
            else:
                exchange.fail(self._no_more_error(exchange))
        self.wake.set()
        return exchange

    def give_up(self, exchange: Exchange) -> None:
        """Wait for an exchange no longer, whose value the others get all the same; harmless where it has ended."""
        exchange.given_up = True
        if not exchange.is_over:
            self.wake.set()

    def leave(self, reason: str) -> None:
        """Have the next round tell the others, and be the last one."""
        with self._lock:
            if self._leaving is None:
                self._leaving = reason
        self.wake.set()

    # ------------------------------------------------------------------ from one thread

    def round(self) -> float:
        """Do all that can be done now, without waiting; return the seconds until there may be more."""
        try:
            return self._round()
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must learn of it
            with self._lock:
                self._failure = error
                failed, self._under_way = self._under_way, []
            for exchange in failed:
                exchange.fail(self._no_more_error(exchange))
            self.has_ended = True
            return self._patience.beat_s

    def _round(self) -> float:
        if self._to_be_seen or self._meeting.run is None:
            self._meeting.step()
        run = self._meeting.run
        with self._lock:
            leaving = self._leaving
            under_way = list(self._under_way)
        self._beat_if_due()
        if leaving is not None:
            return self._leave(run, leaving, under_way)
        somebody_gone = run is not None and bool(under_way) and self._is_somebody_gone(run, under_way)
        for exchange in under_way:
            self._advance(run, exchange, somebody_gone)
        with self._lock:
            self._under_way = [one for one in self._under_way if not one.is_over]
            return self._next_round_s()

    def _answered(self) -> None:
        """After each call of the store: long transfers are no silence, neither ours nor the store's."""
        self.num_steps += 1
        self._beat_if_due()

    def _next_round_s(self) -> float:
        now_s = self._clock.monotonic()
        due_s = [one.next_poll_s for one in self._under_way]
        if self._meeting.run is not None:
            due_s.append(self._next_beat_s)
        if self._to_be_seen or self._meeting.run is None:
            due_s.append(now_s + _MEETING_POLL_S)
        return max(0.0, min(due_s) - now_s)

    def _beat_if_due(self) -> None:
        run, now_s = self._meeting.run, self._clock.monotonic()
        if run is None or now_s < self._next_beat_s:
            return
        self._next_beat_s = now_s + self._patience.beat_s
        self._num_beats += 1
        self._store.set(f"{run}/beat/{self._place.rank}", b"%d %s" % (self._num_beats, self._mark))
        self._look_for_others(run)

    def _look_for_others(self, run: str) -> None:
        for rank in sorted(self._to_be_seen):
            if self._store.check([f"{run}/beat/{rank}"]):
                self._to_be_seen.discard(rank)

    def _leave(self, run: str | None, reason: str, under_way: list[Exchange]) -> float:
        """Tell the others; return the seconds until the next round, if there is one."""
        now_s = self._clock.monotonic()
        if self._linger_until_s is None:
            self._linger_until_s = now_s + (_LINGER_AFTER_LOSS_S if self._has_lost else _LINGER_S)
            for exchange in under_way:
                exchange.fail(self._no_more_error(exchange))
                if run is not None and exchange.given:
                    self._need_no_more(run, exchange)
        if run is not None and not self._has_told:
            self._tell_gone(run, self._place.rank, f"has left: {reason};")
            self._has_told = True
        taken = [name for name in self._not_taken_by_all if not self._store.check([f"{run}/taken/{name}"])]
        for name in taken:
            self._not_taken_by_all.remove(name)
        if run is not None:
            self._look_for_others(run)
        # Those who have not met this rank yet could not be told: they do not know the run's name, or it does not.
        have_met = self._has_told and not self._to_be_seen
        nothing_to_stay_for = have_met and not self._not_taken_by_all and not self._has_lost
        self.has_ended = nothing_to_stay_for or now_s >= self._linger_until_s
        return _LONGEST_POLL_S

    def _tell_gone(self, run: str, rank: int, fate: str) -> None:
        self._store.set(f"{run}/gone/{rank}", fate.encode())
        self._store.set(f"{run}/gone", b"")

    def _is_somebody_gone(self, run: str, under_way: list[Exchange]) -> bool:
        # Not asked in the first milliseconds, in which most exchanges end.
        now_s = self._clock.monotonic()
        is_worth_it = any(now_s - one.since_s >= _LONGEST_POLL_S for one in under_way)
        return is_worth_it and self._store.check([f"{run}/gone"])

    # ------------------------------------------------------------------ one exchange

    def _advance(self, run: str | None, exchange: Exchange, somebody_gone: bool) -> None:
        now_s = self._clock.monotonic()
        if exchange.given_up and run is not None:
            self._give(run, exchange)
            self._need_no_more(run, exchange)
            exchange.is_over = True
        elif run is None:
            exchange.next_poll_s = now_s + _MEETING_POLL_S
            exchange.missing = (0,)
            if now_s - exchange.since_s >= self._patience.first_seen_within_s:
                exchange.fail(self._lost_error(exchange, 0, self._never_came()))
        else:
            self._give(run, exchange)
            if now_s >= exchange.next_poll_s:
                self._poll(run, exchange)
            if not exchange.is_over and (somebody_gone or now_s >= exchange.next_survey_s):
                self._survey(run, exchange)

    def _give(self, run: str, exchange: Exchange) -> None:
        """Lay down this rank's value, once."""
        if not exchange.given:
            lay_down(self._store, _value_key(run, exchange.name, self._place.rank), exchange.value)
            exchange.given = True

    def _poll(self, run: str, exchange: Exchange) -> None:
        if self._store.check([_value_key(run, exchange.name, rank) for rank in self._others]):
            values = []
            for rank in range(self._place.world_size):
                own = rank == self._place.rank
                values.append(exchange.value if own else take_up(self._store, _value_key(run, exchange.name, rank)))
            exchange.succeed(values)
            if not self._need_no_more(run, exchange):
                self._not_taken_by_all.append(exchange.name)
        else:
            exchange.next_poll_s = self._clock.monotonic() + exchange.poll_s
            exchange.poll_s = min(2 * exchange.poll_s, _LONGEST_POLL_S)

    def _need_no_more(self, run: str, exchange: Exchange) -> bool:
        """Note that this rank needs the values no more; return whether it was the last one, which clears up.

        So a run of weeks fills no store.
        """
        is_last = self._store.add(f"{run}/taken/{exchange.name}", 1) == self._place.world_size
        if is_last:
            for rank in range(self._place.world_size):
                clear_away(self._store, _value_key(run, exchange.name, rank))
            self._store.delete_key(f"{run}/taken/{exchange.name}")
        return is_last

    def _survey(self, run: str, exchange: Exchange) -> None:
        """Look at those that have given nothing: do they live?"""

        def is_missing(rank: int) -> bool:
            return not self._store.check([_value_key(run, exchange.name, rank)])

        exchange.missing = tuple(rank for rank in self._others if is_missing(rank))
        for rank in exchange.missing:
            fate = self._fate_of(run, rank, exchange)
            # Looked at once more: it may have given its value, and then gone in good order.
            if fate is not None and is_missing(rank):
                # Told to all, so that they end with the same words, before this rank's end tears down what connects
                # them.
                self._tell_gone(run, rank, fate)
                exchange.fail(self._lost_error(exchange, rank, fate))
                self._has_lost = True
                return
        exchange.next_survey_s = self._clock.monotonic() + self._patience.survey_s

    def _fate_of(self, run: str, rank: int, exchange: Exchange) -> str | None:
        """Return what has become of a rank, in words that follow its name; None where it may still come."""
        now_s = self._clock.monotonic()
        if self._store.check([f"{run}/gone/{rank}"]):
            return self._store.get(f"{run}/gone/{rank}").decode(errors="replace")
        if not self._store.check([f"{run}/beat/{rank}"]):
            return self._never_came() if now_s - exchange.since_s >= self._patience.first_seen_within_s else None
        beat = self._store.get(f"{run}/beat/{rank}")
        silent_s = self._silences[rank].look(beat, now_s)
        mark = ProcessMark.parse(beat.partition(b" ")[2])
        if mark.is_gone():
            return f"has died: its process {mark.pid} is gone;"
        if silent_s >= self._patience.lost_after_s:
            return f"has given no sign of life for {format_seconds(silent_s)};"
        return None

    def _never_came(self) -> str:
        return f"did not come within {format_seconds(self._patience.first_seen_within_s)};"

    def _lost_error(self, exchange: Exchange, rank: int, fate: str) -> RankLostError:
        return RankLostError(
            f"rank {rank} of {self._place.world_size} {fate} rank {self._place.rank} waits for it ({exchange.name})",
            _HINT,
        )

    def _no_more_error(self, exchange: Exchange) -> RankLostError:
        if self._failure is None:
            return RankLostError(f"{self._place} has left ({self._leaving}) and takes no part in {exchange.name}")
        error = RankLostError(
            f"what connects the ranks is gone: {self._failure}; {self._place} waits for the others ({exchange.name})",
            "it lives in rank 0, or in the launcher of the first machine, and most likely that has ended; " + _HINT,
        )
        error.__cause__ = self._failure
        return error


def _value_key(run: str, name: str, rank: int) -> str:
    return f"{run}/value/{name}/{rank}"
