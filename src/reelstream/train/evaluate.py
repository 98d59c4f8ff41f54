"""What a model knows of clips that it was not trained on: the loss of their samples, and answers to their questions.

Multiple-choice questions are scored by the options' words: the answer is the option whose words have the lowest loss.
Not by its letter: letters are dealt at random, and a small model that knows the answer does not know its letter.
Measured on four directions of motion after 300 steps: 1.00 by words, 0.29 by letters, where chance is 0.25. Each option
is written as the dataset writes answers (`B. left`), since words without their letter are a text that the model never
saw: scored so it stays at chance.

Samples come one at a time and go as soon as their batch is through the model, so that memory holds a batch of them,
however many there are.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reelstream.catalog.choices import parse_answer, parse_options
from reelstream.data.sample import Sample
from reelstream.telemetry.events import Evaluated
from reelstream.train.device import Compute
from reelstream.train.families import EncodedSample, Family
from reelstream.train.families.base import PreparedClip
from reelstream.train.loss import TokenLosses, token_losses
from reelstream.types import Messages

# `B. left`, `(B) left`, `B: left`; a letter alone leaves no words to score.
_LETTERED = re.compile(r"^(?P<opening>\(?)[A-Z](?P<closing>[.:)])\s+\S")


class Answer(NamedTuple):
    """One thing that the assistant could say."""

    lead: str
    """Its beginning, which is not scored: `B.`, or nothing."""
    words: str
    """The rest, which is."""


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
    answers: tuple[Answer, ...]
    """What the assistant could say, one for each option."""
    right: int
    """Index of the right one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationResult:
    """What came of an evaluation."""

    loss: float | None = None
    """Mean over all tokens of the samples that would be trained on; None where there is none."""
    num_samples: int = 0
    """Samples that the loss is of."""
    accuracy: float
    """Share of right answers; 0 where there was no question."""
    chance: float
    """What guessing would give: the mean of one over the number of options."""
    num_questions: int
    chosen: tuple[int, ...]
    """The answer taken for each question, in order."""
    received_bytes: int = 0
    """Bytes that came from the network for it."""
    wait_s: float = 0.0
    """Seconds that it took, in which nothing was trained."""

    def event(self, step: int) -> Evaluated:
        """Return what telemetry is told."""
        return Evaluated(
            step=step,
            loss=self.loss,
            num_samples=self.num_samples,
            accuracy=self.accuracy,
            chance=self.chance,
            num_questions=self.num_questions,
            received_bytes=self.received_bytes,
            wait_s=self.wait_s,
        )


def question_of(sample: Sample) -> Question | None:
    """Return the first multiple-choice question of a sample; None where it has none whose answer can be read."""
    turns = sample["conversations"]
    for number, (asked, answered) in enumerate(itertools.pairwise(turns)):
        if asked["from"] != "human" or answered["from"] != "gpt":
            continue
        options = parse_options(asked["value"])
        right = None if options is None else parse_answer(answered["value"], options)
        if options is None or right is None:
            continue
        return Question(
            frames=sample["frames"],
            timestamps=sample["timestamps"].tolist(),
            duration=sample["duration"],
            messages=sample["messages"][: number + 1],
            answers=_answers_like(answered["value"], options),
            right=right,
        )
    return None


def _answers_like(published: str, options: Sequence[str]) -> tuple[Answer, ...]:
    """Return the options as the published answer is written: with a letter where it has one."""
    match = _LETTERED.match(published)
    if match is None:
        return tuple(Answer("", option) for option in options)
    opening, closing = match.group("opening"), match.group("closing")
    return tuple(
        Answer(f"{opening}{chr(ord('A') + number)}{closing}", f" {option}") for number, option in enumerate(options)
    )


def evaluate_samples(
    model: Any,
    family: Family,
    samples: Iterable[Sample],
    *,
    batch_size: int,
    compute: Compute,
    max_questions: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> EvaluationResult:
    """Take the loss of each sample, and ask the multiple-choice questions among them.

    The model is left in the mode in which it was; no random number is drawn, nothing is dropped out.

    Args:
        model: A conditional generation model of transformers, on the device of `compute`.
        family: Its preprocessing.
        samples: Read once, one at a time.
        batch_size: Samples, or pairs of question and answer, that go through the model at once.
        compute: Device and arithmetic.
        max_questions: Ask the first so many questions only; None asks all.
        should_stop: Asked between batches; true leaves out what is not scored yet.
    """
    losses = _MeanLoss(model, family, batch_size=batch_size, compute=compute)
    answers = _Answers(model, family, batch_size=batch_size, compute=compute)
    with _evaluating(model), contextlib.suppress(_Stopped):
        for sample in samples:
            clip = family.prepare(sample["frames"], sample["timestamps"].tolist(), sample["duration"])
            losses.add(family.encode(sample["messages"], clip), should_stop)
            question = question_of(sample) if max_questions is None or answers.num_asked < max_questions else None
            if question is not None:
                answers.ask(question, clip, should_stop)
        losses.flush(should_stop)
        answers.flush(should_stop)
    return answers.result(loss=losses.mean, num_samples=losses.num_samples)


def evaluate(
    model: Any,
    family: Family,
    questions: Iterable[Question],
    *,
    batch_size: int,
    compute: Compute,
    should_stop: Callable[[], bool] = lambda: False,
) -> EvaluationResult:
    """Ask each question and take the answer of the lowest mean loss; ties go to the first. As `evaluate_samples`.

    Args:
        model: A conditional generation model of transformers, on the device of `compute`.
        family: Its preprocessing.
        questions: Read once, one at a time.
        batch_size: Pairs of question and answer that go through the model at once.
        compute: Device and arithmetic.
        should_stop: Asked between batches; true leaves out the questions that are not scored yet.
    """
    answers = _Answers(model, family, batch_size=batch_size, compute=compute)
    with _evaluating(model), contextlib.suppress(_Stopped):
        for question in questions:
            clip = family.prepare(question.frames, question.timestamps, question.duration)
            answers.ask(question, clip, should_stop)
        answers.flush(should_stop)
    return answers.result()


class _Stopped(Exception):  # noqa: N818 - not an error: somebody asked for it
    """Leaves out what is not scored yet."""


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


class _MeanLoss:
    """The mean loss over the trained tokens of samples, taken a batch at a time."""

    def __init__(self, model: Any, family: Family, *, batch_size: int, compute: Compute) -> None:
        self._model, self._family, self._compute = model, family, compute
        self._batch_size = batch_size
        self._batch: list[EncodedSample] = []
        self._sum = 0.0
        self._num_tokens = 0
        self.num_samples = 0

    def add(self, sample: EncodedSample, should_stop: Callable[[], bool]) -> None:
        """Take a sample."""
        self._batch.append(sample)
        if len(self._batch) == self._batch_size:
            self.flush(should_stop)

    def flush(self, should_stop: Callable[[], bool]) -> None:
        """Score what waits for a full batch."""
        samples, self._batch = self._batch, []
        if not samples:
            return
        if should_stop():
            raise _Stopped
        losses = _token_losses(self._model, self._family, samples, self._compute).losses
        self._sum += losses.double().sum().item()
        self._num_tokens += len(losses)
        self.num_samples += len(samples)

    @property
    def mean(self) -> float | None:
        """Over all tokens so far; None where there is none."""
        return self._sum / self._num_tokens if self._num_tokens else None


@dataclass(slots=True)
class _Asked:
    """What is kept of a question: not its frames."""

    right: int
    num_answers: int
    losses: list[float] = field(default_factory=list)


class _Answers:
    """Answers to questions, taken a batch of (question, answer) at a time."""

    def __init__(self, model: Any, family: Family, *, batch_size: int, compute: Compute) -> None:
        self._model, self._family, self._compute = model, family, compute
        self._batch_size = batch_size
        self._batch: list[tuple[_Asked, EncodedSample]] = []
        self._asked: list[_Asked] = []

    @property
    def num_asked(self) -> int:
        """Questions so far."""
        return len(self._asked)

    def ask(self, question: Question, clip: PreparedClip, should_stop: Callable[[], bool]) -> None:
        """Take a question."""
        asked = _Asked(right=question.right, num_answers=len(question.answers))
        self._asked.append(asked)
        for answer in question.answers:
            said = {"role": "assistant", "content": [{"type": "text", "text": answer.lead + answer.words}]}
            encoded = self._family.encode([*question.messages, said], clip, answer_from=len(answer.lead))
            self._batch.append((asked, encoded))
            if len(self._batch) == self._batch_size:
                self.flush(should_stop)

    def flush(self, should_stop: Callable[[], bool]) -> None:
        """Score what waits for a full batch."""
        pairs, self._batch = self._batch, []
        if not pairs:
            return
        if should_stop():
            raise _Stopped
        losses = _token_losses(self._model, self._family, [sample for _, sample in pairs], self._compute)
        for (asked, _), loss in zip(pairs, losses.row_means(len(pairs)).tolist(), strict=True):
            asked.losses.append(loss)

    def result(self, *, loss: float | None = None, num_samples: int = 0) -> EvaluationResult:
        """Return how the questions were answered of which all answers are scored."""
        complete = [asked for asked in self._asked if len(asked.losses) == asked.num_answers]
        chosen = tuple(min(range(asked.num_answers), key=asked.losses.__getitem__) for asked in complete)
        num_questions = len(complete)
        num_right = sum(choice == asked.right for choice, asked in zip(chosen, complete, strict=True))
        chances = sum(1 / asked.num_answers for asked in complete)
        return EvaluationResult(
            loss=loss,
            num_samples=num_samples,
            accuracy=num_right / num_questions if num_questions else 0.0,
            chance=chances / num_questions if num_questions else 0.0,
            num_questions=num_questions,
            chosen=chosen,
        )


def _token_losses(model: Any, family: Family, samples: list[EncodedSample], compute: Compute) -> TokenLosses:
    batch = {name: tensor.to(compute.device) for name, tensor in family.collate(samples).items()}
    with compute.autocast():
        return token_losses(model, batch)
