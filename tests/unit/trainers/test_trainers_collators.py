"""Collators: what the model takes, and what it is trained on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from reelstream.errors import ConfigError
from reelstream.trainers import collate, processor_collate
from reelstream.types import Position
from train_kit import make_sample, smallest_model

SAMPLES = [make_sample(number, Position(0, 0, number)) for number in range(3)]


def test_a_batch_of_the_family_trains_the_model_on_the_answers() -> None:
    loaded = smallest_model()
    batch = collate(loaded.family)(SAMPLES)
    spoken = batch["input_ids"][batch["labels"] != -100]
    assert len(batch["input_ids"]) == 3
    assert "left" in loaded.family.tokenizer.decode(spoken)
    assert torch.isfinite(loaded.model(**batch).loss)


class RecordedProcessor:
    """Keeps what a processor of transformers is asked, and marks the last two tokens as spoken."""

    chat_template = "{% generation %}{% endgeneration %}"

    def __init__(self, spoken: int = 2) -> None:
        self.spoken = spoken
        self.asked: dict[str, Any] = {}

    def apply_chat_template(self, conversations: Any, **settings: Any) -> dict[str, Any]:
        self.asked = {"conversations": conversations, **settings}
        shape = (len(conversations), 5)
        masks = [[0] * (5 - self.spoken) + [1] * self.spoken] * shape[0]
        ids = torch.arange(shape[0] * 5).view(shape)
        # A list of lists, as processors return it.
        return {"input_ids": ids, "attention_mask": torch.ones(shape, dtype=torch.int64), "assistant_masks": masks}


def test_a_processor_gets_the_frames_and_their_times_and_gives_labels() -> None:
    processor = RecordedProcessor()
    batch = processor_collate(processor, max_length=64)(SAMPLES)
    assert batch["labels"].tolist()[0] == [-100, -100, -100, 3, 4]
    assert "assistant_masks" not in batch
    part = processor.asked["conversations"][1][0]["content"][0]
    assert part["type"] == "video"
    assert torch.equal(part["video"], SAMPLES[1]["frames"])
    settings = processor.asked["processor_kwargs"]
    assert settings["max_length"] == 64
    assert settings["do_sample_frames"] is False
    assert settings["video_metadata"][2] == [
        {"fps": 30.0, "total_num_frames": 120, "duration": 4.0, "frames_indices": [0, 30, 60, 90]}
    ]


def test_a_chat_template_that_marks_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="no labels"):
        processor_collate(RecordedProcessor(), chat_template="{{ messages }}")


def test_a_batch_without_labels_is_refused() -> None:
    with pytest.raises(ConfigError, match="no labels"):
        processor_collate(RecordedProcessor(spoken=0))(SAMPLES)
