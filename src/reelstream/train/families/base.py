"""What a model family is to the rest of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor

from reelstream.types import Messages

IGNORED_LABEL = -100
"""The label of tokens that are not trained on, as torch's cross entropy knows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedClip:
    """A clip as its family takes it."""

    tensors: dict[str, Tensor]
    text: str
    """What stands in the conversation where the clip goes: special tokens, and the family's words about time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedSample:
    """A sample ready to be joined with others to a batch."""

    input_ids: Tensor
    """int64, N."""
    labels: Tensor
    """int64, N: the token where it is trained on, else `IGNORED_LABEL`."""
    media: dict[str, Tensor]
    """The clip's tensors, as `PreparedClip.tensors`; empty where the conversation has no clip."""


class Family(Protocol):
    """Turns samples into batches of one architecture.

    A protocol because each architecture has its own patches, special tokens and words about time, and the loop, the
    evaluation and the checkpoints must not know which.
    """

    special_tokens: ClassVar[tuple[str, ...]]
    """What a tokenizer of this family must know as single tokens."""
    tokenizer: Any
    """A fast tokenizer of transformers."""

    def prepare(self, frames: Tensor, timestamps: Sequence[float], duration: float) -> PreparedClip:
        """Return the clip as the model takes it.

        Args:
            frames: uint8, T x 3 x H x W, T at least 1.
            timestamps: Seconds of each frame, T.
            duration: Seconds of the whole clip.
        """
        ...

    def encode(self, messages: Messages, clip: PreparedClip | None, *, answer_from: int | None = None) -> EncodedSample:
        """Return tokens and labels of a conversation; labels cover the assistant's turns only.

        The first video part becomes the clip's text. Special tokens that stand in the conversation's own text are
        broken up, so that a dataset cannot forge turns or clips.

        Args:
            messages: The conversation.
            clip: Its clip; None takes the conversation as text only.
            answer_from: Where given, labels cover the last assistant turn only, from this character of its text on.
        """
        ...

    def collate(self, samples: Sequence[EncodedSample]) -> dict[str, Tensor]:
        """Return one batch, padded on the right: the model's arguments by name, and `labels`."""
        ...

    def settings(self) -> Mapping[str, Any]:
        """Return the preprocessing as `video_preprocessor_config.json` holds it."""
        ...

    def processor_settings(self) -> Mapping[str, Any]:
        """Return what `processor_config.json` must hold besides; empty where nothing."""
        ...
