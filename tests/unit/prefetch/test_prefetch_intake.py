"""Who is let in, with threads at the very places where they may be called off."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reelstream.archive import Member
from reelstream.cache import ClipCache, DiskBudget, KeptClips, Room
from reelstream.cancel import Cancellation, Cancelled
from reelstream.errors import BudgetTooSmallError
from reelstream.prefetch.intake import Intake

pytestmark = pytest.mark.timeout(60)

CLIP_BYTES = 4096


class MadeMember(Member):
    """Bytes of its own."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(
            name="clip",
            size_bytes=size_bytes,
            problem=None,
            link_target=None,
            header_offset=0,
            _reader=None,  # type: ignore[arg-type]
            _left_bytes=0,
        )

    def chunks(self) -> Iterator[memoryview]:
        yield memoryview(bytes(self.size_bytes))


class Parts:
    """An intake of two lanes and one connection, with room for eight clips."""

    def __init__(self, folder: Path) -> None:
        self.lock = threading.Lock()
        self.budget = DiskBudget(8 * CLIP_BYTES)
        self.cache = ClipCache(folder, self.budget.account("clips"))
        self.room = Room(clip_budget_bytes=8 * CLIP_BYTES, num_lanes=2, window_bytes=2 * CLIP_BYTES)
        self.cancellation = Cancellation()
        self.intake = Intake(
            lock=self.lock,
            lanes=[0, 1],
            room=self.room,
            cache=self.cache,
            kept=KeptClips(0),
            connections=1,
            disk_budget_bytes=8 * CLIP_BYTES,
            ready=lambda: [0, 0],
            cancellation=self.cancellation,
        )

    def until(self, reached: str) -> None:
        """Wait until lane 0 pauses, or comes back."""
        with self.lock:
            lanes = getattr(self.intake._turns, f"_{reached}")
            self.intake._freed.wait_for(lambda: 0 in lanes)


def test_a_lane_called_off_while_it_comes_back_to_its_connection_holds_no_room(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    intake = parts.intake
    raised: list[type[BaseException]] = []

    def write_ahead() -> None:
        intake.begin_range(0, 0)
        try:
            for window in range(8):
                intake.write(0, window, MadeMember(CLIP_BYTES), None)
        except Cancelled as error:
            raised.append(type(error))

    thread = threading.Thread(target=write_ahead)
    thread.start()
    parts.until("paused")
    # The other lane has the connection meanwhile.
    assert intake.begin_range(1, 0) > 0
    used_bytes = parts.budget.used_bytes
    with parts.lock:
        intake.finish_reading(1)
    parts.until("coming_back")
    parts.cancellation.cancel()
    with parts.lock:
        intake.wake()
    thread.join()
    assert raised == [Cancelled]
    assert parts.budget.used_bytes == used_bytes == parts.room.held_bytes
    assert parts.cache.check() == []


def test_a_write_that_fails_gives_its_room_back(tmp_path: Path) -> None:
    parts = Parts(tmp_path)

    class Broken(MadeMember):
        def chunks(self) -> Iterator[memoryview]:
            yield memoryview(b"some")
            raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        parts.intake.write(0, 0, Broken(100), None)
    assert parts.budget.used_bytes == parts.room.held_bytes == 0
    assert list(tmp_path.iterdir()) == []


def test_a_clip_beyond_the_largest_is_refused_before_anything_is_reserved(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    with pytest.raises(BudgetTooSmallError, match="disk_budget to 1MB"):
        parts.intake.write(0, 0, MadeMember(3 * CLIP_BYTES), None)
    assert parts.budget.used_bytes == 0
