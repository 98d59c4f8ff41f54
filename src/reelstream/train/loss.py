"""The loss of the tokens that are trained on, and of no others.

Logits are made for those tokens only: a clip is thousands of tokens and an answer is tens, and a vocabulary of 150,000
would fill the memory with logits that nobody reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor

from reelstream.train.families.base import IGNORED_LABEL


@dataclass(frozen=True, slots=True)
class TokenLosses:
    """Losses of the labelled tokens of a batch."""

    losses: Tensor
    """float32 cross entropy of each labelled token, N."""
    rows: Tensor
    """int64 row of the batch that each belongs to, N."""

    def row_means(self, num_rows: int) -> Tensor:
        """Return the mean loss of each row, float32; infinite for a row without labels."""
        sums = self.losses.new_zeros(num_rows).index_add_(0, self.rows, self.losses)
        counts = self.losses.new_zeros(num_rows).index_add_(0, self.rows, torch.ones_like(self.losses))
        return torch.where(counts > 0, sums / counts.clamp(min=1), torch.inf)


def token_losses(model: Any, batch: dict[str, Tensor]) -> TokenLosses:
    """Return the losses of a batch's labelled tokens; their mean is the loss that the model itself would give.

    Args:
        model: A conditional generation model of transformers: a trunk named `model` and output embeddings.
        batch: As `Family.collate` returns it, on the model's device.
    """
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    hidden = model.model(**inputs, use_cache=False).last_hidden_state
    # Token i is told by the hidden state of i - 1.
    rows, places = torch.nonzero(batch["labels"][:, 1:] != IGNORED_LABEL, as_tuple=True)
    logits = model.get_output_embeddings()(hidden[rows, places])
    targets = batch["labels"][rows, places + 1]
    return TokenLosses(losses=F.cross_entropy(logits.float(), targets, reduction="none"), rows=rows)


def num_labelled(labels: Tensor) -> int:
    """Return how many tokens of a batch are trained on."""
    return int((labels[:, 1:] != IGNORED_LABEL).sum())
