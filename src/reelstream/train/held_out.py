"""Multiple-choice questions about clips that are not trained on, streamed as the training data are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from reelstream.cache import DiskBudget
from reelstream.data import StreamingVideoDataset
from reelstream.errors import ConfigError
from reelstream.prefetch.options import StreamOptions
from reelstream.telemetry import Telemetry
from reelstream.train.evaluate import Question, question_of
from reelstream.train.options import EvaluationOptions


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
