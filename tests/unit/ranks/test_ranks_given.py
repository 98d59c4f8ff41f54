"""Values that nobody waits for, and values of exchanges that were called off."""

from __future__ import annotations

from unit.ranks.ranks_kit import World


def test_what_is_called_off_before_it_was_carried_is_given_all_the_same() -> None:
    world = World(2)
    world.exchange_all("met")
    called_off = world.give(0, "a", b"0")
    world.courier(0).give_up(called_off)
    asked = world.give(1, "a", b"1")
    for _ in range(4):
        world.turn(0.05)
    assert asked.values == [b"0", b"1"]
    assert called_off.values is None


def test_what_is_given_before_the_ranks_have_met_is_given_once_they_have() -> None:
    world = World(2)
    world.ranks[1].give("a", b"1")
    asked = world.give(0, "a", b"0")
    for _ in range(20):
        world.turn(0.2)
    assert asked.values == [b"0", b"1"]


def test_values_that_all_need_no_more_are_cleared_away() -> None:
    world = World(2)
    world.exchange_all("met")
    before = set(world.memory.keys)
    for rank in range(2):
        world.ranks[rank].give("a", b"left")
    for _ in range(4):
        world.turn(0.05)
    assert set(world.memory.keys) == before
