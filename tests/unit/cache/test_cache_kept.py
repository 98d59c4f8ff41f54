"""Clips that stay after their last use: which, how long, and what they leave to the others."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reelstream.cache import ClipCache, ClipFile, DiskBudget, KeepLimits, KeptClips, Lease

BLOCK = 4096


def clip(num_blocks: int = 1) -> ClipFile:
    return ClipFile(Path("clip-0"), num_blocks * BLOCK, num_blocks * BLOCK)


def limits(**changes: float) -> KeepLimits:
    asked: dict[str, float] = {
        "clip_budget_bytes": 1_000_000_000,
        "num_lanes": 8,
        "window_clips": 10,
        "window_bytes": 80_000_000,
        "mean_clip_bytes": 4_000_000,
        "num_clips": 1000,
    }
    return KeepLimits.of(**(asked | changes))  # type: ignore[arg-type]


def test_two_windows_a_lane_with_a_quarter_to_spare_are_left_to_what_moves() -> None:
    assert limits() == KeepLimits(kept_bytes=200_000_000, moving_bytes=800_000_000)


def test_windows_are_no_larger_than_their_limit_in_bytes() -> None:
    assert limits(window_bytes=20_000_000).moving_bytes == 2 * 8 * 20_000_000


def test_nothing_is_kept_where_two_windows_a_lane_take_the_whole_budget() -> None:
    assert limits(window_clips=100) == KeepLimits(kept_bytes=0, moving_bytes=1_000_000_000)


def test_all_may_be_kept_where_all_fits_and_then_nothing_needs_protection() -> None:
    assert limits(num_clips=238) == KeepLimits(kept_bytes=1_000_000_000, moving_bytes=None)
    assert limits(num_clips=239).moving_bytes is not None


def test_windows_of_tiny_clips_leave_room_for_ranged_reads() -> None:
    assert limits(mean_clip_bytes=5000, num_clips=10**6).moving_bytes == 2 * 8 * 2**20


def test_a_clip_stays_while_there_is_room_and_is_never_evicted_for_another() -> None:
    kept = KeptClips(2 * BLOCK)
    first, second = clip(), clip()
    assert kept.offer(1, first)
    assert kept.offer(2, second)
    assert not kept.offer(3, clip())
    assert (kept.take(1), kept.take(2), kept.take(3)) == (first, second, None)
    assert (kept.used_bytes, kept.idle_bytes, len(kept), kept.files) == (2 * BLOCK, 0, 2, [first, second])


def test_a_smaller_clip_may_still_stay_where_a_larger_one_does_not() -> None:
    kept = KeptClips(2 * BLOCK)
    assert kept.offer(1, clip())
    assert not kept.offer(2, clip(2))
    assert kept.offer(3, clip())
    assert (1 in kept, 2 in kept, 3 in kept) == (True, False, True)


def test_a_second_copy_of_a_kept_clip_does_not_stay() -> None:
    kept = KeptClips(4 * BLOCK)
    file = clip()
    assert kept.offer(1, file)
    assert not kept.offer(1, clip())
    assert kept.files == [file]


def test_the_last_kept_is_given_up_first_and_never_one_that_is_in_use() -> None:
    kept = KeptClips(4 * BLOCK)
    files = [clip() for _ in range(4)]
    for number, file in enumerate(files):
        assert kept.offer(number, file)
    kept.take(3)
    assert kept.give_up(0) == []
    assert kept.give_up(BLOCK + 1) == [files[2], files[1]]
    assert (kept.used_bytes, kept.idle_bytes) == (2 * BLOCK, BLOCK)
    assert kept.give_up(100 * BLOCK) == [files[0]]
    assert kept.offer(3, files[3]), "a visit's end leaves it kept"
    assert kept.give_up(1) == [files[3]]
    assert (kept.used_bytes, kept.idle_bytes, len(kept)) == (0, 0, 0)


def test_a_clip_found_bad_is_given_to_nobody_and_goes_with_the_last_that_uses_it() -> None:
    kept = KeptClips(4 * BLOCK)
    file = clip()
    assert kept.offer(1, file)
    assert kept.take(1) is kept.take(1) is file
    assert kept.discard(1, file), "another visit uses it"
    assert kept.take(1) is None
    assert 1 not in kept
    assert kept.used_bytes == BLOCK, "it is still on disk"
    assert not kept.offer(1, clip()), "no second copy before the first is gone"
    assert not kept.offer(1, file)
    assert (kept.used_bytes, kept.idle_bytes, len(kept)) == (0, 0, 0)
    assert kept.offer(1, clip())


def test_a_bad_clip_that_is_not_kept_goes_at_once() -> None:
    kept = KeptClips(4 * BLOCK)
    assert not kept.discard(1, clip())
    assert kept.offer(1, clip())
    assert not kept.discard(1, clip()), "another copy of it"
    assert 1 in kept


def test_a_survivor_beyond_the_limit_goes_after_its_next_visit() -> None:
    kept = KeptClips(BLOCK)
    first, second = clip(), clip()
    kept.restore(1, first)
    kept.restore(2, second)
    assert kept.take(1) is first
    assert not kept.offer(1, first)
    assert kept.take(2) is second
    assert kept.offer(2, second), "within the limit by now"
    assert kept.used_bytes == kept.idle_bytes == BLOCK


def test_an_epoch_that_is_broken_off_leaves_all_good_clips_kept_and_idle() -> None:
    kept = KeptClips(4 * BLOCK)
    good, bad = clip(), clip()
    assert kept.offer(1, good)
    assert kept.offer(2, bad)
    for number in (1, 1, 2, 2):
        kept.take(number)
    kept.discard(2, bad)
    kept.end_visits()
    assert kept.files == [good]
    assert kept.idle_bytes == kept.used_bytes == BLOCK


def test_clearing_a_cache_leaves_the_kept_clips_leased_or_not(tmp_path: Path) -> None:
    budget = DiskBudget(100 * BLOCK)
    cache = ClipCache(tmp_path, budget.account("clips"))
    kept = KeptClips(100 * BLOCK)

    def put(data: bytes) -> ClipFile:
        assert cache.try_reserve(len(data))
        return cache.write(len(data), [data])

    stays, goes, leased = put(b"x" * 5000), put(b"y"), put(b"z")
    assert kept.offer(0, stays)
    lease = cache.lease(leased)
    cache.clear(keep=kept.files)
    assert cache.check() == []
    assert budget.used_bytes == 3 * BLOCK
    lease.end()
    assert goes.deleted
    assert (budget.used_bytes, cache.check()) == (2 * BLOCK, [])
    assert stays.path.read_bytes() == b"x" * 5000
    cache.clear()
    assert (budget.used_bytes, list(tmp_path.iterdir())) == (0, [])


class KeptMachine(RuleBasedStateMachine):
    """Any sequence of visits keeps the books of cache, account and kept clips together, and no leased file is lost."""

    limit_bytes = 6 * BLOCK

    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory()
        self.budget = DiskBudget(12 * BLOCK)
        self.cache = ClipCache(Path(self.temporary.name), self.budget.account("clips"))
        self.kept = KeptClips(self.limit_bytes)
        self.visits: list[tuple[int, ClipFile]] = []
        self.leases: list[Lease] = []
        self.contents: dict[int, bytes] = {}

    @rule(number=st.integers(0, 8))
    def begin_visit(self, number: int) -> None:
        file = self.kept.take(number)
        if file is None:
            content = bytes([number]) * (1 + number * 1000)
            if not self.cache.try_reserve(len(content)):
                for given_up in self.kept.give_up(self.cache.cost_bytes(len(content))):
                    self.cache.delete(given_up)
                return
            file = self.cache.write(len(content), [content])
            self.contents[number] = content
        self.visits.append((number, file))

    @precondition(lambda self: self.visits)
    @rule(data=st.data())
    def lease(self, data: st.DataObject) -> None:
        _, file = data.draw(st.sampled_from(self.visits))
        self.leases.append(self.cache.lease(file))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def end_lease(self, data: st.DataObject) -> None:
        lease = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        assert lease.path.exists()
        lease.end()

    @precondition(lambda self: self.visits)
    @rule(data=st.data(), bad=st.booleans())
    def end_visit(self, data: st.DataObject, bad: bool) -> None:
        number, file = self.visits.pop(data.draw(st.integers(0, len(self.visits) - 1)))
        if not (self.kept.discard(number, file) if bad else self.kept.offer(number, file)):
            self.cache.delete(file)

    @rule()
    def end_epoch(self) -> None:
        self.visits.clear()
        self.kept.end_visits()
        self.cache.clear(keep=self.kept.files)

    @invariant()
    def books_and_disk_agree(self) -> None:
        assert self.cache.check() == []
        files = self.kept.files
        assert self.kept.used_bytes == sum(file.reserved_bytes for file in files) <= self.limit_bytes
        in_use = {file for _, file in self.visits if file in files}
        assert self.kept.idle_bytes == self.kept.used_bytes - sum(file.reserved_bytes for file in in_use)
        assert all(file.path.exists() and not file.deleted for file in files)
        assert all(not file.deleted for _, file in self.visits)
        for number in {number for number, _ in self.visits if number in self.kept}:
            file = self.kept.take(number)
            assert file is not None
            assert file.path.read_bytes() == self.contents[number]
            assert self.kept.offer(number, file)

    def teardown(self) -> None:
        self.temporary.cleanup()


KeptMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestKeptMachine = KeptMachine.TestCase


def test_in_use_and_not_kept_is_a_mistake_of_the_caller() -> None:
    kept = KeptClips(BLOCK)
    file = clip()
    assert kept.offer(1, file)
    with pytest.raises(AssertionError, match="not in use"):
        kept.offer(1, file)
