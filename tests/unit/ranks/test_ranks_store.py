from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelstream.ranks.meeting import Meeting
from reelstream.ranks.patience import RankPatience, Silence
from reelstream.ranks.process import ProcessMark, node_name
from reelstream.ranks.store import PIECE_BYTES, MemoryStore, clear_away, lay_down, take_up


@pytest.mark.parametrize("size_bytes", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_a_value_of_any_size_comes_back_and_can_be_cleared_away(size_bytes: int) -> None:
    store = MemoryStore()
    value = random.Random(size_bytes).randbytes(size_bytes)
    lay_down(store, "a", value)
    assert take_up(store, "a") == value
    assert all(len(store.get(key)) <= PIECE_BYTES + 10 for key in store.keys)
    clear_away(store, "a")
    clear_away(store, "a")
    assert store.keys == []


def test_a_value_is_there_only_once_all_of_its_pieces_are() -> None:
    order: list[str] = []

    class Watched(MemoryStore):
        def set(self, key: str, value: bytes) -> None:
            order.append(key)
            super().set(key, value)

    lay_down(Watched(), "a", bytes(3 * PIECE_BYTES))
    assert order[-1] == "a"


def test_a_memory_store_counts_and_deletes() -> None:
    store = MemoryStore()
    assert (store.add("n", 1), store.add("n", 2)) == (1, 3)
    assert (store.delete_key("n"), store.delete_key("n"), store.check(["n"])) == (True, False, False)


# ------------------------------------------------------------------ silence


def test_silence_lasts_as_long_as_what_is_seen_stays_the_same() -> None:
    silence = Silence(5)
    assert [silence.look("a", now) for now in (0, 2, 4)] == [0, 2, 4]
    assert [silence.look("b", now) for now in (5, 6)] == [0, 1]


def test_time_in_which_nobody_looked_counts_little() -> None:
    silence = Silence(5)
    silence.look("a", 0)
    assert silence.look("a", 100_000) == 5


@pytest.mark.parametrize("wrong", [{"beat_s": 0}, {"beat_s": 50}, {"survey_s": 0}, {"first_seen_within_s": -1}])
def test_a_patience_that_cannot_work_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        RankPatience(**wrong)


# ------------------------------------------------------------------ meeting


@given(st.integers(1, 4), st.integers(0, 3), st.lists(st.integers(0, 3), max_size=40), st.randoms())
def test_ranks_of_a_run_meet_whatever_earlier_runs_left_behind(
    world_size: int, num_earlier: int, order: list[int], rng: random.Random
) -> None:
    store = MemoryStore()
    for _ in range(num_earlier):
        earlier = [Meeting(rank, world_size, store) for rank in range(world_size)]
        for _ in range(rng.randrange(12)):
            rng.choice(earlier).step()
    meetings = [Meeting(rank, world_size, store) for rank in range(world_size)]
    for rank in order:
        meetings[rank % world_size].step()
        assert {meeting.run for meeting in meetings} <= {None, meetings[0].run}
    for _ in range(2):
        for meeting in reversed(meetings):
            meeting.step()
    assert {meeting.run for meeting in meetings} == {meetings[0].run}


# ------------------------------------------------------------------ processes


def test_a_process_that_lives_is_not_gone() -> None:
    mark = ProcessMark.parse(ProcessMark.of_this_process().to_text())
    assert mark == ProcessMark.of_this_process()
    assert not mark.is_gone()


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")  # noqa: PTH110 - a constant path
def test_a_process_that_died_is_gone_reaped_or_not_and_if_its_number_is_anothers() -> None:
    code = "from reelstream.ranks.process import ProcessMark as M; print(M.of_this_process().to_text().decode())"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    mark = ProcessMark.parse(child.stdout.read())
    child.stdout.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert mark.is_gone(), "a zombie"
    child.wait()
    assert mark.is_gone()
    assert replace(mark, pid=os.getpid()).is_gone()


def test_of_another_machine_or_container_nothing_is_known() -> None:
    mark = ProcessMark.of_this_process()
    dead = replace(mark, started="0")
    assert not replace(dead, node="elsewhere").is_gone()
    assert not replace(dead, namespace="pid:[1]").is_gone()
    assert not replace(dead, started="").is_gone()


def test_a_node_has_one_name_for_all_its_processes() -> None:
    code = "from reelstream.ranks.process import node_name; print(node_name())"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == node_name()
