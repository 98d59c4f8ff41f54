"""SmolVLM2: each frame a square image behind its time, under a sentence about the whole clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

import torch
from torch import Tensor

from reelstream.train.extra import require_train_extra
from reelstream.train.families.base import IGNORED_LABEL, EncodedSample, PreparedClip
from reelstream.train.families.patches import FILTER_NUMBERS, FILTERS, Filter, normalize, resize
from reelstream.train.families.rendering import ChatStyle, encode_conversation, pad
from reelstream.types import Messages

IMAGE_TOKEN = "<image>"  # noqa: S105 - a token of text
FAKE_TOKEN, GLOBAL_TOKEN = "<fake_token_around_image>", "<global-img>"
END_TOKEN, PAD_TOKEN = "<end_of_utterance>", "<|endoftext|>"

# Larger frames are cut to this side before anything else, as the family's processor does.
_LARGEST_SIDE = 4096

STYLE = ChatStyle(
    opening="<|im_start|>",
    # An image needs no blank before it; a clip begins with words, hence gets one.
    turn_opening=lambda role, _: "Assistant:" if role == "assistant" else f"{role.capitalize()}: ",
    assistant_lead=" ",
    turn_end=END_TOKEN,
    between="\n",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmolVLM2Settings:
    """Preprocessing of SmolVLM2; defaults are those of the family's processor."""

    longest_edge: int = 4 * 364
    """Frames are first brought to this longest side, in pixels."""
    image_size: int = 364
    """Then to a square of this side, in pixels."""
    tokens_per_frame: int = 169
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    rescale_factor: float = 1 / 255
    resample: Filter = "lanczos"

    @classmethod
    def from_json(cls, config: Mapping[str, Any], processor: Mapping[str, Any]) -> SmolVLM2Settings:
        """Return the settings that a video processor's configuration and `processor_config.json` hold."""
        sampling = config.get("video_sampling") or {}
        # The family's processor lets `size` win over `video_sampling` where both are there.
        size = config.get("size") or sampling.get("video_size") or {}
        found: dict[str, Any] = {
            "longest_edge": size.get("longest_edge"),
            "image_size": (config.get("max_image_size") or {}).get("longest_edge"),
            "tokens_per_frame": processor.get("image_seq_len"),
            "rescale_factor": config.get("rescale_factor"),
            "resample": FILTERS.get(config["resample"]) if "resample" in config else None,
            "image_mean": tuple(config["image_mean"]) if config.get("image_mean") else None,
            "image_std": tuple(config["image_std"]) if config.get("image_std") else None,
        }
        return cls(**{name: value for name, value in found.items() if value is not None})

    def first_size_for(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the first resize: `longest_edge`, the other side even."""
        longest = min(_LARGEST_SIDE, self.longest_edge)
        aspect_ratio = width / height
        if width >= height:
            other = int(longest / aspect_ratio)
            return max(1, other + other % 2), longest
        other = int(longest * aspect_ratio)
        return longest, max(1, other + other % 2)


class SmolVLM2Family:
    """The `Family` of SmolVLM2."""

    special_tokens: ClassVar[tuple[str, ...]] = (
        PAD_TOKEN, "<|im_start|>", END_TOKEN, FAKE_TOKEN, GLOBAL_TOKEN, IMAGE_TOKEN,
    )  # fmt: skip

    def __init__(self, tokenizer: Any, settings: SmolVLM2Settings) -> None:
        require_train_extra("num2words")
        from num2words import num2words  # noqa: PLC0415 - an optional dependency

        self.tokenizer = tokenizer
        self._number_in_words = num2words
        self._settings = settings
        self._image_id: int = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self._controls = frozenset(tokenizer.all_special_tokens) | frozenset(self.special_tokens)

    def prepare(self, frames: Tensor, timestamps: Sequence[float], duration: float) -> PreparedClip:
        """Return square frames, and the sentences and image tokens that stand for them."""
        settings = self._settings
        height, width = settings.first_size_for(frames.shape[-2], frames.shape[-1])
        # Two resizes, as the family does it: one would be faster and not the same.
        square = resize(
            resize(frames, height, width, settings.resample),
            settings.image_size,
            settings.image_size,
            settings.resample,
        )
        pixels = normalize(square, settings.image_mean, settings.image_std, settings.rescale_factor)
        return PreparedClip(tensors={"pixel_values": pixels}, text=self._text(timestamps, duration))

    def _text(self, timestamps: Sequence[float], duration: float) -> str:
        image = f"{FAKE_TOKEN}{GLOBAL_TOKEN}{IMAGE_TOKEN * self._settings.tokens_per_frame}{FAKE_TOKEN}"
        # The number is of this clip's frames; the family's own processor writes the batch's largest.
        number = self._number_in_words(len(timestamps))
        clock = timedelta(seconds=int(duration))
        lines = [f"You are provided the following series of {number} frames from a {clock} [H:MM:SS] video.\n"]
        lines += [f"\nFrame from {int(time // 60):02d}:{int(time % 60):02d}:{image}" for time in timestamps]
        return "".join(lines) + "\n\n"

    def encode(self, messages: Messages, clip: PreparedClip | None, *, answer_from: int | None = None) -> EncodedSample:
        """Return tokens and labels of a conversation; labels cover the assistant's turns only."""
        return encode_conversation(
            self.tokenizer,
            messages,
            clip,
            style=STYLE,
            special_tokens=self._controls,
            media_token_id=self._image_id,
            answer_from=answer_from,
        )

    def collate(self, samples: Sequence[EncodedSample]) -> dict[str, Tensor]:
        """Return one batch; clips are filled with empty frames up to the longest, which the mask names."""
        batch = {
            "input_ids": pad([sample.input_ids for sample in samples], self.tokenizer.pad_token_id),
            "labels": pad([sample.labels for sample in samples], IGNORED_LABEL),
            "attention_mask": pad([torch.ones_like(sample.input_ids) for sample in samples], 0),
        }
        clips = [sample.media["pixel_values"] for sample in samples if sample.media]
        if clips:
            batch["pixel_values"] = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
            shown = [torch.ones(len(clip), *clip.shape[-2:], dtype=torch.int64) for clip in clips]
            batch["pixel_attention_mask"] = torch.nn.utils.rnn.pad_sequence(shown, batch_first=True)
        return batch

    def settings(self) -> Mapping[str, Any]:
        """Return the preprocessing as `video_preprocessor_config.json` holds it."""
        values = dataclasses.asdict(self._settings)
        del values["tokens_per_frame"]
        values["resample"] = FILTER_NUMBERS[self._settings.resample]
        return {
            "video_processor_type": "SmolVLMVideoProcessor",
            "size": {"longest_edge": values.pop("longest_edge")},
            "max_image_size": {"longest_edge": values.pop("image_size")},
            **values,
        }

    def processor_settings(self) -> Mapping[str, Any]:
        """Return what `processor_config.json` must hold besides: the tokens of a frame."""
        return {"image_seq_len": self._settings.tokens_per_frame}
