"""What the tests of training share: a stream made of numbers, and models small enough to train in milliseconds."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import torch

from reelstream.cancel import Cancelled
from reelstream.data.sample import Sample
from reelstream.train.models import LoadedModel, load_model
from reelstream.train.options import ModelOptions, TinyOptions
from reelstream.types import Messages, Position

SMALLEST = TinyOptions(
    vocabulary_size=320,
    hidden_size=16,
    intermediate_size=16,
    num_layers=1,
    num_heads=2,
    num_key_value_heads=1,
    vision_hidden_size=16,
    vision_layers=1,
)
DIRECTIONS = ("left", "right", "up", "down")
TEXTS = tuple(f"The shape moves {direction}. {direction.capitalize()}." for direction in DIRECTIONS)


def smallest_model(seed: int = 0) -> LoadedModel:
    """Return a Qwen3-VL of a few thousand parameters."""
    return load_model(ModelOptions(tiny=SMALLEST), texts=TEXTS, seed=seed)


def make_messages(question: str, answer: str) -> Messages:
    """Return one question about a video, and its answer."""
    return [
        {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]


def moving_square(direction: str, chance: random.Random, num_frames: int = 4, side: int = 32) -> torch.Tensor:
    """Return frames, uint8, of a bright square that crosses a dark ground."""
    frames = torch.full((num_frames, 3, side, side), 20, dtype=torch.uint8)
    edge, cross = 8, chance.randrange(side - 8)
    colour = torch.tensor([chance.randrange(128, 256) for _ in range(3)], dtype=torch.uint8).view(3, 1, 1)
    for number in range(num_frames):
        along = round((side - edge) * number / max(1, num_frames - 1))
        if direction in ("left", "up"):
            along = side - edge - along
        top, left = (cross, along) if direction in ("left", "right") else (along, cross)
        frames[number, :, top : top + edge, left : left + edge] = colour
    return frames


def make_sample(number: int, position: Position) -> Sample:
    """Return the sample of a number: always the same one."""
    chance = random.Random(number)
    direction = DIRECTIONS[number % 4]
    frames = moving_square(direction, chance, num_frames=2 + number % 3)
    options = chance.sample(DIRECTIONS, 4)
    letter = "ABCD"[options.index(direction)]
    listed = "\n".join(f"{option_letter}. {option}" for option_letter, option in zip("ABCD", options, strict=True))
    question, answer = f"Where does it go?\nOptions:\n{listed}", f"{letter}. {direction}"
    return Sample(
        id=f"sample-{number}",
        clip=f"clip-{number}.mp4",
        subset="numbers",
        position=position,
        frames=frames,
        timestamps=torch.arange(len(frames), dtype=torch.float64),
        frame_indices=torch.arange(len(frames)) * 30,
        fps=30.0,
        duration=float(len(frames)),
        conversations=[{"from": "human", "value": f"<video>\n{question}"}, {"from": "gpt", "value": answer}],
        messages=make_messages(question, answer),
    )


class NumberStream:
    """A `SampleStream` of numbers: two lanes, shuffled by epoch, and a record of what was asked of it."""

    def __init__(self, num_samples: int, seed: int = 0) -> None:
        self.num_samples = num_samples
        self.seed = seed
        self.epoch = 0
        self.consumed = 0
        self.pulled: list[tuple[int, int]] = []
        self.cancelled = threading.Event()

    def order(self, epoch: int) -> list[int]:
        return random.Random(f"{self.seed}/{epoch}").sample(range(self.num_samples), self.num_samples)

    def __iter__(self) -> Iterator[Sample]:
        order = self.order(self.epoch)
        while self.consumed < self.num_samples:
            if self.cancelled.is_set():
                raise Cancelled
            number, place = order[self.consumed], self.consumed
            self.consumed += 1
            self.pulled.append((self.epoch, number))
            yield make_sample(number, Position(self.epoch, place % 2, place // 2))

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.consumed = epoch, 0

    def state_dict(self, after: Position | None = None) -> dict[str, Any]:
        assert after is not None
        return {"epoch": after.epoch, "consumed": after.slot * 2 + after.lane + 1}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.consumed = state["epoch"], state["consumed"]

    def cancel(self) -> None:
        self.cancelled.set()
