from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from reelstream.cache import ClipCache, ClipFile, DiskBudget
from reelstream.errors import BudgetTooSmallError
from reelstream.prefetch.paths import PathLease, PathLeases
from reelstream.types import Position

CLIP_BYTES = 4096


class Shelf:
    """Clips in a cache, and the paths that are lent of them."""

    def __init__(self, folder: Path, *, lease_samples: int = 3, give_up_after_s: float = 10.0) -> None:
        self.cache = ClipCache(folder, DiskBudget(1 << 30).account("clips"))
        self.paths = PathLeases(lease_samples=lease_samples, give_up_after_s=give_up_after_s)
        self.num_freed = 0
        self._next_slot = 0

    def clip(self) -> ClipFile:
        """Write one."""
        assert self.cache.try_reserve(CLIP_BYTES)
        return self.cache.write(CLIP_BYTES, [bytes(CLIP_BYTES)])

    def lend(self, clip: ClipFile) -> PathLease:
        """Serve a sample of it."""
        position, self._next_slot = Position(0, 0, self._next_slot), self._next_slot + 1
        return self.paths.lend(position, clip, self.cache.lease(clip))

    def lend_last(self) -> PathLease:
        """Serve the only sample of a new clip."""
        clip = self.clip()
        lease = self.lend(clip)
        self.cache.delete(clip)
        return lease

    def is_short(self, most_clips: int) -> Callable[[], bool]:
        """Whether there are more clips on disk than that."""
        return lambda: self.cache.used_bytes > most_clips * CLIP_BYTES

    def make_way(self, most_clips: int, waited_s: float = 0.0) -> float | None:
        """Let paths end until there are so few clips."""

        def note() -> None:
            self.num_freed += 1

        return self.paths.make_way(self.is_short(most_clips), waited_s=waited_s, on_freed=note)


def test_a_held_path_lives_beyond_its_clips_deletion_until_it_is_released(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    lease = shelf.lend_last()
    for _ in range(10):
        shelf.lend_last()
    assert lease.path.exists()
    lease.release()
    assert not lease.path.exists()
    lease.release()


def test_a_release_is_told_to_whoever_waits_for_room(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    told: list[int] = []
    shelf.paths.on_release = lambda: told.append(shelf.cache.used_bytes)
    with shelf.lend_last():
        assert told == []
    assert told == [0]


def test_a_path_that_was_let_go_of_ends_after_so_many_later_samples(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, lease_samples=3)
    first = shelf.lend_last().path
    later = [shelf.lend_last().path for _ in range(2)]
    assert first.exists()
    later.append(shelf.lend_last().path)
    assert not first.exists()
    assert all(path.exists() for path in later)


def test_a_path_that_is_let_go_of_late_ends_at_the_next_sample(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, lease_samples=3)
    held = [shelf.lend_last()]
    for _ in range(9):
        shelf.lend_last()
    path = held[0].path
    held.clear()
    assert path.exists()
    shelf.lend_last()
    assert not path.exists()


def test_no_later_samples_means_at_the_next_one(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, lease_samples=0)
    paths = [shelf.lend_last().path for _ in range(3)]
    assert [path.exists() for path in paths] == [False, False, True]


def test_a_clip_lives_as_long_as_any_of_its_samples_paths(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    clip = shelf.clip()
    one, other = shelf.lend(clip), shelf.lend(clip)
    shelf.cache.delete(clip)
    one.release()
    assert other.path.exists()
    other.release()
    assert not other.path.exists()


def test_what_is_told_consumed_ends_with_all_before_it_held_or_not(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, lease_samples=100)
    leases = [shelf.lend_last() for _ in range(6)]
    leases[3].release()
    # The lease of the sample that is asked for may have ended already.
    shelf.paths.consumed(Position(0, 0, 3))
    assert [lease.path.exists() for lease in leases] == [False] * 4 + [True] * 2
    shelf.paths.consumed(Position(0, 0, 1))
    shelf.paths.consumed(Position(5, 5, 5))
    assert len(shelf.paths) == 2


def test_where_room_is_short_unheld_paths_end_oldest_first_and_a_warning_says_so_once(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, lease_samples=100)
    held = shelf.lend_last()
    paths = [shelf.lend_last().path for _ in range(4)]
    with pytest.warns(RuntimeWarning, match="raise disk_budget") as caught:
        assert [shelf.make_way(most_clips) for most_clips in (3, 2)] == [None, None]
    assert len(caught) == 1
    assert [path.exists() for path in paths] == [False, False, False, True]
    assert held.path.exists()
    assert shelf.num_freed == 2


def test_where_there_is_room_nothing_ends(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, lease_samples=100)
    paths = [shelf.lend_last().path for _ in range(4)]
    assert shelf.make_way(most_clips=4) is None
    assert all(path.exists() for path in paths)
    assert shelf.num_freed == 0


def test_paths_of_clips_that_are_in_use_anyway_do_not_end_for_room(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, lease_samples=100)
    path = shelf.lend(shelf.clip()).path
    assert shelf.make_way(most_clips=0) is None
    assert path.exists()
    assert len(shelf.paths) == 1


def test_held_paths_are_waited_for_and_then_an_error_names_them(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, give_up_after_s=10)
    held = [shelf.lend_last() for _ in range(2)]
    again_s = shelf.make_way(most_clips=1, waited_s=9.9)
    assert again_s is not None
    assert again_s > 0
    with pytest.raises(BudgetTooSmallError, match="2 used-up clips") as caught:
        shelf.make_way(most_clips=1, waited_s=10)
    assert 'sample["lease"].release()' in caught.value.hint
    held.clear()
    with pytest.warns(RuntimeWarning):
        assert shelf.make_way(most_clips=1, waited_s=11) is None


def test_a_late_path_that_is_let_go_of_while_room_is_short_ends_without_a_warning(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, lease_samples=1)
    held = [shelf.lend_last(), shelf.lend_last(), shelf.lend_last()]
    assert shelf.make_way(most_clips=2) is not None
    held.pop(0)
    assert shelf.make_way(most_clips=2) is None
    assert shelf.num_freed == 1


def test_closing_ends_all(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    leases = [shelf.lend_last() for _ in range(3)]
    shelf.paths.close()
    assert not any(lease.path.exists() for lease in leases)
    assert shelf.cache.used_bytes == 0
    leases[0].release()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda lease: pickle.loads(pickle.dumps(lease))])
def test_a_copy_names_the_path_and_holds_nothing(copied: Callable[[PathLease], PathLease], tmp_path: Path) -> None:
    lease = Shelf(tmp_path).lend_last()
    other = copied(lease)
    assert other.path == lease.path
    other.release()
    assert lease.path.exists()
