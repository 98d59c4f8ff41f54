"""Frames as model input, bit for bit as the families' own processors make it, without torchvision.

Measured equal to the processors of transformers 5.23 with torchvision 0.28 over sizes from 64x64 to 301x233.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor

Filter = Literal["bilinear", "bicubic", "lanczos"]

# As `preprocessor_config.json` counts them: Pillow's numbers.
FILTERS: dict[int, Filter] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}
FILTER_NUMBERS = {name: number for number, name in FILTERS.items()}


def _has_lanczos() -> bool:
    return hasattr(torch._C._nn, "_upsample_lanczos2d_aa")  # noqa: SLF001 - no public way to ask


def resize(frames: Tensor, height: int, width: int, resample: Filter) -> Tensor:
    """Return uint8 frames of another size, with antialiasing; equal to torchvision's `resize`.

    Lanczos is replaced by bicubic where this version of torch lacks it, as transformers does.
    """
    if tuple(frames.shape[-2:]) == (height, width):
        return frames
    mode = "bicubic" if resample == "lanczos" and not _has_lanczos() else resample
    return F.interpolate(frames, size=(height, width), mode=mode, antialias=True, align_corners=False)


def normalize(frames: Tensor, mean: Sequence[float], std: Sequence[float], rescale_factor: float) -> Tensor:
    """Return float32 frames `(rescale_factor * x - mean) / std`, fused as transformers fuses them: same bits."""
    scale = 1.0 / rescale_factor
    shift = (torch.tensor(mean) * scale).view(-1, 1, 1)
    spread = (torch.tensor(std) * scale).view(-1, 1, 1)
    return frames.to(torch.float32).sub_(shift).div_(spread)


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelLimits:
    """How large a clip may be in Qwen3-VL; pixels are frames x height x width."""

    factor: int
    """Sides are multiples of this."""
    temporal_factor: int
    min_pixels: int
    max_pixels: int

    def size_for(self, num_frames: int, height: int, width: int) -> tuple[int, int]:
        """Return the height and width that a clip is resized to.

        Args:
            num_frames: At least `temporal_factor`.
            height: Pixels.
            width: Pixels; neither side above 200 times the other.

        Raises:
            ValueError: Where the frames are too narrow for the model.
        """
        factor = self.factor
        if height < factor or width < factor:
            scale = max(factor / height, factor / width)
            height, width = int(height * scale), int(width * scale)
        if max(height, width) / min(height, width) > 200:
            raise ValueError(
                f"frames of {width}x{height} pixels are too narrow: the sides differ by more than 200 times"
            )
        new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
        rounded_frames = round(num_frames / self.temporal_factor) * self.temporal_factor
        pixels = rounded_frames * new_height * new_width
        if pixels > self.max_pixels:
            shrink = math.sqrt(num_frames * height * width / self.max_pixels)
            new_height = max(factor, math.floor(height / shrink / factor) * factor)
            new_width = max(factor, math.floor(width / shrink / factor) * factor)
        elif pixels < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (num_frames * height * width))
            new_height = math.ceil(height * grow / factor) * factor
            new_width = math.ceil(width * grow / factor) * factor
        return new_height, new_width


def patchify(frames: Tensor, *, patch_size: int, merge_size: int, temporal_patch_size: int) -> tuple[Tensor, Tensor]:
    """Return a clip as rows of patches in Qwen's order, and its grid.

    Args:
        frames: T x 3 x H x W, sides multiples of `patch_size * merge_size`. The last frame is repeated where T is no
            multiple of `temporal_patch_size`.
        patch_size: Pixels.
        merge_size: The model merges squares of so many patches a side.
        temporal_patch_size: Frames.

    Returns:
        Patches, (t h w) x (3 * temporal_patch_size * patch_size**2), neighbours that are merged next to each other;
        and the grid `[t, h, w]`, int64.
    """
    missing = -frames.shape[0] % temporal_patch_size
    if missing:
        frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
    num_frames, channels, height, width = frames.shape
    grid = (num_frames // temporal_patch_size, height // patch_size, width // patch_size)
    blocks = frames.reshape(
        grid[0], temporal_patch_size, channels,
        grid[1] // merge_size, merge_size, patch_size,
        grid[2] // merge_size, merge_size, patch_size,
    )  # fmt: skip
    rows = blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(
        grid[0] * grid[1] * grid[2], channels * temporal_patch_size * patch_size * patch_size
    )
    return rows, torch.tensor(grid, dtype=torch.int64)
