"""Small specs and options for the tests of the sample dataset."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np

from reelstream.sampledata import SampleOptions
from reelstream.sampledata.drawing import ClipSpec
from reelstream.sampledata.scene import Scene
from reelstream.types import UInt8Array


def small_spec(scene: Scene | None = None, **changes: Any) -> ClipSpec:
    values: dict[str, Any] = {
        "scene": scene or Scene(shape="circle", colour="red", count=1, direction="left"),
        "seed": 5,
        "width": 320,
        "height": 240,
        "fps": Fraction(12),
        "num_frames": 24,
        "bit_rate_bps": 200_000,
        "keyframe_interval": 250,
        "with_audio": False,
        "with_faststart": False,
    }
    return ClipSpec(**(values | changes))


def small_options(**changes: Any) -> SampleOptions:
    values: dict[str, Any] = {
        "num_clips": 16,
        "seed": 3,
        "num_heldout": 4,
        "sizes": ((160, 120), (120, 160)),
        "clip_bytes": 20_000,
        "min_duration_s": 1.0,
        "max_duration_s": 2.0,
    }
    return SampleOptions(**(values | changes))


def rgb_frame(frame: av.VideoFrame, width: int = 0, height: int = 0, interpolation: str = "AREA") -> UInt8Array:
    """Return H x W x 3, scaled where a size is given."""
    scaled = frame.reformat(width or frame.width, height or frame.height, "rgb24", interpolation=interpolation)
    return np.asarray(scaled.to_ndarray(), np.uint8)
