from __future__ import annotations

import pytest
import torch

from reelstream.train.device import Compute
from reelstream.train.evaluate import evaluate, question_of
from reelstream.train.loop import TrainingLoop
from reelstream.train.models import load_model
from reelstream.train.options import ModelOptions, TrainOptions
from reelstream.types import Position
from train_kit import TEXTS, NumberStream, make_sample


@pytest.mark.slow
def test_the_tiny_defaults_learn_the_direction_of_motion() -> None:
    loaded = load_model(ModelOptions(), texts=TEXTS, seed=0)
    options = TrainOptions(max_steps=500, epochs=3, device="cpu", num_threads=1)
    TrainingLoop(loaded, NumberStream(4000), options=options, samples_per_epoch=4000).run()
    held_out = [question_of(make_sample(number, Position(0, 0, number))) for number in range(50_000, 50_100)]
    result = evaluate(
        loaded.model,
        loaded.family,
        [question for question in held_out if question is not None],
        batch_size=32,
        compute=Compute(device=torch.device("cpu"), use_bfloat16=False),
    )
    assert (result.num_questions, result.chance) == (100, 0.25)
    assert result.accuracy >= 0.8
