from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from reelstream.decode.geometry import frame_shape, quarter_turns, upright


@pytest.mark.parametrize(
    ("stored", "pixel_aspect", "turns", "size", "shown"),
    [
        ((1920, 1080), Fraction(1), 0, 384, (384, 216)),
        ((1080, 1920), Fraction(1), 0, 384, (216, 384)),
        ((1920, 1080), Fraction(1), 1, 384, (216, 384)),
        ((1920, 1080), Fraction(1), 2, 384, (384, 216)),
        ((720, 576), Fraction(16, 15), 0, 384, (384, 288)),
        ((720, 576), Fraction(16, 15), 3, 384, (288, 384)),
        ((320, 240), Fraction(1), 0, 384, (320, 240)),
        ((321, 241), Fraction(1), 0, 384, (320, 240)),
        ((640, 480), Fraction(1), 0, 383, (382, 286)),
        ((1000, 2), Fraction(1), 0, 100, (100, 2)),
        ((1, 1), Fraction(1), 0, 64, (2, 2)),
    ],
)
def test_a_frame_keeps_its_aspect_with_even_sides_and_is_never_enlarged(
    stored: tuple[int, int], pixel_aspect: Fraction, turns: int, size: int, shown: tuple[int, int]
) -> None:
    shape = frame_shape(*stored, pixel_aspect=pixel_aspect, turns=turns, size=size)
    assert (shape.width, shape.height) == shown


@pytest.mark.parametrize(("degrees", "turns"), [(0, 0), (90, 1), (-90, 3), (180, 2), (-180, 2), (270, 3), (88.6, 1)])
def test_a_rotation_becomes_the_nearest_quarter_turns(degrees: float, turns: int) -> None:
    assert quarter_turns(degrees) == turns


def test_upright_turns_counter_clockwise_and_puts_channels_first() -> None:
    image = np.zeros((2, 4, 3), dtype=np.uint8)
    image[0, 3] = 255  # The upper right corner becomes the upper left one.
    turned = upright(image, 1)
    assert turned.shape == (3, 4, 2)
    assert turned[:, 0, 0].tolist() == [255, 255, 255]
    assert int(turned.sum()) == 3 * 255
