from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from reelstream.cancel import Cancellation
from reelstream.sampledata import read_frame_number
from reelstream.sampledata.barcode import LARGEST_NUMBER, draw_frame_number
from reelstream.sampledata.encoding import encode_clip
from reelstream.types import UInt8Array
from unit.sampledata.sampledata_samples import rgb_frame, small_spec


def _drawn(number: int, width: int, height: int) -> UInt8Array:
    luma = np.full((height, width), 90, np.uint8)
    draw_frame_number(luma, number)
    return np.repeat(luma[:, :, np.newaxis], 3, axis=2)


def test_every_number_reads_back_in_both_layouts() -> None:
    for number in range(0, LARGEST_NUMBER + 1, 7):
        frame = _drawn(number, 320, 240)
        assert read_frame_number(frame) == number
        assert read_frame_number(np.ascontiguousarray(frame.transpose(2, 0, 1))) == number


@pytest.mark.parametrize(("width", "height"), [(96, 96), (160, 120), (120, 160), (426, 240), (854, 480), (1920, 1080)])
def test_a_number_reads_back_at_any_size(width: int, height: int) -> None:
    assert read_frame_number(_drawn(2741, width, height)) == 2741


@pytest.mark.parametrize("number", [-1, LARGEST_NUMBER + 1])
def test_a_number_that_does_not_fit_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="between 0 and 4095"):
        draw_frame_number(np.zeros((240, 320), np.uint8), number)


def test_a_frame_without_a_code_has_no_number() -> None:
    chance = np.random.default_rng(0)
    assert read_frame_number(np.zeros((3, 240, 320), np.uint8)) is None
    noise = chance.integers(0, 256, (500, 3, 48, 64), dtype=np.uint8)
    assert all(read_frame_number(frame) is None for frame in noise)


def test_a_flipped_cell_is_noticed() -> None:
    # The panel is 8 x 5 cells of 8 pixels; each inner cell but the four finders is inverted in turn.
    for row in range(4):
        for column in range(7):
            frame = _drawn(1234, 320, 240)
            cell = frame[4 + 8 * row : 12 + 8 * row, 4 + 8 * column : 12 + 8 * column]
            cell[:] = 255 - cell
            assert read_frame_number(frame) is None


@pytest.mark.parametrize("frame", [np.zeros((240, 320), np.uint8), np.zeros((3, 240, 320), np.float32)])
def test_what_is_no_frame_is_refused(frame: UInt8Array) -> None:
    with pytest.raises(ValueError, match="must be uint8"):
        read_frame_number(frame)


@pytest.mark.parametrize(
    ("width", "height", "bit_rate_bps"),
    [(320, 240, 200_000), (240, 320, 30_000), (384, 216, 30_000), (640, 360, 60_000), (160, 120, 30_000)],
)
def test_numbers_survive_coding_and_scaling(width: int, height: int, bit_rate_bps: int, tmp_path: Path) -> None:
    spec = small_spec(width=width, height=height, bit_rate_bps=bit_rate_bps, num_frames=50, fps=Fraction(12000, 1001))
    content = encode_clip(spec, scratch=tmp_path, cancellation=Cancellation())
    with av.open(io.BytesIO(content), "r") as container:
        frames = list(container.decode(video=0))
    for longest in (max(width, height), 384, 224):
        scale = longest / max(width, height)
        scaled_width, scaled_height = 2 * round(width * scale / 2), 2 * round(height * scale / 2)
        for interpolation in ("AREA", "BILINEAR", "BICUBIC"):
            scaled = [rgb_frame(frame, scaled_width, scaled_height, interpolation) for frame in frames]
            assert [read_frame_number(frame) for frame in scaled] == list(range(50))
