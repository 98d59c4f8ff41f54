from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from reelstream.train import evaluate as module
from reelstream.train.device import Compute
from reelstream.train.evaluate import Answer, Question, evaluate, question_of
from reelstream.train.loss import token_losses
from reelstream.train.models import LoadedModel
from reelstream.types import Position
from train_kit import make_sample, smallest_model

CPU = Compute(device=torch.device("cpu"), use_bfloat16=False)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return smallest_model()


def sample_with(question: str, answer: str) -> Any:
    sample = make_sample(1, Position(0, 0, 0))
    sample["conversations"] = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return sample


def questions_of(num_questions: int) -> list[Question]:
    questions = [question_of(make_sample(number, Position(0, 0, number))) for number in range(num_questions)]
    return [question for question in questions if question is not None]


LISTED = "<video>\nWhere?\nOptions:\nA. left\nB. up"


@pytest.mark.parametrize(
    ("published", "answers", "right"),
    [
        ("B. up", (Answer("A.", " left"), Answer("B.", " up")), 1),
        ("(A) left", (Answer("(A)", " left"), Answer("(B)", " up")), 0),
        ("up", (Answer("", "left"), Answer("", "up")), 1),
        ("B", (Answer("", "left"), Answer("", "up")), 1),
    ],
)
def test_options_are_written_as_the_dataset_writes_answers(
    published: str, answers: tuple[Answer, ...], right: int
) -> None:
    question = question_of(sample_with(LISTED, published))
    assert question is not None
    assert (question.answers, question.right) == (answers, right)


def test_a_sample_without_a_question_that_can_be_scored_is_none() -> None:
    assert question_of(sample_with("<video>\nWhere does it go?", "Up.")) is None
    assert question_of(sample_with(LISTED, "Nowhere.")) is None


def test_the_question_may_come_later_in_the_conversation() -> None:
    sample = make_sample(1, Position(0, 0, 0))
    first = [{"from": "human", "value": "<video>\nHello?"}, {"from": "gpt", "value": "Hello."}]
    sample["conversations"] = first + sample["conversations"]
    sample["messages"] = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}] + sample[
        "messages"
    ]
    question = question_of(sample)
    assert question is not None
    assert [message["role"] for message in question.messages] == ["user", "assistant", "user"]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_option_of_the_lowest_loss_is_taken_whatever_the_batches(loaded: LoadedModel, batch_size: int) -> None:
    questions = questions_of(5)
    result = evaluate(loaded.model, loaded.family, questions, batch_size=batch_size, compute=CPU)
    expected = evaluate(loaded.model, loaded.family, questions, batch_size=4, compute=CPU)
    assert result == expected
    assert (result.num_questions, result.chance) == (5, 0.25)
    assert result.accuracy == sum(
        chosen == question.right for chosen, question in zip(result.chosen, questions, strict=True)
    ) / len(questions)


def test_only_the_words_are_scored(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[str] = []
    original = token_losses

    def recorded(model: Any, batch: dict[str, torch.Tensor]) -> Any:
        scored.extend(loaded.family.tokenizer.decode(row[row >= 0]) for row in batch["labels"])
        return original(model, batch)

    monkeypatch.setattr(module, "token_losses", recorded)
    question = questions_of(1)[0]
    evaluate(loaded.model, loaded.family, [question], batch_size=2, compute=CPU)
    assert scored == [f"{answer.words}<|im_end|>" for answer in question.answers]


def test_chance_is_the_mean_over_questions_of_different_numbers_of_options(loaded: LoadedModel) -> None:
    first, second = questions_of(2)
    second = dataclasses.replace(second, answers=second.answers[:2], right=0)
    result = evaluate(loaded.model, loaded.family, [first, second], batch_size=4, compute=CPU)
    assert result.chance == (1 / 4 + 1 / 2) / 2


def test_a_stop_leaves_out_what_is_not_scored_yet(loaded: LoadedModel) -> None:
    calls = iter([False, True])
    result = evaluate(
        loaded.model, loaded.family, questions_of(3), batch_size=6, compute=CPU, should_stop=lambda: next(calls)
    )
    assert result.num_questions == 1


def test_without_questions_nothing_is_claimed(loaded: LoadedModel) -> None:
    result = evaluate(loaded.model, loaded.family, [], batch_size=4, compute=CPU)
    assert (result.accuracy, result.chance, result.num_questions) == (0.0, 0.0, 0)


def test_neither_mode_nor_generators_are_changed(loaded: LoadedModel) -> None:
    loaded.model.train()
    before = torch.get_rng_state()
    evaluate(loaded.model, loaded.family, questions_of(1), batch_size=4, compute=CPU)
    assert loaded.model.training
    assert torch.equal(torch.get_rng_state(), before)
