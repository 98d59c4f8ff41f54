"""Draws the frames of a clip, straight into the planes that the encoder takes."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from reelstream.sampledata.barcode import draw_frame_number, panel_size
from reelstream.sampledata.scene import COLOURS, Direction, Scene, Shape
from reelstream.types import UInt8Array

_NUM_TEXTURES = 8
# Grey levels; enough for the encoder to spend any bit rate asked for, little enough for shapes to stand out.
_NOISE_LEVEL = 5.0
_NEUTRAL_CHROMA = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSpec:
    """All that decides a clip's bytes."""

    scene: Scene
    seed: int
    """Of the background, the place and the size of the shapes; tells nothing about the scene."""
    width: int
    height: int
    fps: Fraction
    num_frames: int
    bit_rate_bps: int
    """Of video and sound together."""
    keyframe_interval: int
    """The most frames from one keyframe to the next."""
    with_audio: bool
    with_faststart: bool
    """Whether the file's index lies before its frames."""

    @property
    def duration_s(self) -> float:
        """Seconds."""
        return float(self.num_frames / self.fps)


class FramePainter:
    """Paints the frames of one clip, one after another; textures are computed once."""

    def __init__(self, spec: ClipSpec) -> None:
        self._spec = spec
        chance = np.random.default_rng(spec.seed)
        self._backgrounds = _backgrounds(spec.width, spec.height, chance)
        self._background_order = chance.integers(0, _NUM_TEXTURES, spec.num_frames)
        self._background_chroma = (_NEUTRAL_CHROMA + chance.integers(-5, 6, 2)).astype(np.uint8)
        self._track = _plan_track(spec, chance)
        self._mask = shape_mask(spec.scene.shape, self._track.edge)
        self._half_mask = self._mask[::2, ::2]
        self._colour = _to_yuv(COLOURS[spec.scene.colour])
        self._planes = np.empty((spec.height * 3 // 2, spec.width), np.uint8)

    def paint(self, number: int) -> UInt8Array:
        """Return frame `number` as yuv420p planes, uint8, (3/2 H) x W; valid until the next call."""
        width, height = self._spec.width, self._spec.height
        flat = self._planes.reshape(-1)
        quarter = width * height // 4
        luma = flat[: 4 * quarter].reshape(height, width)
        chroma = [flat[(4 + k) * quarter : (5 + k) * quarter].reshape(height // 2, width // 2) for k in (0, 1)]
        luma[:] = self._backgrounds[self._background_order[number]]
        for plane, level in zip(chroma, self._background_chroma, strict=True):
            plane[:] = level
        edge = self._track.edge
        for left, top in self._track.places(number / max(1, self._spec.num_frames - 1)):
            np.copyto(luma[top : top + edge, left : left + edge], self._colour[0], where=self._mask)
            rows, columns = slice(top // 2, (top + edge) // 2), slice(left // 2, (left + edge) // 2)
            for plane, level in zip(chroma, self._colour[1:], strict=True):
                np.copyto(plane[rows, columns], level, where=self._half_mask)
        draw_frame_number(luma, number)
        panel_width, panel_height = panel_size(width, height)
        for plane in chroma:
            plane[: panel_height // 2, : panel_width // 2] = _NEUTRAL_CHROMA
        return self._planes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Track:
    """Where the shapes are: each crosses the frame once, from one edge to the other."""

    direction: Direction
    edge: int
    """Side of a shape's box in pixels, even."""
    way: int
    """Pixels from the first place to the last."""
    lanes: tuple[int, ...]
    """Place of each shape across its way, in pixels."""

    def places(self, progress: float) -> list[tuple[int, int]]:
        """Return left and top of each shape's box, even numbers, at `progress` from 0 to 1."""
        forward = self.direction in {"right", "down"}
        along = _even(self.way * (progress if forward else 1 - progress))
        if self.direction in {"left", "right"}:
            return [(along, lane) for lane in self.lanes]
        return [(lane, along) for lane in self.lanes]


def _plan_track(spec: ClipSpec, chance: np.random.Generator) -> _Track:
    horizontal = spec.scene.direction in {"left", "right"}
    length, breadth = (spec.width, spec.height) if horizontal else (spec.height, spec.width)
    count = spec.scene.count
    wanted = chance.uniform(0.27, 0.33) * min(spec.width, spec.height)
    # Side by side with a gap of a seventh of their size, within 94 % of the frame.
    edge = _even(min(wanted, 0.94 * breadth / (count + (count - 1) / 7)))
    pitch = edge + edge / 7
    slack = breadth - (edge + (count - 1) * pitch)
    # About the middle: the place across the way says nothing about the direction, and stays clear of the corner.
    first = slack / 2 + chance.uniform(-1, 1) * min(slack / 2, 0.12 * breadth)
    return _Track(
        direction=spec.scene.direction,
        edge=edge,
        way=length - edge,
        lanes=tuple(_even(first + index * pitch) for index in range(count)),
    )


def shape_mask(shape: Shape, edge: int) -> npt.NDArray[np.bool_]:
    """Return where a shape covers its box, edge x edge."""
    axis = (np.arange(edge) + 0.5) / edge * 2 - 1
    x, y = axis[np.newaxis, :], axis[:, np.newaxis]
    radius = np.hypot(x, y)
    masks: dict[Shape, npt.NDArray[np.bool_]] = {
        "circle": radius <= 1,
        "square": np.maximum(abs(x), abs(y)) <= 0.9,
        "triangle": abs(x) <= (y + 1) / 2,
        "diamond": abs(x) + abs(y) <= 1,
        "cross": np.minimum(abs(x), abs(y)) <= 0.32,
        "ring": (radius <= 1) & (radius >= 0.5),
    }
    return masks[shape]


@functools.lru_cache(maxsize=8)
def _noise(width: int, height: int) -> npt.NDArray[np.float32]:
    """Return the noise that all clips of one size share, in grains of 2 x 2 pixels: drawing it anew costs more."""
    chance = np.random.default_rng([width, height])
    grains = chance.normal(0, _NOISE_LEVEL, (_NUM_TEXTURES, height // 2, width // 2)).astype(np.float32)
    noise = grains.repeat(2, axis=1).repeat(2, axis=2)
    noise.setflags(write=False)
    return noise


def _backgrounds(width: int, height: int, chance: np.random.Generator) -> UInt8Array:
    level = chance.uniform(40, 75)
    # A few coarse blobs, stretched over the frame: lightly textured, and still.
    coarse = chance.uniform(-12, 12, (5, 7)).astype(np.float32)
    rows = np.linspace(0, coarse.shape[0] - 1, height)
    columns = np.linspace(0, coarse.shape[1] - 1, width)
    stretched = np.array([np.interp(columns, np.arange(7), row) for row in coarse])
    texture = np.array([np.interp(rows, np.arange(5), column) for column in stretched.T], np.float32).T
    noise = np.roll(_noise(width, height), tuple(chance.integers(0, 64, 2)), axis=(1, 2))
    backgrounds: UInt8Array = np.clip(level + texture + noise, 16, 235).astype(np.uint8)
    return backgrounds


def _to_yuv(rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return limited-range BT.601, what players assume of a small video that does not say."""
    red, green, blue = (value / 255 for value in rgb)
    luma = 16 + 65.481 * red + 128.553 * green + 24.966 * blue
    blueness = 128 - 37.797 * red - 74.203 * green + 112 * blue
    redness = 128 + 112 * red - 93.786 * green - 18.214 * blue
    return round(luma), round(blueness), round(redness)


def _even(value: float) -> int:
    return 2 * round(value / 2)
