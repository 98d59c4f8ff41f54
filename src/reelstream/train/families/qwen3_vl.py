"""Qwen3-VL: flat patches of two frames each, and the seconds of each pair in the text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from reelstream.train.families.base import IGNORED_LABEL, EncodedSample, PreparedClip
from reelstream.train.families.patches import (
    FILTER_NUMBERS,
    FILTERS,
    Filter,
    PixelLimits,
    normalize,
    patchify,
    resize,
)
from reelstream.train.families.rendering import ChatStyle, encode_conversation, pad
from reelstream.types import Messages

VIDEO_TOKEN = "<|video_pad|>"  # noqa: S105 - a token of text
IMAGE_TOKEN = "<|image_pad|>"  # noqa: S105
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
PAD_TOKEN, END_TOKEN = "<|endoftext|>", "<|im_end|>"

# M-RoPE counts text and video tokens differently, and is told which is which by these numbers.
_VIDEO_TYPE = 2

STYLE = ChatStyle(
    opening="",
    turn_opening=lambda role, _: f"<|im_start|>{role}\n",
    assistant_lead="",
    turn_end=END_TOKEN,
    between="\n",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen3VLSettings:
    """Preprocessing of Qwen3-VL; defaults are those of the family's processor."""

    patch_size: int = 16
    temporal_patch_size: int = 2
    merge_size: int = 2
    min_pixels: int = 128 * 32 * 32
    """Of a whole clip: frames x height x width."""
    max_pixels: int = 768 * 32 * 32
    """Of a whole clip: frames x height x width."""
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    rescale_factor: float = 1 / 255
    resample: Filter = "bicubic"
    cap_pixels_per_frame: bool = False
    """Whether a frame's pixels are limited to `max_video_tokens` and to its even share of the clip's."""
    max_video_tokens: int = 768

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Qwen3VLSettings:
        """Return the settings that a video processor's configuration holds."""
        size = config.get("size") or {}
        found: dict[str, Any] = {
            "min_pixels": size.get("shortest_edge"),
            "max_pixels": size.get("longest_edge"),
            "resample": FILTERS.get(config["resample"]) if "resample" in config else None,
            "image_mean": tuple(config["image_mean"]) if config.get("image_mean") else None,
            "image_std": tuple(config["image_std"]) if config.get("image_std") else None,
            **{
                name: config.get(name)
                for name in (
                    "patch_size", "temporal_patch_size", "merge_size", "rescale_factor",
                    "cap_pixels_per_frame", "max_video_tokens",
                )
            },
        }  # fmt: skip
        return cls(**{name: value for name, value in found.items() if value is not None})

    def with_pixels(self, min_pixels: int | None, max_pixels: int | None) -> Qwen3VLSettings:
        """Return these settings with the user's limits, where there are any."""
        highest = self.max_pixels if max_pixels is None else max_pixels
        # A user who lowers the maximum below the model's minimum means both.
        lowest = min(self.min_pixels, highest) if min_pixels is None else min_pixels
        return dataclasses.replace(self, min_pixels=lowest, max_pixels=max(highest, lowest))

    def size_for(self, num_frames: int, height: int, width: int) -> tuple[int, int]:
        """Return the height and width that a clip is resized to."""
        factor = self.patch_size * self.merge_size
        max_pixels = self.max_pixels
        if self.cap_pixels_per_frame:
            share = min(self.max_video_tokens * factor * factor, max_pixels // num_frames)
            max_pixels = max(share, int(self.min_pixels * 1.05)) * num_frames
        limits = PixelLimits(
            factor=factor,
            temporal_factor=self.temporal_patch_size,
            min_pixels=self.min_pixels,
            max_pixels=max_pixels,
        )
        return limits.size_for(num_frames, height, width)


class Qwen3VLFamily:
    """The `Family` of Qwen3-VL."""

    special_tokens: ClassVar[tuple[str, ...]] = (
        PAD_TOKEN, "<|im_start|>", END_TOKEN, VISION_START, VISION_END, IMAGE_TOKEN, VIDEO_TOKEN,
    )  # fmt: skip

    def __init__(self, tokenizer: Any, settings: Qwen3VLSettings) -> None:
        self.tokenizer = tokenizer
        self._settings = settings
        self._video_id: int = tokenizer.convert_tokens_to_ids(VIDEO_TOKEN)
        self._controls = frozenset(tokenizer.all_special_tokens) | frozenset(self.special_tokens)

    def prepare(self, frames: Tensor, timestamps: Sequence[float], duration: float) -> PreparedClip:  # noqa: ARG002
        """Return patches, grid, and `<1.5 seconds>` before each pair of frames.

        A clip of one frame is taken as two of the same, which the family's processor refuses.
        """
        settings = self._settings
        step = settings.temporal_patch_size
        times = list(timestamps) + [timestamps[-1]] * (-len(timestamps) % step)
        if len(frames) < step:
            frames = torch.cat([frames, frames[-1:].expand(step - len(frames), -1, -1, -1)])
        height, width = settings.size_for(len(frames), frames.shape[-2], frames.shape[-1])
        pixels = normalize(
            resize(frames, height, width, settings.resample),
            settings.image_mean,
            settings.image_std,
            settings.rescale_factor,
        )
        patches, grid = patchify(
            pixels, patch_size=settings.patch_size, merge_size=settings.merge_size, temporal_patch_size=step
        )
        num_tokens = int(grid[1] * grid[2]) // settings.merge_size**2
        pads = f"{VISION_START}{VIDEO_TOKEN * num_tokens}{VISION_END}"
        middles = [(times[first] + times[first + step - 1]) / 2 for first in range(0, len(times), step)]
        # transformers keeps the template's own pair around the clip.
        text = VISION_START + "".join(f"<{middle:.1f} seconds>{pads}" for middle in middles) + VISION_END
        return PreparedClip(tensors={"pixel_values_videos": patches, "video_grid_thw": grid}, text=text)

    def encode(self, messages: Messages, clip: PreparedClip | None, *, answer_from: int | None = None) -> EncodedSample:
        """Return tokens and labels of a conversation; labels cover the assistant's turns only."""
        return encode_conversation(
            self.tokenizer,
            messages,
            clip,
            style=STYLE,
            special_tokens=self._controls,
            media_token_id=self._video_id,
            answer_from=answer_from,
        )

    def collate(self, samples: Sequence[EncodedSample]) -> dict[str, Tensor]:
        """Return one batch; patches of all clips one after the other."""
        input_ids = pad([sample.input_ids for sample in samples], self.tokenizer.pad_token_id)
        batch = {
            "input_ids": input_ids,
            "labels": pad([sample.labels for sample in samples], IGNORED_LABEL),
            "attention_mask": pad([torch.ones_like(sample.input_ids) for sample in samples], 0),
            "mm_token_type_ids": (input_ids == self._video_id).long() * _VIDEO_TYPE,
        }
        media = [sample.media for sample in samples if sample.media]
        if media:
            batch["pixel_values_videos"] = torch.cat([tensors["pixel_values_videos"] for tensors in media])
            batch["video_grid_thw"] = torch.stack([tensors["video_grid_thw"] for tensors in media])
        return batch

    def settings(self) -> Mapping[str, Any]:
        """Return the preprocessing as `video_preprocessor_config.json` holds it."""
        values = dataclasses.asdict(self._settings)
        size = {"shortest_edge": values.pop("min_pixels"), "longest_edge": values.pop("max_pixels")}
        values["resample"] = FILTER_NUMBERS[self._settings.resample]
        return {"video_processor_type": "Qwen3VLVideoProcessor", "size": size, **values}

    def processor_settings(self) -> Mapping[str, Any]:
        """Return what `processor_config.json` must hold besides: nothing."""
        return {}
