from __future__ import annotations

import torch

from reelstream.train.feeder import encode_sample
from reelstream.train.loss import TokenLosses, num_labelled, token_losses
from reelstream.types import Position
from train_kit import make_sample, smallest_model


def test_the_mean_of_the_token_losses_is_the_models_own_loss() -> None:
    loaded = smallest_model()
    samples = [encode_sample(loaded.family, make_sample(number, Position(0, 0, number))) for number in range(3)]
    batch = loaded.family.collate(samples)
    losses = token_losses(loaded.model, batch)
    assert len(losses.losses) == num_labelled(batch["labels"])
    torch.testing.assert_close(losses.losses.mean(), loaded.model(**batch).loss)


def test_rows_have_means_of_their_own() -> None:
    losses = TokenLosses(losses=torch.tensor([1.0, 3.0, 5.0]), rows=torch.tensor([0, 0, 2]))
    assert losses.row_means(3).tolist() == [2.0, float("inf"), 5.0]
