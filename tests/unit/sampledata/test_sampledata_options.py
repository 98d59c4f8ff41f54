from __future__ import annotations

from typing import Any

import pytest

from reelstream.errors import ConfigError
from reelstream.sampledata import SampleOptions
from reelstream.sampledata.options import parse_size


def test_defaults_follow_the_number_of_clips() -> None:
    assert (SampleOptions(num_clips=700).archives, SampleOptions(num_clips=700).heldout) == (8, 70)
    assert (SampleOptions(num_clips=4).archives, SampleOptions(num_clips=4).heldout) == (4, 20)
    assert SampleOptions(num_clips=700, num_heldout=0).heldout == 0


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"num_clips": 0}, "of 0 clips cannot be made"),
        ({"num_clips": 1}, "there are two subsets"),
        ({"num_clips": 15, "with_flaws": True}, "each flaw needs a clip of its own"),
        ({"seed": -1}, "seed is -1"),
        ({"num_archives": 1}, "cannot be put into 1 archives"),
        ({"num_archives": 41}, "40 clips cannot be put into 41 archives"),
        ({"num_heldout": -1}, "held-out clips is -1"),
        ({"sizes": ()}, "No frame size"),
        ({"sizes": ((321, 240),)}, "321x240 cannot be used"),
        ({"sizes": ((64, 64),)}, "64x64 cannot be used"),
        ({"sizes": ((640, 128),)}, "too narrow"),
        ({"questions": "some"}, "questions is 'some'"),
        ({"packing": "rar"}, "packing is 'rar'"),
        ({"packing": "files", "with_flaws": True}, "cannot be planted among loose files"),
        ({"repo_id": "../elsewhere"}, "not of the form"),
        ({"repo_id": "nobody"}, "not of the form"),
        ({"clip_bytes": 10}, "Clips of 10 bytes"),
        ({"min_duration_s": 9.0, "max_duration_s": 8.0}, "Clips of 9.0 to 8.0 s"),
        ({"max_duration_s": 1000.0}, "Clips of 5.0 to 1000.0 s"),
    ],
)
def test_wrong_options_are_refused_with_a_way_out(changes: dict[str, Any], fact: str) -> None:
    with pytest.raises(ConfigError, match=fact) as raised:
        SampleOptions(**({"num_clips": 40} | changes))
    assert raised.value.hint


def test_a_size_is_read_from_text() -> None:
    assert parse_size("320x240") == (320, 240)
    for text in ("320", "320X240", "-320x240", "320x240x3"):
        with pytest.raises(ConfigError, match="not a frame size"):
            parse_size(text)
