"""The recipe for the real dataset is accepted, runs, and fits its disk budget by the arithmetic that it shows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

from docs.docs_kit import REPOSITORY
from reelstream.cli.main import main
from reelstream.config import load
from reelstream.indexes import set_aside_bytes
from reelstream.train.options import CheckpointOptions
from reelstream.train.run_options import RunOptions

RECIPE = REPOSITORY / "configs" / "streaming.yaml"
BYTES_PER_PARAMETER = 12
SHORTEST_CATALOG_BYTES = 300_000_000
ARCHIVES_BYTES, NUM_ARCHIVES, MEAN_CLIP_BYTES = 137_500_000_000, 27, 1_500_000
BASE_MODEL_BYTES = 1_030_000_000


def recipe() -> RunOptions:
    return load(RECIPE, [], RunOptions)


def num_parameters() -> int:
    """Parameters of SmolVLM2-256M, built without storage from the sizes that its publisher names."""
    text = {
        "model_type": "llama",
        "vocab_size": 49280,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "pad_token_id": 2,
    }
    vision = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 512,
        "patch_size": 16,
    }
    config = SmolVLMConfig(text_config=text, vision_config=vision, scale_factor=4, tie_word_embeddings=False)
    with torch.device("meta"):
        model = SmolVLMForConditionalGeneration(config)
    return sum(parameter.numel() for parameter in model.parameters())


def test_recipe_is_accepted_and_names_the_real_dataset() -> None:
    options = recipe()
    assert options.streaming_mode
    assert options.data.repo_id == "lmms-lab/LLaVA-Video-178K"
    assert options.data.prefetch
    assert options.model.name is not None


def test_recipe_comments_on_each_key_or_shows_it_in_a_sentence_of_its_own() -> None:
    lines = RECIPE.read_text(encoding="utf-8").splitlines()
    keys = [line for line in lines if ":" in line.partition("#")[0] and not line.partition("#")[0].endswith(":")]
    bare = [line.strip().partition(":")[0] for line in keys if "#" not in line]
    # Said by the page's head, or by their own names.
    assert set(bare) <= {"repo_id", "name", "warmup_steps", "max_grad_norm", "seed", "data", "model"}


def test_two_checkpoints_and_the_largest_clips_fit_the_recipes_budget() -> None:
    options = recipe()
    parameters = num_parameters()
    assert parameters == pytest.approx(256.5e6, rel=1e-3)
    checkpoints_bytes = (options.checkpoints.keep + 1) * parameters * BYTES_PER_PARAMETER
    assert options.checkpoints == CheckpointOptions(every_steps=1000)
    indexes_bytes = set_aside_bytes(ARCHIVES_BYTES // MEAN_CLIP_BYTES, ARCHIVES_BYTES, NUM_ARCHIVES)
    assert indexes_bytes == pytest.approx(0.065e9, rel=0.01)
    # In the cache folder, and beside the checkpoints.
    others_bytes = options.log_limit_bytes + SHORTEST_CATALOG_BYTES + 2 * indexes_bytes
    clip_budget_bytes = options.data.disk_budget - checkpoints_bytes - others_bytes
    assert clip_budget_bytes == pytest.approx(2.2e9, rel=0.02)
    # Full windows of mean clips, three times over, fit beside each other.
    assert 3 * options.data.cache_size * MEAN_CLIP_BYTES < clip_budget_bytes
    assert options.data.disk_budget + BASE_MODEL_BYTES < 10e9


def test_recipe_trains_a_tiny_model_on_a_stand_in_for_the_dataset(reader_folder: Path) -> None:
    changes = ["model.name=null", "model.revision=null", "model.image_size=32", "data.frames.size=32"]
    changes += ["data.frames.max_frames=4", "data.limit=6", "train.max_steps=2", "train.batch_size=2"]
    assert main(["train", "configs/streaming.yaml", "--quiet", *changes]) == 0
    assert (reader_folder / "runs" / "llava-video-178k" / "report.json").exists()
