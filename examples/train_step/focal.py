"""A train step of one's own: a focal loss, which makes much of tokens that the model is unsure of.

`reelstream train` calls it in place of its own forward pass, on one process or many, with gradient accumulation or
without; downloading, checkpoints, resume and the update stay as they are. See config.yaml beside this file.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from reelstream.train.loss import num_labelled, token_losses

GAMMA = 2.0
"""0 is the plain cross entropy; the higher, the less the tokens count that are right already."""


def train_step(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return the focal loss of each trained token, (N,); Reelstream takes their mean over the whole step.

    Args:
        model: The model, on its device and in training mode.
        batch: `input_ids`, `labels` (-100 where nothing is trained), `attention_mask`, and the family's pixels.
    """
    # Logits are made for the answers' tokens only; `model(**batch).logits` would make them for all.
    losses = token_losses(model, batch).losses
    assert losses.shape == (num_labelled(batch["labels"]),), "one loss for each trained token"
    confidence = (-losses.detach()).exp()
    return (1.0 - confidence) ** GAMMA * losses
