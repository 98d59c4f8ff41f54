from __future__ import annotations

import gc
import os
import pickle
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from reelstream.cancel import Cancellation, Cancelled
from reelstream.errors import ConfigError, DiskError, RankLostError
from reelstream.ranks import MemoryStore, OneRank, RankPatience, StoreRanks
from reelstream.ranks.process import ProcessMark
from reelstream.ranks.store_ranks import reason_of
from reelstream.ranks.threads import ranks_in_threads
from unit.ranks.ranks_kit import World

CALM = Cancellation()


def lost(world: World, rank: int = 0, name: str = "a") -> RankLostError:
    with pytest.raises(RankLostError) as caught:
        world.ranks[rank].exchange(name, b"", CALM)
    return caught.value


# ------------------------------------------------------------------ values


def test_a_process_by_itself_gets_its_own_value_back() -> None:
    assert OneRank().exchange("a", b"x", CALM) == [b"x"]
    assert OneRank().place.world_size == 1
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Cancelled):
        OneRank().exchange("a", b"x", cancellation)


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_all_get_what_each_gave_by_rank(world_size: int) -> None:
    world = World(world_size)
    assert world.exchange_all("a") == [[str(rank).encode() for rank in range(world_size)]] * world_size


def test_a_rank_gets_the_values_of_those_that_gave_long_before() -> None:
    world = World(2)
    early = world.give(1, "a", b"1")
    world.turn(100)
    assert world.ranks[0].exchange("a", b"0", CALM) == [b"0", b"1"]
    world.turn(1)
    assert early.values == [b"0", b"1"]


def test_exchanges_of_several_names_do_not_disturb_each_other() -> None:
    world = World(2)
    for name in ("a", "b/1", "b", "c"):
        world.give(1, name, name.encode())
    for name in ("c", "b", "a", "b/1"):
        assert world.ranks[0].exchange(name, b"", CALM)[1] == name.encode()


def test_a_run_of_weeks_leaves_nothing_in_the_store() -> None:
    world = World(3)
    world.exchange_all("first")
    world.turn(10)
    keys = world.memory.keys
    for number in range(100):
        world.exchange_all(f"epoch/{number}")
    assert world.memory.keys == keys


def test_a_second_run_on_the_same_store_sees_only_its_own_values() -> None:
    first = World(2)
    first.give(0, "a", b"stale")
    first.turn(1)
    first.turn(1)
    second = World(2, store=first.memory)
    second.turn(1)
    assert second.exchange_all("a") == [[b"0", b"1"]] * 2


# ------------------------------------------------------------------ calling off


def test_a_wait_that_is_called_off_ends_and_leaves_nothing_behind() -> None:
    world = World(2)
    cancellation = Cancellation()
    mine = world.ranks[0]
    world.turn(1)
    turn = world.turn

    def turn_and_cancel(seconds: float) -> None:
        turn(seconds)
        cancellation.cancel()

    world.turn = turn_and_cancel  # type: ignore[method-assign, assignment]
    with pytest.raises(Cancelled):
        mine.exchange("a", b"0", cancellation)
    world.turn = turn  # type: ignore[method-assign]
    # What was given stays given: the other rank is not held up by it, and clears up in the end.
    other = world.give(1, "a", b"1")
    world.turn(1)
    assert other.values == [b"0", b"1"]
    world.turn(1)
    assert world.lasting_keys() == set()
    assert world.exchange_all("later") == [[b"0", b"1"]] * 2


def test_nothing_is_given_where_it_was_called_off_before() -> None:
    world = World(2)
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Cancelled):
        world.ranks[0].exchange("a", b"0", cancellation)
    world.turn(1)
    assert world.lasting_keys() == set()


# ------------------------------------------------------------------ ranks that are lost


def test_a_rank_that_falls_silent_is_lost_after_a_while_and_not_before() -> None:
    world = World(3)
    world.exchange_all("first")
    world.alive -= {2}
    world.give(1, "a", b"")
    started_s = world.now_s
    error = lost(world)
    assert "rank 2 of 3 has given no sign of life for 40" in error.fact
    assert "rank 0 waits for it (a)" in error.fact
    assert "resumed" in error.hint
    assert 40 <= world.now_s - started_s < 50


def test_a_rank_that_works_for_hours_is_waited_for() -> None:
    world = World(2)
    world.exchange_all("first")
    waiting = world.give(0, "a", b"0")
    for _ in range(4000):
        world.turn(2.5)
    assert waiting.lost is None
    world.give(1, "a", b"1")
    world.turn(1)
    world.turn(1)
    assert waiting.values == [b"0", b"1"]


def test_a_rank_that_pauses_for_half_a_minute_is_not_lost() -> None:
    world = World(2)
    world.exchange_all("first")
    waiting = world.give(0, "a", b"0")
    for _ in range(5):
        world.alive = {0}
        for _ in range(30):
            world.turn(1)
        world.alive = {0, 1}
        world.turn(1)
    assert waiting.lost is None


def test_a_job_that_was_stopped_as_a_whole_goes_on() -> None:
    world = World(2)
    world.exchange_all("first")
    waiting = world.give(0, "a", b"0")
    for _ in range(3):
        world.turn(1)
        # Nobody looked in this hour; rank 0 is the first to look again.
        world.turn(3600)
    assert waiting.lost is None


def test_a_rank_that_has_died_on_this_machine_is_lost_at_once() -> None:
    world = World(2)
    dead = replace(ProcessMark.of_this_process(), started="1")
    world.courier(1)._mark = dead.to_text()
    world.exchange_all("first")
    world.turn(3)
    world.alive = {0}
    started_s = world.now_s
    assert f"rank 1 of 2 has died: its process {os.getpid()} is gone" in lost(world).fact
    assert world.now_s - started_s < 5


def test_a_rank_that_has_left_tells_why_to_those_who_wait_for_it() -> None:
    world = World(3)
    world.exchange_all("first")
    world.turn(1)
    waiting = [world.give(rank, "a", b"") for rank in (0, 1)]
    world.turn(1)
    world.ranks[2].leave("the disk is full")
    world.turn(0.05)
    world.turn(0.05)
    for exchange in waiting:
        assert exchange.lost is not None
        assert "rank 2 of 3 has left: the disk is full" in exchange.lost.fact


def test_whoever_finds_a_rank_lost_tells_all() -> None:
    world = World(3)
    world.exchange_all("first")
    world.alive -= {2}
    first = lost(world)
    later = world.give(1, "a", b"")
    world.turn(0.05)
    world.turn(0.05)
    assert later.lost is not None
    assert later.lost.fact == first.fact.replace("rank 0", "rank 1")
    world.ranks[0].leave(first.fact)
    world.turn(0.1)
    assert not world.courier(0).has_ended, "it may hold what connects the others"
    world.turn(0.5)
    assert world.courier(0).has_ended


def test_what_a_rank_gave_before_it_left_or_died_counts() -> None:
    world = World(2)
    world.exchange_all("first")
    world.give(1, "a", b"last words")
    world.turn(1)
    world.ranks[1].leave("done")
    world.turn(1)
    world.alive = {0}
    assert world.ranks[0].exchange("a", b"", CALM)[1] == b"last words"
    assert "has left: done" in lost(world, name="b").fact


def test_a_rank_that_leaves_stays_until_its_last_values_are_taken() -> None:
    world = World(2)
    world.exchange_all("first")
    world.give(1, "a", b"1")
    world.turn(1)
    world.alive = {0}
    assert world.ranks[0].exchange("a", b"0", CALM) == [b"0", b"1"]
    world.ranks[0].leave("done")
    world.turn(1)
    assert not world.courier(0).has_ended
    world.alive = {0, 1}
    world.turn(0.1)
    world.turn(0.1)
    assert world.courier(0).has_ended
    assert world.lasting_keys() == set()


def test_a_rank_that_leaves_does_not_stay_for_ever() -> None:
    world = World(2)
    world.exchange_all("first")
    world.give(1, "a", b"1")
    world.turn(1)
    world.alive = {0}
    world.ranks[0].exchange("a", b"0", CALM)
    world.ranks[0].leave("done")
    for _ in range(4):
        world.turn(1)
    assert world.courier(0).has_ended


def test_whoever_has_left_exchanges_no_more() -> None:
    world = World(2)
    world.exchange_all("first")
    world.ranks[0].leave("done")
    world.turn(1)
    assert "rank 0 of 2 has left (done)" in lost(world).fact


def test_ranks_may_start_minutes_apart_and_a_person_is_told() -> None:
    world = World(4, alive={0, 1})
    world.give(1, "a", b"1")

    def come_late() -> None:
        world.alive |= {2, 3}
        for rank in (2, 3):
            world.give(rank, "a", str(rank).encode())

    turn, late_s = world.turn, world.now_s + 700

    def turn_until_late(seconds: float) -> None:
        if world.now_s >= late_s and 3 not in world.alive:
            come_late()
        turn(seconds)

    world.turn = turn_until_late  # type: ignore[method-assign, assignment]
    assert world.ranks[0].exchange("a", b"0", CALM) == [b"0", b"1", b"2", b"3"]
    assert world.notices[0] == "rank 0 of 4 is waiting for 2 ranks (2, 3) of 4, 10.0 s so far (a)"
    assert 6 + 700 / 60 - 2 <= len(world.notices) <= 6 + 700 / 60 + 2


def test_a_rank_that_never_comes_is_lost_after_half_an_hour() -> None:
    for waiting, fact in ((0, "rank 1 of 2 did not come within 30 min"), (1, "rank 0 of 2 did not come within 30 min")):
        world = World(2, alive={waiting})
        started_s = world.now_s
        assert fact in lost(world, waiting).fact
        assert 1800 <= world.now_s - started_s < 1810


# ------------------------------------------------------------------ the store is lost


class BreakingStore(MemoryStore):
    """Breaks when it is told to."""

    broken = False

    def check(self, keys: Sequence[str]) -> bool:
        if self.broken:
            raise ConnectionResetError("the other end hung up")
        return super().check(keys)


def test_a_store_that_is_gone_is_a_lost_rank_for_those_who_wait_and_later_ones() -> None:
    store = BreakingStore()
    world = World(2, store=store)
    world.exchange_all("first")
    waiting = world.give(0, "a", b"")
    store.broken = True
    world.turn(1)
    for error in (waiting.lost, lost(world, name="b")):
        assert error is not None
        assert "what connects the ranks is gone: the other end hung up" in error.fact
        assert isinstance(error.__cause__, ConnectionResetError)


def test_a_store_that_hangs_is_a_lost_rank_too() -> None:
    world = World(2, alive=set())
    started_s = world.now_s
    assert "has not answered rank 0 of 2 for 40" in lost(world).fact
    assert world.now_s - started_s < 50


def test_the_error_survives_pickling() -> None:
    error = RankLostError("rank 1 is gone", "look at it")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.fact, copy.hint) == (RankLostError, error.fact, error.hint)
    assert isinstance(copy, RuntimeError)


def test_others_learn_what_an_error_of_ours_says_and_of_foreign_ones_the_kind() -> None:
    assert reason_of(None) == "it has ended"
    assert reason_of(DiskError("the disk is full", "free some")) == "the disk is full"
    assert reason_of(ValueError("token hf_secret")) == "it raised ValueError"


# ------------------------------------------------------------------ with their threads


def test_threads_of_several_ranks_exchange_at_once() -> None:
    names = [f"lane/{number}" for number in range(6)]
    with ranks_in_threads(3) as ranks, ThreadPoolExecutor(18) as pool:
        calls = [
            pool.submit(rank.exchange, name, f"{name} {rank.place.rank}".encode(), CALM)
            for name in names
            for rank in ranks
        ]
        results = [call.result(60) for call in calls]
    for number, result in enumerate(results):
        assert result == [f"{names[number // 3]} {rank}".encode() for rank in range(3)]


def test_large_values_arrive_whole() -> None:
    with ranks_in_threads(2) as ranks, ThreadPoolExecutor(2) as pool:
        values = [os.urandom(2_500_000), b""]
        calls = [pool.submit(rank.exchange, "a", value, CALM) for rank, value in zip(ranks, values, strict=True)]
        assert [call.result(60) for call in calls] == [values, values]


def test_cancellation_wakes_a_waiting_thread() -> None:
    cancellation = Cancellation()
    with ranks_in_threads(2) as ranks, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ranks[0].exchange, "a", b"", cancellation)
        cancellation.cancel()
        with pytest.raises(Cancelled):
            waiting.result(60)


def test_leaving_ends_the_thread_and_wakes_those_who_wait() -> None:
    before = threading.active_count()
    with ranks_in_threads(2, patience=RankPatience(survey_s=0.05)) as ranks, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(ranks[0].exchange, name, b"", CALM) for name in "ab"]
        ranks[1].leave("it has ended")
        for call in waiting:
            with pytest.raises(RankLostError, match="rank 1 of 2 has left: it has ended"):
                call.result(60)
    assert threading.active_count() == before


def test_ranks_that_nobody_holds_any_more_fall_silent() -> None:
    with ranks_in_threads(2) as ranks:
        thread = StoreRanks(ranks[0].place, MemoryStore()).start()._thread
        assert thread is not None
        gc.collect()
        thread.join(60)
        assert not thread.is_alive()


def test_a_forked_process_takes_no_part() -> None:
    with ranks_in_threads(2) as ranks:
        ranks[0]._process = -1
        with pytest.raises(ConfigError, match="forked"):
            ranks[0].exchange("a", b"", CALM)
        ranks[0]._process = os.getpid()
