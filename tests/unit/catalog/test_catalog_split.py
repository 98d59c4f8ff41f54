from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from catalog_kit import MadeRepository, record
from reelstream.catalog import Split
from reelstream.catalog.split import file_name_hash, taken_clips
from reelstream.errors import ConfigError

NAMES = [f"folder/clip-{number}.mp4" for number in range(1000)]
SAMPLES = np.full(1000, 7, np.int64)


def held_out(**rule: float) -> set[str]:
    split = Split(side="held_out", **rule)  # type: ignore[arg-type]
    return {name for name, taken in zip(NAMES, taken_clips(split, NAMES, SAMPLES), strict=True) if taken}


def test_the_rule_is_the_documented_one_and_never_changes() -> None:
    digest = hashlib.sha256(b"reelstream held out\nDog 1.mp4").digest()
    assert file_name_hash("a/b/Dog 1.mp4") == int.from_bytes(digest[:8], "big") == 7506449842452216061
    assert sorted(held_out(share=0.01)) == [
        "folder/clip-156.mp4",
        "folder/clip-516.mp4",
        "folder/clip-68.mp4",
        "folder/clip-747.mp4",
        "folder/clip-791.mp4",
        "folder/clip-797.mp4",
        "folder/clip-890.mp4",
        "folder/clip-897.mp4",
    ]


def test_the_folder_makes_no_difference_and_the_case_of_the_name_does() -> None:
    assert file_name_hash("a/b/x.mp4") == file_name_hash("x.mp4") != file_name_hash("X.mp4")


def test_about_the_share_is_held_out_and_a_larger_share_holds_out_all_of_a_smaller_one() -> None:
    small, large = held_out(share=0.05), held_out(share=0.2)
    assert small < large
    assert 30 <= len(small) <= 70
    assert 160 <= len(large) <= 240


def test_a_number_of_clips_is_held_out_exactly_where_names_differ() -> None:
    assert len(held_out(clips=50)) == 50
    assert held_out(clips=49) < held_out(clips=50)


def test_clips_of_one_name_stay_together() -> None:
    paths = [f"{folder}/{number}.mp4" for number in range(10) for folder in "ab"]
    taken = taken_clips(Split(side="held_out", clips=3), paths, np.ones(20, np.int64))
    assert taken.sum() == 4
    assert (taken[::2] == taken[1::2]).all()


def test_the_two_sides_are_each_others_complement() -> None:
    sides = [taken_clips(Split(side=side, share=0.1), NAMES, SAMPLES) for side in ("training", "held_out")]
    assert (sides[0] ^ sides[1]).all()


def test_the_first_samples_are_of_the_lowest_hashes_and_the_same_for_each_larger_share() -> None:
    some = held_out(share=0.2, most_samples=70)
    assert len(some) == 10
    assert some == held_out(share=0.5, most_samples=76) == held_out(clips=10)
    assert len(held_out(share=0.2, most_samples=1)) == 1


def test_all_may_be_held_out_of_the_other_side() -> None:
    assert held_out(share=1.0) == set(NAMES)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"side": "all", "share": 0.1}, "split is all"),
        ({"side": "training"}, "neither of held_out_share and held_out_clips"),
        ({"side": "training", "share": 0.1, "clips": 3}, "each of held_out_share and held_out_clips"),
        ({"side": "training", "share": 1.0}, "held_out_share must be above 0 and below 1, not 1.0"),
        ({"side": "held_out", "share": 0.0}, "held_out_share must be above 0"),
        ({"side": "held_out", "clips": 0}, "held_out_clips must be at least 1, not 0"),
        ({"side": "training", "clips": 2, "most_samples": 9}, "held_out_samples is set, and split is training"),
    ],
)
def test_a_rule_that_contradicts_itself_is_refused(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Split(**values)  # type: ignore[arg-type]


def test_a_side_that_would_be_empty_is_refused_with_what_would_do() -> None:
    with pytest.raises(ConfigError, match=r"held_out_share 1e-09 holds out none of 1000 clips") as refused:
        held_out(share=1e-9)
    assert held_out(share=float(str(refused.value.hint).rpartition("such as ")[2].partition(",")[0]))
    for split in (Split(side="training", clips=1000), Split(side="training", share=0.999_999)):
        with pytest.raises(ConfigError, match="holds out all of 1000 clips"):
            taken_clips(split, NAMES, SAMPLES)


def test_a_catalog_on_one_side_counts_and_finds_only_what_is_on_it(tmp_path: Path) -> None:
    rows = {
        f"{subset}/{subset}_oe_qa.json": [record(f"{subset}/{number}.mp4") for number in range(40) for _ in range(2)]
        for subset in ("one", "two")
    }
    whole = MadeRepository(rows).prepare(tmp_path, "one", "two")
    rule = {"share": 0.3}
    training = whole.on_side(Split(side="training", **rule))  # type: ignore[arg-type]
    other = whole.on_side(Split(side="held_out", **rule))  # type: ignore[arg-type]
    assert training.num_clips == other.num_clips == whole.num_clips == 80
    assert training.num_samples == whole.num_samples == whole.num_taken_samples == 160
    assert training.num_taken_clips + other.num_taken_clips == 80
    assert training.num_taken_samples + other.num_taken_samples == 160
    assert training.fingerprint == whole.fingerprint
    assert training.clips_in("one") == training.clips_in("two") == 40 - other.clips_in("one")
    assert training.samples_in("one") == 2 * training.clips_in("one")
    for number in range(40):
        found = [catalog.find("one", f"one/{number}.mp4") for catalog in (whole, training, other)]
        assert found[0] is not None
        assert sorted(clip is None for clip in found[1:]) == [False, True]
        assert found[0] in found[1:]
        assert training.takes(found[0]) == (found[1] is not None)
    assert training.on_side(Split()).num_taken_clips == 80
