from __future__ import annotations

from typing import Any

import pytest

from reelstream.errors import ConfigError
from reelstream.prefetch.options import StreamOptions
from reelstream.types import AudioSampling


def options(**changes: Any) -> StreamOptions:
    return StreamOptions(repo_id="sample/data", subsets=("s",), **changes)


@pytest.mark.parametrize("name", ["tail", "spans", "split", "media", "check", "on_bad_archive"])
def test_a_word_that_an_option_does_not_know_is_refused_with_those_that_it_does(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} must be one of '.*', not 'sideways'"):
        options(**{name: "sideways"})


@pytest.mark.parametrize("audio", [True, {"sampling_rate": 16_000}])
def test_sound_is_asked_for_by_how_it_is_taken(audio: Any) -> None:
    with pytest.raises(ConfigError, match="audio must be an AudioSampling"):
        options(audio=audio)
    assert options(audio=AudioSampling()).audio == AudioSampling()
