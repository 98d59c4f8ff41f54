"""Configurations of the tiny models: real architectures, small enough for a CPU."""

from __future__ import annotations

from typing import Any

from reelstream.train.extra import transformers_module
from reelstream.train.families.qwen3_vl import (
    IMAGE_TOKEN,
    VIDEO_TOKEN,
    VISION_END,
    VISION_START,
    Qwen3VLSettings,
)
from reelstream.train.families.smolvlm2 import IMAGE_TOKEN as SMOLVLM_IMAGE_TOKEN
from reelstream.train.families.smolvlm2 import SmolVLM2Settings
from reelstream.train.options import ModelOptions, TinyOptions

_QWEN_TINY_PIXELS = 64 * 64 * 64
"""Most pixels of a clip, where the user names none: 64 frames of 64x64."""
_SMOLVLM_TINY_SIZE = 64
# SmolVLM joins squares of 4 x 4 patches to one token of the language model.
_SMOLVLM_SCALE_FACTOR = 4


def tiny_config(options: ModelOptions, tokenizer: Any) -> Any:
    """Return the configuration, as a class of transformers."""
    return _qwen3_vl_config(options, tokenizer) if options.family == "qwen3_vl" else _smolvlm_config(options, tokenizer)


def tiny_settings(options: ModelOptions) -> Any:
    """Return the preprocessing that goes with `tiny_config`."""
    tiny = options.tiny
    if options.family == "qwen3_vl":
        base = Qwen3VLSettings(patch_size=tiny.patch_size, min_pixels=1, max_pixels=_QWEN_TINY_PIXELS)
        return base.with_pixels(options.min_pixels, options.max_pixels)
    image_size = options.image_size or _SMOLVLM_TINY_SIZE
    return SmolVLM2Settings(
        longest_edge=image_size,
        image_size=image_size,
        tokens_per_frame=(image_size // tiny.patch_size // _SMOLVLM_SCALE_FACTOR) ** 2,
    )


def _text_config(tiny: TinyOptions, tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": tiny.hidden_size,
        "intermediate_size": tiny.intermediate_size,
        "num_hidden_layers": tiny.num_layers,
        "num_attention_heads": tiny.num_heads,
        "num_key_value_heads": tiny.num_key_value_heads,
        "head_dim": tiny.hidden_size // tiny.num_heads,
        "max_position_embeddings": tiny.max_positions,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "tie_word_embeddings": True,
        "initializer_range": tiny.init_scale,
    }


def _qwen3_vl_config(options: ModelOptions, tokenizer: Any) -> Any:
    tiny = options.tiny
    # Half a head's pairs turn with time, a quarter each with height and width, as in the published models.
    num_pairs = tiny.hidden_size // tiny.num_heads // 2
    section = [num_pairs - 2 * (num_pairs // 4), num_pairs // 4, num_pairs // 4]
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": section, "mrope_interleaved": True}
    return transformers_module().Qwen3VLConfig(
        text_config={**_text_config(tiny, tokenizer), "rope_parameters": rope},
        vision_config={
            "depth": tiny.vision_layers,
            "hidden_size": tiny.vision_hidden_size,
            "intermediate_size": 2 * tiny.vision_hidden_size,
            "num_heads": tiny.num_heads,
            "out_hidden_size": tiny.hidden_size,
            "patch_size": tiny.patch_size,
            # A square of 4 x 4, interpolated to each clip's grid.
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
            "initializer_range": tiny.init_scale,
        },
        tie_word_embeddings=True,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        video_token_id=tokenizer.convert_tokens_to_ids(VIDEO_TOKEN),
        vision_start_token_id=tokenizer.convert_tokens_to_ids(VISION_START),
        vision_end_token_id=tokenizer.convert_tokens_to_ids(VISION_END),
    )


def _smolvlm_config(options: ModelOptions, tokenizer: Any) -> Any:
    tiny = options.tiny
    return transformers_module().SmolVLMConfig(
        text_config={**_text_config(tiny, tokenizer), "model_type": "llama", "rms_norm_eps": 1e-5},
        vision_config={
            "hidden_size": tiny.vision_hidden_size,
            "intermediate_size": 2 * tiny.vision_hidden_size,
            "num_hidden_layers": tiny.vision_layers,
            "num_attention_heads": tiny.num_heads,
            "image_size": options.image_size or _SMOLVLM_TINY_SIZE,
            "patch_size": tiny.patch_size,
            "initializer_range": tiny.init_scale,
        },
        scale_factor=_SMOLVLM_SCALE_FACTOR,
        image_token_id=tokenizer.convert_tokens_to_ids(SMOLVLM_IMAGE_TOKEN),
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
        initializer_range=tiny.init_scale,
    )
