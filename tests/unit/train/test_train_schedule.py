from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelstream.train.schedule import learning_rate_at, num_total_steps


def rates(total_steps: int, warmup_steps: int) -> list[float]:
    return [
        learning_rate_at(step, highest=1.0, warmup_steps=warmup_steps, total_steps=total_steps)
        for step in range(total_steps)
    ]


def test_golden_rates() -> None:
    assert rates(6, 2) == pytest.approx([0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447], abs=1e-6)


@given(st.integers(1, 300), st.integers(0, 400))
def test_the_rate_rises_then_falls_and_is_never_zero(total_steps: int, warmup_steps: int) -> None:
    all_rates = rates(total_steps, warmup_steps)
    top = all_rates.index(max(all_rates))
    assert all(0 < rate <= 1 for rate in all_rates)
    assert all_rates[: top + 1] == sorted(all_rates[: top + 1])
    assert all_rates[top:] == sorted(all_rates[top:], reverse=True)


def test_steps_beyond_the_estimate_keep_the_last_rate() -> None:
    last = learning_rate_at(9, highest=1.0, warmup_steps=2, total_steps=10)
    assert learning_rate_at(50, highest=1.0, warmup_steps=2, total_steps=10) == last > 0


@pytest.mark.parametrize(
    ("epochs", "max_steps", "samples", "expected"),
    [(2, None, 17, 6), (2, 5, 17, 5), (2, 9, 17, 6), (2, 9, None, 9), (2, None, None, None), (1, None, 0, 1)],
)
def test_the_length_of_a_run_is_the_shorter_of_epochs_and_max_steps(
    epochs: int, max_steps: int | None, samples: int | None, expected: int | None
) -> None:
    steps = num_total_steps(epochs=epochs, max_steps=max_steps, samples_per_epoch=samples, samples_per_step=8)
    assert steps == expected
