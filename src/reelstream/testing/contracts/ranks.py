"""What holds for every `KeyValueStore`, and for all `Ranks`."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import pytest

from reelstream.cancel import Cancellation, Cancelled
from reelstream.errors import RankLostError
from reelstream.ranks import KeyValueStore, Ranks

Value = TypeVar("Value")


class KeyValueStoreContract:
    """Keys and values that all ranks see, none of whose calls waits."""

    def make_store(self) -> KeyValueStore:
        """Return an empty store."""
        raise NotImplementedError

    def test_a_value_is_there_once_it_is_set_and_the_last_one_counts(self) -> None:
        """Of any bytes."""
        store = self.make_store()
        assert not store.check(["a"])
        for value in (b"first", bytes(range(256)), b"x" * (1 << 20)):
            store.set("a", value)
            assert store.check(["a"])
            assert store.get("a") == value

    def test_check_asks_for_all_keys(self) -> None:
        """One that is missing is enough."""
        store = self.make_store()
        store.set("a", b"1")
        store.set("b/c", b"2")
        assert store.check(["a", "b/c"])
        assert not store.check(["a", "b"])

    def test_what_is_removed_is_gone(self) -> None:
        """And removing says whether it was there."""
        store = self.make_store()
        store.set("a", b"1")
        assert store.delete_key("a")
        assert not store.delete_key("a")
        assert not store.check(["a"])

    def test_numbers_add_up_over_threads(self) -> None:
        """From 0, and none is lost."""
        store = self.make_store()
        assert store.add("n", 3) == 3
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            sums = list(threads.map(lambda _: store.add("n", 1), range(40)))
        assert sorted(sums) == list(range(4, 44))


class RanksContract:
    """The processes of a run, played by threads."""

    world_sizes: Sequence[int] = (1, 2, 4)
    """Those that can be had."""

    def make_ranks(self, world_size: int) -> AbstractContextManager[Sequence[Ranks]]:
        """Return the ranks of a run that has just begun, by rank; they live as long as the block."""
        raise NotImplementedError

    def test_each_knows_its_place(self) -> None:
        """By rank."""
        for world_size in self.world_sizes:
            with self.make_ranks(world_size) as all_ranks:
                assert [ranks.place.rank for ranks in all_ranks] == list(range(world_size))
                assert {ranks.place.world_size for ranks in all_ranks} == {world_size}

    def test_each_gets_what_all_gave_by_rank(self) -> None:
        """Several times, of any size, nothing included."""
        for world_size in self.world_sizes:
            with self.make_ranks(world_size) as all_ranks:
                for size_bytes in (0, 1, 3_000_000):
                    name = f"of {size_bytes}"
                    values = [bytes([ranks.place.rank]) * size_bytes for ranks in all_ranks]

                    def give(ranks: Ranks, name: str = name, values: Sequence[bytes] = values) -> list[bytes]:
                        return ranks.exchange(name, values[ranks.place.rank], Cancellation())

                    assert together(all_ranks, give) == [values] * world_size

    def test_names_do_not_wait_for_each_other(self) -> None:
        """Each rank asks in an order of its own, in two threads."""
        for world_size in self.world_sizes:
            with self.make_ranks(world_size) as all_ranks:

                def ask(ranks: Ranks) -> list[list[bytes]]:
                    names = ["one", "other"] if ranks.place.rank % 2 else ["other", "one"]
                    with concurrent.futures.ThreadPoolExecutor(2) as threads:
                        asked = threads.map(lambda name: ranks.exchange(name, name.encode(), Cancellation()), names)
                        return sorted(asked)

                expected = [[b"one"] * world_size, [b"other"] * world_size]
                assert together(all_ranks, ask) == [expected] * world_size

    def test_waiting_can_be_called_off(self) -> None:
        """Where it was before, and what was given stays given."""
        for world_size in self.world_sizes:
            with self.make_ranks(world_size) as all_ranks:
                cancellation = Cancellation()
                cancellation.cancel()
                with pytest.raises(Cancelled):
                    all_ranks[0].exchange("never", b"", cancellation)

    def test_what_one_gives_without_waiting_is_there_for_those_who_ask(self) -> None:
        """Before they ask, and though nobody else may ever ask for it."""
        for world_size in self.world_sizes:
            with self.make_ranks(world_size) as all_ranks:
                all_ranks[-1].give("nobody asks", b"")
                all_ranks[-1].give("some ask", b"given")

                def ask(ranks: Ranks) -> list[bytes]:
                    return ranks.exchange("some ask", b"asked", Cancellation())

                expected = [b"asked"] * (world_size - 1) + [b"given"]
                assert together(all_ranks[:-1], ask) == [expected] * (world_size - 1)

    def test_those_who_wait_for_one_that_left_learn_its_reason(self) -> None:
        """Leaving twice is no more than leaving."""
        for world_size in self.world_sizes:
            if world_size == 1:
                continue
            with self.make_ranks(world_size) as all_ranks:
                all_ranks[-1].leave("it had enough")
                all_ranks[-1].leave("it had enough, still")

                def wait(ranks: Ranks) -> str:
                    with pytest.raises(RankLostError) as raised:
                        ranks.exchange("all of us", b"", Cancellation())
                    return str(raised.value)

                for message in together(all_ranks[:-1], wait):
                    assert "it had enough" in message


def together(all_ranks: Sequence[Ranks], work: Callable[[Ranks], Value]) -> list[Value]:
    """Return what `work` gives for each rank, all at the same time."""
    with concurrent.futures.ThreadPoolExecutor(max(1, len(all_ranks))) as threads:
        return list(threads.map(work, all_ranks))
