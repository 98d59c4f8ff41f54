"""Multiple-choice questions, scored by what the model would say: the option of the lowest loss.

Not by its letter: letters are dealt at random, and a small model that knows the answer does not know its letter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reelstream.train.device import Compute
from reelstream.train.families import EncodedSample, Family
from reelstream.train.loss import token_losses
from reelstream.types import Messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question about a clip, and what could be answered."""

    frames: Tensor
    """uint8, T x 3 x H x W."""
    timestamps: Sequence[float]
    """Seconds of each frame, T."""
    duration: float
    """Seconds."""
    messages: Messages
    """The conversation up to the answer."""
    answers: tuple[str, ...]
    """What the assistant could say, one for each option."""
    right: int
    """Index of the right one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationResult:
    """How many questions were answered rightly."""

    accuracy: float
    """Share of right answers; 0 where there was no question."""
    chance: float
    """What guessing would give: the mean of one over the number of options."""
    num_questions: int
    chosen: tuple[int, ...]
    """The answer taken for each question, in order."""


def evaluate(
    model: Any,
    family: Family,
    questions: Iterable[Question],
    *,
    batch_size: int,
    compute: Compute,
    should_stop: Callable[[], bool] = lambda: False,
) -> EvaluationResult:
    """Ask each question and take the answer of the lowest mean loss; ties go to the first.

    The model is left in the mode in which it was; no random number is drawn.

    Args:
        model: A conditional generation model of transformers, on the device of `compute`.
        family: Its preprocessing.
        questions: Read once, one at a time.
        batch_size: Pairs of question and answer that go through the model at once.
        compute: Device and arithmetic.
        should_stop: Asked between batches; true leaves out the questions that are not scored yet.
    """
    was_training = model.training
    model.eval()
    scores: list[list[float]] = []
    asked: list[Question] = []
    try:
        with torch.no_grad():
            for batch in _batches(_pairs(family, questions, asked), batch_size):
                if should_stop():
                    break
                for number, score in zip(
                    [number for number, _ in batch],
                    _mean_losses(model, family, [sample for _, sample in batch], compute),
                    strict=True,
                ):
                    scores.extend([] for _ in range(number + 1 - len(scores)))
                    scores[number].append(score)
    finally:
        model.train(was_training)
    return _result(asked, scores)


def _pairs(
    family: Family, questions: Iterable[Question], asked: list[Question]
) -> Iterator[tuple[int, EncodedSample]]:
    for number, question in enumerate(questions):
        asked.append(question)
        clip = family.prepare(question.frames, question.timestamps, question.duration)
        for answer in question.answers:
            said = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
            yield number, family.encode([*question.messages, said], clip)


def _batches(
    pairs: Iterable[tuple[int, EncodedSample]], batch_size: int
) -> Iterator[list[tuple[int, EncodedSample]]]:
    batch: list[tuple[int, EncodedSample]] = []
    for pair in pairs:
        batch.append(pair)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _mean_losses(model: Any, family: Family, samples: list[EncodedSample], compute: Compute) -> list[float]:
    # The conversation's earlier answers have labels too; only the last one differs between the options.
    batch = {name: tensor.to(compute.device) for name, tensor in family.collate(samples).items()}
    with compute.autocast():
        losses = token_losses(model, batch)
    means: list[float] = losses.row_means(len(samples)).tolist()
    return means


def _result(asked: list[Question], scores: list[list[float]]) -> EvaluationResult:
    complete = [
        (question, losses)
        for question, losses in zip(asked, scores, strict=False)
        if len(losses) == len(question.answers)
    ]
    chosen = tuple(min(range(len(losses)), key=losses.__getitem__) for _, losses in complete)
    num_questions = len(complete)
    num_right = sum(choice == question.right for choice, (question, _) in zip(chosen, complete, strict=True))
    return EvaluationResult(
        accuracy=num_right / num_questions if num_questions else 0.0,
        chance=sum(1 / len(question.answers) for question, _ in complete) / num_questions if num_questions else 0.0,
        num_questions=num_questions,
        chosen=chosen,
    )
