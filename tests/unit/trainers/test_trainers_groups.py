"""How samples are dealt to the batches of a step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelstream.trainers.groups import deal, num_steps


@given(num_samples=st.integers(1, 60), num_batches=st.integers(1, 12))
def test_samples_are_dealt_in_order_and_evenly(num_samples: int, num_batches: int) -> None:
    if num_samples < num_batches:
        return
    batches = list(deal(range(num_samples), num_batches))
    assert len(batches) == num_batches
    assert [number for batch in batches for number in batch] == list(range(num_samples))
    assert max(map(len, batches)) - min(map(len, batches)) <= 1
    assert len(batches[0]) == max(map(len, batches))


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "accumulate", "drop_last", "expected"),
    [(46, 4, 1, False, 12), (46, 4, 1, True, 11), (46, 4, 3, False, 4), (46, 4, 3, True, 3), (38, 4, 3, False, 3)],
)
def test_steps_of_an_epoch(num_samples: int, batch_size: int, accumulate: int, drop_last: bool, expected: int) -> None:
    steps = num_steps(num_samples, batch_size=batch_size, accumulate=accumulate, drop_last=drop_last)
    assert steps == expected
