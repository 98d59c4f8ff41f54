"""What makes tensors of samples: by Reelstream's own preprocessing, or by a processor of transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from reelstream.data import Sample
from reelstream.errors import ConfigError
from reelstream.train.families import Family
from reelstream.train.families.base import IGNORED_LABEL
from reelstream.train.feeder import encode_sample

Collate = Callable[[Sequence[Sample]], dict[str, Tensor]]


def collate(family: Family) -> Collate:
    """Return a collator by Reelstream's own preprocessing: the one that `reelstream train` uses.

    It needs neither torchvision nor a chat template. Batches hold the model's arguments by name, padded on the right,
    and `labels`, which cover the assistant's turns only.

    Args:
        family: Of the model, such as `load_model(...).family`.
    """

    def collated(samples: Sequence[Sample]) -> dict[str, Tensor]:
        return family.collate([encode_sample(family, sample) for sample in samples])

    return collated


def processor_collate(processor: Any, *, chat_template: str | None = None, **settings: Any) -> Collate:
    """Return a collator by a processor of transformers, such as `AutoProcessor.from_pretrained` gives.

    The frames go in as they were sampled, with the times they were sampled at. Labels cover what the chat template puts
    between `{% generation %}` and `{% endgeneration %}`.

    Args:
        processor: With a video processor, hence beside torchvision.
        chat_template: In the place of the processor's own.
        **settings: More for the processor, such as `max_length`.

    Raises (from the collator):
        ConfigError: Where the chat template marks nothing to train on.
    """
    template = chat_template if chat_template is not None else getattr(processor, "chat_template", None)
    if isinstance(template, str) and "generation" not in template:
        raise ConfigError(
            "the chat template does not say what the assistant says, so that there would be no labels",
            "put {% generation %} and {% endgeneration %} around the assistant's turns, and give it as chat_template",
        )

    def collated(samples: Sequence[Sample]) -> dict[str, Tensor]:
        batch = dict(
            processor.apply_chat_template(
                [_with_frames(sample) for sample in samples],
                **({} if chat_template is None else {"chat_template": chat_template}),
                tokenize=True,
                return_dict=True,
                return_assistant_tokens_mask=True,
                return_tensors="pt",
                processor_kwargs={
                    "padding": True,
                    # They are sampled already.
                    "do_sample_frames": False,
                    "num_frames": None,
                    "fps": None,
                    "video_metadata": [[_video_metadata(sample)] for sample in samples],
                    **settings,
                },
            )
        )
        spoken = torch.as_tensor(batch.pop("assistant_masks")).bool() & batch["attention_mask"].bool()
        if not spoken.any():
            raise ConfigError(
                "the processor finds nothing in this batch that the assistant says, so that there are no labels",
                "put {% generation %} and {% endgeneration %} around the assistant's turns in the chat template",
            )
        batch["labels"] = batch["input_ids"].masked_fill(~spoken, IGNORED_LABEL)
        return batch

    return collated


def _with_frames(sample: Sample) -> list[dict[str, Any]]:
    return [
        {**message, "content": [_part_with_frames(part, sample["frames"]) for part in message["content"]]}
        for message in sample["messages"]
    ]


def _part_with_frames(part: Mapping[str, Any], frames: Tensor) -> dict[str, Any]:
    return {"type": "video", "video": frames} if part["type"] == "video" else dict(part)


def _video_metadata(sample: Sample) -> dict[str, Any]:
    return {
        "fps": sample["fps"],
        "total_num_frames": max(1, round(sample["fps"] * sample["duration"])),
        "duration": sample["duration"],
        "frames_indices": sample["frame_indices"].tolist(),
    }
