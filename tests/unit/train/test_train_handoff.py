from __future__ import annotations

import threading

import pytest

from reelstream.cancel import Cancelled
from reelstream.train.handoff import Handoff


def test_items_come_out_in_order_and_are_counted() -> None:
    handoff: Handoff[int] = Handoff(2)
    handoff.put(1)
    handoff.put(2)
    assert [handoff.get(), handoff.get()] == [1, 2]
    assert handoff.statistics.num_items == 2
    assert handoff.statistics.mean_occupancy == 1.5


def test_closing_wakes_a_maker_that_waits_for_room() -> None:
    handoff: Handoff[int] = Handoff(1)
    handoff.put(1)
    woken = threading.Event()

    def put() -> None:
        with pytest.raises(Cancelled):
            handoff.put(2)
        woken.set()

    thread = threading.Thread(target=put)
    thread.start()
    handoff.close()
    thread.join()
    assert woken.is_set()


def test_an_error_comes_after_the_items_made_before_it() -> None:
    handoff: Handoff[int] = Handoff(2)
    handoff.put(1)
    handoff.fail(OSError("gone"))
    assert handoff.get() == 1
    with pytest.raises(OSError, match="gone"):
        handoff.get()


def test_a_closed_and_empty_queue_has_nothing_to_give() -> None:
    handoff: Handoff[int] = Handoff(2)
    handoff.close()
    with pytest.raises(Cancelled):
        handoff.get()
