"""What ranks tell one another in the course of a step, as records of a fixed size, and what follows from them.

Twice a step each rank hears all: when it has a batch in hand (or none), and when the gradients are made. So a rank
whose data end, fail or are called off is never waited for inside the engine, where only a broken connection would tell.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

_REASON_BYTES = 32


class Turn(IntEnum):
    """What a rank has when the next batch is due; where ranks differ, the highest counts."""

    BATCH = 0
    EPOCH_END = 1
    STOP = 2
    """Somebody wishes the run to stop, and no batch is there yet."""
    FAILED = 3
    """The data failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchVote:
    """What one rank has when the next batch is due."""

    turn: Turn
    num_labelled: int = 0
    """Tokens of its batch that are trained on."""
    stop_reason: str = ""
    """Why it wishes to stop; the first 32 bytes travel."""
    can_save: bool = True
    """Where its data failed: whether what was trained so far is worth a checkpoint."""

    _FORMAT = struct.Struct(f"<BqB{_REASON_BYTES}s")

    def pack(self) -> bytes:
        """Return the record."""
        reason = self.stop_reason.encode()[:_REASON_BYTES]
        return self._FORMAT.pack(self.turn, self.num_labelled, self.can_save, reason)

    @classmethod
    def unpack(cls, record: bytes) -> Self:
        """Return what `pack` packed."""
        turn, num_labelled, can_save, reason = cls._FORMAT.unpack(record)
        return cls(turn=Turn(turn), num_labelled=num_labelled, can_save=bool(can_save), stop_reason=_text(reason))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepVote:
    """What one rank made of its batches of a step."""

    loss_sum: float
    num_losses: int
    num_samples: int
    stop_reason: str = ""
    """Why it wishes to stop; empty where it does not."""

    _FORMAT = struct.Struct(f"<dqq{_REASON_BYTES}s")

    def pack(self) -> bytes:
        """Return the record."""
        reason = self.stop_reason.encode()[:_REASON_BYTES]
        return self._FORMAT.pack(self.loss_sum, self.num_losses, self.num_samples, reason)

    @classmethod
    def unpack(cls, record: bytes) -> Self:
        """Return what `pack` packed."""
        loss_sum, num_losses, num_samples, reason = cls._FORMAT.unpack(record)
        return cls(loss_sum=loss_sum, num_losses=num_losses, num_samples=num_samples, stop_reason=_text(reason))


def summed(votes: Sequence[StepVote]) -> StepVote:
    """Return the step of all ranks: sums in the order of ranks, so that they are the same everywhere.

    A loss that is no number stays one in the sum, so all ranks refuse it together.
    """
    return StepVote(
        loss_sum=sum(vote.loss_sum for vote in votes),
        num_losses=sum(vote.num_losses for vote in votes),
        num_samples=sum(vote.num_samples for vote in votes),
        stop_reason=next((vote.stop_reason for vote in votes if vote.stop_reason), ""),
    )


def _text(padded: bytes) -> str:
    return padded.rstrip(b"\0").decode(errors="ignore")
