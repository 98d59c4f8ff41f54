"""What the lanes wait for: a connection, and room on disk."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence

from reelstream.cache import ClipCache, ClipFile, KeptClips, Room
from reelstream.cache.names import ClipName
from reelstream.cancel import Cancellation
from reelstream.errors import BudgetTooSmallError
from reelstream.prefetch.lanes.host import IncomingClip
from reelstream.prefetch.turns import RangeTurns
from reelstream.prefetch.windows import ResidentClip
from reelstream.units import format_bytes


class Intake:
    """Lets bytes in as far as there are connections and room. Shares its owner's lock.

    `begin_range`, `end_range`, `write` and `take_kept` are called without the lock; all else while it is held.

    Args:
        lock: The owner's.
        lanes: Numbers of the lanes that are read here.
        room: The policy of their part of the clip budget, at its beginning.
        cache: Where clips are written.
        kept: Clips that stay across epochs, in the same cache.
        connections: The most ranged reads at once, those that pause apart.
        disk_budget_bytes: The node's budget in all, to name one that works where this one does not.
        num_sharing: Ranks that share it.
        ready: Tells the samples of each of these lanes that are on disk and not served: who has fewer reads first.
        cancellation: Calls the waiting off; `wake` must follow.
        on_short: Called with the lock, when a lane begins to wait for deleted clips that are still being read.
    """

    def __init__(
        self,
        *,
        lock: threading.Lock,
        lanes: Sequence[int],
        room: Room,
        cache: ClipCache,
        kept: KeptClips,
        connections: int,
        disk_budget_bytes: int,
        num_sharing: int = 1,
        ready: Callable[[], Sequence[int]],
        cancellation: Cancellation,
        on_short: Callable[[], None] = lambda: None,
    ) -> None:
        self._lock = lock
        # Room and turns count the lanes that there are, from 0 on.
        self._place_of = {lane: place for place, lane in enumerate(lanes)}
        self._room = room
        self._cache = cache
        self._kept = kept
        self._disk_budget_bytes = disk_budget_bytes
        self._num_sharing = num_sharing
        self._ready = ready
        self._cancellation = cancellation
        self._turns = RangeTurns(connections)
        self._freed = threading.Condition(lock)
        self._on_short = on_short
        self._short: dict[int, int] = {}

    @property
    def num_open(self) -> int:
        """Ranged reads under way."""
        return self._turns.num_open

    # ------------------------------------------------------------------ the lanes' side, without the lock

    def begin_range(self, lane: int, window: int) -> int:
        """Wait until a ranged read may begin; return its most bytes. See `LaneHost`."""
        place = self._place_of[lane]
        with self._lock:
            self._turns.want(place, window)
            self.wake()
            while not (size_bytes := self._turns.take(place)):
                self.wait()
            return size_bytes

    def end_range(self, lane: int) -> None:
        """The ranged read has ended. See `LaneHost`."""
        with self._lock:
            self._turns.end(self._place_of[lane], self._room)
            self.wake()

    def write(self, lane: int, window: int, member: IncomingClip, identity: str | None) -> ClipFile:
        """Wait for room, write the member and publish it. See `LaneHost`."""
        cost_bytes = self._cache.cost_bytes(member.size_bytes)
        if cost_bytes > self._room.largest_clip_bytes:
            raise self._too_large(member.name, member.size_bytes)
        survivor: ClipFile | None = None
        with self._lock:
            # Reserved only once the lane has its connection back: waiting for that may be called off.
            while (survivor := self._admit_survivor(lane, window, cost_bytes, identity)) is None and not self._admit(
                lane, window, cost_bytes, member
            ):
                with self.pausing(lane):
                    while not self._has_room(lane, window, cost_bytes):
                        self.wait()
        if survivor is not None:
            if survivor.size_bytes == member.size_bytes and self._cache.verify(survivor):
                return survivor
            self._cache.delete(survivor)
            with self._lock:
                self._room.free(self._place_of[lane], window, cost_bytes)
                self.wake()
            return self.write(lane, window, member, identity)
        try:
            return self._cache.write(
                member.size_bytes, member.chunks(), identity=identity, digest=lambda: member.digest
            )
        except BaseException:
            with self._lock:
                self._room.free(self._place_of[lane], window, cost_bytes)
                self.wake()
            raise

    def take_kept(self, lane: int, clip: ResidentClip, identity: str | None) -> bool:
        """Use a clip that is on disk already, once its window may hold it; return whether there was one.

        Args:
            lane: The clip's lane.
            clip: Whose file is wanted.
            identity: What a run that was killed would have named it by.
        """
        number = clip.record.clip
        with self._lock:
            file = self._kept.take(number)
        if file is None and identity is not None:
            file = self._adopted(number, identity)
        if file is None or not self._is_as_known(clip, file):
            return False
        if file.reserved_bytes > self._room.largest_clip_bytes:
            # The epoch that kept it had fewer lanes.
            raise self._too_large(clip.name, file.size_bytes)
        with self._lock:
            place = self._place_of[lane]
            while not self._room.may_admit(place, clip.window, file.reserved_bytes, in_place=True):
                with self.pausing(lane):
                    self.wait()
            self._room.admit(place, clip.window, file.reserved_bytes, in_place=True)
            clip.file, clip.is_kept = file, True
        return True

    def _adopted(self, number: int, identity: str) -> ClipFile | None:
        """Return a clip that a killed run has left, for a visit, if its bytes are true."""
        file = self._cache.adopt(identity)
        if file is None:
            return None
        # Reads the file, hence without the lock.
        if file.reserved_bytes > self._room.largest_clip_bytes or not self._cache.verify(file):
            self._cache.delete(file)
            return None
        with self._lock:
            if number in self._kept:
                self._cache.delete(file)
            else:
                self._kept.restore(number, file)
            return self._kept.take(number)

    def _is_as_known(self, clip: ResidentClip, file: ClipFile) -> bool:
        """Return whether a file's digest is the one that its row names; one that has another goes.

        It came from a first pass, which delivers what nobody can have verified yet.
        """
        name = ClipName.parse(file.path.name)
        digest = name.digest if name is not None else None
        known = clip.place.row.digest if clip.place is not None else b""
        if digest is None or len(digest) != len(known) or digest == known:
            return True
        with self._lock:
            if not self._kept.discard(clip.record.clip, file):
                self._cache.delete(file)
                self.wake()
        return False

    # ------------------------------------------------------------------ the owner's side, under the lock

    def let_go(self, clip: ResidentClip) -> bool:
        """Let go of a clip's file, if it has one; return whether it was deleted, rather than kept for another epoch."""
        file, clip.file = clip.file, None
        if file is None:
            return False
        self._room.free(self._place_of[clip.lane], clip.window, file.reserved_bytes, in_place=clip.is_kept)
        give_back = self._kept.offer if clip.problem is None else self._kept.discard
        stays = give_back(clip.record.clip, file)
        if not stays:
            self._cache.delete(file)
        self.wake()
        return not stays

    def finish_window(self, lane: int, window: int) -> None:
        """A lane's front window is used up, its clips are deleted."""
        self._room.finish_window(self._place_of[lane], window)
        self.wake()

    def finish_reading(self, lane: int) -> None:
        """No more clips come of a lane, unless it is asked for more."""
        self._room.finish_reading(self._place_of[lane])
        self.wake()

    def ask_for_more(self, lanes: Sequence[int]) -> None:
        """Lanes whose windows are all used up may read on; all that wait look whether they are meant."""
        for lane in lanes:
            self._room.resume_reading(self._place_of[lane])
        self.wake()

    @contextlib.contextmanager
    def pausing(self, lane: int) -> Iterator[None]:
        """Let others have the lane's connection while it waits in the middle of a ranged read."""
        place = self._place_of[lane]
        self._turns.pause(place)
        self.wake()
        # What is raised inside ends the lane's read.
        yield
        self._turns.come_back(place)
        self.wake()
        while self._turns.is_paused(place):
            self.wait()

    def is_short(self, lane: int) -> bool:
        """Whether a lane may write a clip, but for the room of deleted ones that are still being read."""
        cost_bytes = self._short.get(lane)
        return cost_bytes is not None and not self._fits(cost_bytes)

    def wait(self) -> None:
        """Let others change something."""
        self._cancellation.raise_if_cancelled()
        self._freed.wait()
        self._cancellation.raise_if_cancelled()

    def wake(self) -> None:
        """Have all that wait look again whether they may go on."""
        self._turns.grant(self._room, self._ready())
        self._freed.notify_all()

    # ------------------------------------------------------------------ inside

    def _has_room(self, lane: int, window: int, cost_bytes: int) -> bool:
        """Return whether a clip may be written now. A deleted clip's room is free once its last reader ends.

        For a front window kept clips are given up where need be: it could wait for room for ever.
        """
        place = self._place_of[lane]
        if not self._room.may_admit(place, window, cost_bytes):
            return False
        shortage_bytes = self._room.shortage_bytes(place, window, cost_bytes, self._kept.used_bytes)
        if shortage_bytes:
            for file in self._kept.give_up(shortage_bytes):
                self._cache.delete(file)
        has_room = self._fits(cost_bytes)
        if has_room:
            self._short.pop(lane, None)
        elif lane not in self._short:
            self._short[lane] = cost_bytes
            self._on_short()
        return has_room

    def _fits(self, cost_bytes: int) -> bool:
        # Survivors give way to whatever is reserved.
        used_bytes = self._cache.used_bytes - self._cache.survivor_bytes
        return used_bytes + cost_bytes <= self._room.clip_budget_bytes

    def _admit_survivor(self, lane: int, window: int, cost_bytes: int, identity: str | None) -> ClipFile | None:
        """Take over what a killed run has left of a clip, where its window may hold it now; None where there is none.

        Its bytes are not looked at yet.
        """
        if identity is None or not self._room.may_admit(self._place_of[lane], window, cost_bytes):
            return None
        survivor = self._cache.adopt(identity)
        if survivor is not None:
            self._room.admit(self._place_of[lane], window, cost_bytes)
        return survivor

    def _admit(self, lane: int, window: int, cost_bytes: int, member: IncomingClip) -> bool:
        """Reserve the room of a clip, if there is any; return whether there was."""
        if not self._has_room(lane, window, cost_bytes):
            return False
        if not self._cache.try_reserve(member.size_bytes):
            # Clips would leave the room; what others have taken of it may never come back.
            raise BudgetTooSmallError(
                f"of the disk budget of {format_bytes(self._disk_budget_bytes)}, {format_bytes(cost_bytes)} for the "
                f"clip {member.name} are no longer free: something else of this run has reserved them",
                "reserve for checkpoints and logs before the first epoch begins, or raise disk_budget",
            )
        self._room.admit(self._place_of[lane], window, cost_bytes)
        return True

    def _too_large(self, name: str, size_bytes: int) -> BudgetTooSmallError:
        missing_bytes = (
            self._room.smallest_budget_for(self._cache.cost_bytes(size_bytes)) - self._room.clip_budget_bytes
        )
        smallest_mb = -(-(self._disk_budget_bytes + missing_bytes * self._num_sharing) // 10**6)
        return BudgetTooSmallError(
            f"the clip {name} has {format_bytes(size_bytes)}; with {self._room.num_lanes} lanes the clip "
            f"budget of {format_bytes(self._room.clip_budget_bytes)} works with clips up to "
            f"{format_bytes(self._room.largest_clip_bytes)}",
            f"set disk_budget to {smallest_mb}MB or more, or use fewer lanes",
        )
