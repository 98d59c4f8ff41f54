"""How large a frame comes out, and which way up: pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from reelstream.types import UInt8Array


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameShape:
    """The size to which a stored frame is scaled, and the turn that sets it upright afterwards."""

    scaled_width: int
    """Pixels, before the turn."""
    scaled_height: int
    """Pixels, before the turn."""
    quarter_turns: int
    """Counter-clockwise turns of 90 degrees after scaling, 0 to 3."""

    @property
    def width(self) -> int:
        """Pixels of the upright frame."""
        return self.scaled_height if self.quarter_turns % 2 else self.scaled_width

    @property
    def height(self) -> int:
        """Pixels of the upright frame."""
        return self.scaled_width if self.quarter_turns % 2 else self.scaled_height


def quarter_turns(rotation_degrees: float) -> int:
    """Return the counter-clockwise quarter turns nearest to a display matrix's rotation, 0 to 3."""
    return round(rotation_degrees / 90) % 4


def frame_shape(width: int, height: int, *, pixel_aspect: Fraction, turns: int, size: int) -> FrameShape:
    """Return the shape of a sampled frame: longest side `size`, aspect kept, both sides even, square pixels.

    A smaller source is not enlarged: pixels that were never filmed cost memory and tell a model nothing. Evenness may
    move a side by one pixel, and no side is less than two.

    Args:
        width: Stored width in pixels.
        height: Stored height in pixels.
        pixel_aspect: Width of a pixel over its height, as stored; players stretch the width by it.
        turns: Counter-clockwise quarter turns that set the frame upright.
        size: Most pixels on the longest side.
    """
    shown_width = width * pixel_aspect
    longest, shortest = max(shown_width, Fraction(height)), min(shown_width, Fraction(height))
    long_side = max(2, int(min(longest, Fraction(size))) // 2 * 2)
    short_side = max(2, 2 * round(shortest * long_side / longest / 2))
    wide = shown_width >= height
    return FrameShape(
        scaled_width=long_side if wide else short_side,
        scaled_height=short_side if wide else long_side,
        quarter_turns=turns,
    )


def upright(image: UInt8Array, turns: int) -> UInt8Array:
    """Return an H x W x 3 image turned counter-clockwise by `turns` quarter turns, as 3 x H x W (a view)."""
    return np.rot90(image, turns).transpose(2, 0, 1)
