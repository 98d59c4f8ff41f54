"""Multiple-choice questions about clips that are not trained on, streamed as the training data are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from reelstream.cache import DiskBudget
from reelstream.catalog import parse_answer, parse_options
from reelstream.data import Sample, StreamingVideoDataset
from reelstream.errors import ConfigError
from reelstream.prefetch.options import StreamOptions
from reelstream.telemetry import Telemetry
from reelstream.train.evaluate import Question
from reelstream.train.options import EvaluationOptions
from reelstream.types import Messages


def held_out_questions(
    options: EvaluationOptions, data: StreamOptions, *, telemetry: Telemetry, budget: DiskBudget
) -> Iterator[Question]:
    """Yield the questions of the held-out subset, in its published order.

    The clips are streamed inside the run's disk budget, so nothing else may be using its part for clips meanwhile.

    Args:
        options: Which subset, and how many questions.
        data: How the training data are streamed; the held-out clips come in the same way.
        telemetry: Who is told of notices.
        budget: The run's.

    Raises:
        ConfigError: Where the subset holds no multiple-choice question.
    """
    assert options.subset is not None
    held_out = dataclasses.replace(
        data, subsets=(options.subset,), annotations=("mc",), shuffle=False, limit=None, revision=data.revision
    )
    num_questions = 0
    with StreamingVideoDataset.from_options(held_out, telemetry=telemetry, budget=budget) as dataset:
        for sample in dataset:
            question = question_of(sample)
            if question is None:
                continue
            num_questions += 1
            yield question
            if num_questions == options.max_questions:
                return
    if num_questions == 0:
        raise ConfigError(
            f"evaluation.subset {options.subset} holds no multiple-choice question with an answer among its options",
            "name another subset, or leave evaluation.subset out",
        )


def question_of(sample: Sample) -> Question | None:
    """Return the first question of a sample's conversation; None where it is not one with lettered options."""
    turns = sample["conversations"]
    if len(turns) < 2:
        return None
    options = parse_options(turns[0]["value"])
    right = parse_answer(turns[1]["value"], options) if options is not None else None
    if options is None or right is None:
        return None
    asked: Messages = sample["messages"][:1]
    return Question(
        frames=sample["frames"],
        timestamps=sample["timestamps"].tolist(),
        duration=sample["duration"],
        messages=asked,
        answers=tuple(options),
        right=right,
    )
