from __future__ import annotations

from typing import Any

import pytest

from reelstream.errors import StateError
from reelstream.prefetch.state import STATE_VERSION, EpochState


@pytest.mark.parametrize(
    "values", [[], "", 3, {}, {"version": STATE_VERSION}, {"version": STATE_VERSION, "spans": [], "lanes": "none"}]
)
def test_what_is_no_state_of_an_epoch_is_refused_in_a_sentence(values: Any) -> None:
    with pytest.raises(StateError, match=r"the saved data state (has version|is damaged)"):
        EpochState.from_json(values)
