"""Our preprocessing against the families' own processors: what they gave once, and live where torchvision is there."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from train_processor_kit import (
    CASES,
    FAMILIES,
    RECORDED,
    Case,
    config_of,
    digest_of,
    has_torchvision,
    our_batch,
    their_batch,
)

live = pytest.mark.skipif(not has_torchvision(), reason="torchvision is not installed")
# A resize may round one grey level otherwise on another machine; the values are divided by a spread of at least 0.25.
ONE_GREY_LEVEL = 1 / 255 / 0.25 + 1e-6


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_batches_are_those_that_the_familys_processor_was_recorded_to_make(family: str, case: Case) -> None:
    recorded: dict[str, Any] = json.loads(RECORDED.read_text())[family][case.name]
    ours = digest_of(our_batch(family, [case]))
    assert ours.keys() == recorded.keys()
    for name, expected in recorded.items():
        if "sha256" in expected:
            assert ours[name] == expected, name
        else:
            assert ours[name]["shape"] == expected["shape"]
            assert ours[name]["mean"] == pytest.approx(expected["mean"], abs=1e-3)
            assert ours[name]["some"] == pytest.approx(expected["some"], abs=ONE_GREY_LEVEL)


@live
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_key_is_bit_equal_to_the_familys_processor(family: str, case: Case) -> None:
    assert_equal(our_batch(family, [case]), their_batch(family, [case]))


@live
@pytest.mark.parametrize("resample", [1, 2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_filter_is_bit_equal(family: str, resample: int) -> None:
    config = {**config_of(family), "resample": resample}
    case = Case(4, 90, 120)
    assert_equal(our_batch(family, [case], config), their_batch(family, [case], config))


@live
def test_clips_of_different_sizes_are_joined_as_qwen_joins_them() -> None:
    cases = [Case(4, 24, 32), Case(5, 120, 90), Case(4, 24, 32)]
    assert_equal(our_batch("qwen3_vl", cases), their_batch("qwen3_vl", cases))


@live
def test_clips_of_different_sizes_are_joined_as_smolvlm_joins_them() -> None:
    # Of equal numbers of frames: the family's processor tells all clips of a batch the number of the longest one.
    cases = [Case(4, 24, 32), Case(4, 120, 90)]
    assert_equal(our_batch("smolvlm2", cases), their_batch("smolvlm2", cases))


@live
def test_the_cap_on_a_frames_pixels_is_equal() -> None:
    config = {**config_of("qwen3_vl"), "cap_pixels_per_frame": True, "max_video_tokens": 20}
    for case in (Case(4, 200, 300), Case(8, 64, 64)):
        assert_equal(our_batch("qwen3_vl", [case], config), their_batch("qwen3_vl", [case], config))


@live
@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_are_those_of_the_familys_processor(family: str) -> None:
    case = Case(4, 100, 140)
    assert_equal(our_batch(family, [case], {}), their_batch(family, [case], {}))


@live
def test_published_smolvlm_configurations_with_two_sizes_are_read_as_the_processor_reads_them() -> None:
    sampling = {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 80}}
    for config in (
        {**config_of("smolvlm2"), "video_sampling": dict(sampling)},
        {name: value for name, value in config_of("smolvlm2").items() if name != "size"}
        | {"video_sampling": dict(sampling)},
    ):
        case = Case(4, 100, 140)
        ours = our_batch("smolvlm2", [case], json.loads(json.dumps(config)))
        assert_equal(ours, their_batch("smolvlm2", [case], config))


def assert_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name].to(tensor.dtype), tensor), name
