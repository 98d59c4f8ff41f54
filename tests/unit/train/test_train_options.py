from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from reelstream.train import CheckpointOptions, EvaluationOptions, ModelOptions, TinyOptions, TrainOptions


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: TinyOptions(vocabulary_size=299), "vocabulary_size"),
        (lambda: TinyOptions(hidden_size=66), "hidden_size"),
        (lambda: TinyOptions(vision_hidden_size=0), "vision_hidden_size"),
        (lambda: TinyOptions(num_key_value_heads=3), "num_key_value_heads"),
        (lambda: TinyOptions(init_scale=0.0), "init_scale"),
        (lambda: ModelOptions(revision="main"), "model.name"),
        (lambda: ModelOptions(family="smolvlm2", max_pixels=1000), "max_pixels"),
        (lambda: ModelOptions(image_size=64), "image_size"),
        (lambda: ModelOptions(family="smolvlm2", name="some/model", image_size=64), "image_size"),
        (lambda: ModelOptions(min_pixels=10, max_pixels=9), "min_pixels"),
        (lambda: TrainOptions(epochs=0), "epochs"),
        (lambda: TrainOptions(max_steps=0), "max_steps"),
        (lambda: TrainOptions(learning_rate=float("nan")), "learning_rate"),
        (lambda: TrainOptions(weight_decay=1.0), "weight_decay"),
        (lambda: TrainOptions(warmup_steps=-1), "warmup_steps"),
        (lambda: CheckpointOptions(keep=0), "keep"),
        (lambda: CheckpointOptions(every_steps=0), "every_steps"),
        (lambda: EvaluationOptions(max_questions=0), "max_questions"),
        (lambda: EvaluationOptions(batch_size=0), "batch_size"),
        (lambda: EvaluationOptions(share=1.0), "evaluation.share"),
        (lambda: EvaluationOptions(share=0.1, clips=5), "evaluation.share and evaluation.clips"),
        (lambda: EvaluationOptions(clips=0), "evaluation.clips"),
        (lambda: EvaluationOptions(clips=5, max_samples=0), "max_samples"),
        (lambda: EvaluationOptions(clips=5, keep=True), "evaluation.keep"),
        (lambda: EvaluationOptions(clips=5, disk_share=2_000_000), "every_steps"),
        (lambda: EvaluationOptions(clips=5, every_steps=3, disk_share=0), "disk_share"),
    ],
)
def test_a_contradiction_is_refused_with_the_option_named(make: Callable[[], Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make()


def test_importing_the_package_and_its_options_loads_neither_torch_nor_transformers() -> None:
    code = "import sys, reelstream.train; sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
