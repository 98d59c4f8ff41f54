from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from reelstream.data.sample import Sample
from reelstream.train import evaluate as module
from reelstream.train.device import Compute
from reelstream.train.evaluate import Answer, Question, evaluate, evaluate_samples, question_of
from reelstream.train.feeder import encode_sample
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


def test_the_loss_is_the_mean_over_all_trained_tokens_whatever_the_batches(loaded: LoadedModel) -> None:
    samples = [make_sample(number, Position(0, 0, number)) for number in range(5)]
    results = [
        evaluate_samples(loaded.model, loaded.family, samples, batch_size=batch_size, compute=CPU)
        for batch_size in (1, 2, 16)
    ]
    loaded.model.eval()
    with torch.no_grad():
        batch = loaded.family.collate([encode_sample(loaded.family, sample) for sample in samples])
        expected = token_losses(loaded.model, batch).losses.mean().item()
    for result in results:
        assert result.loss == pytest.approx(expected, rel=1e-5)
        assert (result.num_samples, result.num_questions) == (5, 5)
    alone = evaluate(loaded.model, loaded.family, questions_of(5), batch_size=4, compute=CPU)
    assert results[1].chosen == alone.chosen
    assert (results[1].accuracy, results[1].chance) == (alone.accuracy, alone.chance)


def test_samples_without_a_question_have_a_loss_all_the_same(loaded: LoadedModel) -> None:
    samples = [sample_with("<video>\nWhere does it go?", "Up."), make_sample(2, Position(0, 0, 1))]
    result = evaluate_samples(loaded.model, loaded.family, samples, batch_size=4, compute=CPU)
    assert (result.num_samples, result.num_questions) == (2, 1)
    assert result.loss is not None
    event = result.event(7)
    assert (event.step, event.loss, event.num_samples, event.num_questions) == (7, result.loss, 2, 1)


def test_no_more_questions_are_asked_than_wanted_and_all_losses_are_taken(loaded: LoadedModel) -> None:
    samples = [make_sample(number, Position(0, 0, number)) for number in range(4)]
    result = evaluate_samples(loaded.model, loaded.family, samples, batch_size=4, compute=CPU, max_questions=2)
    assert (result.num_samples, result.num_questions) == (4, 2)


def test_no_sample_gives_no_loss(loaded: LoadedModel) -> None:
    assert evaluate_samples(loaded.model, loaded.family, [], batch_size=4, compute=CPU).loss is None


def test_no_more_samples_than_a_batch_are_held_however_many_there_are(loaded: LoadedModel) -> None:
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def stream() -> Iterator[Sample]:
        nonlocal most
        for number in range(12):
            sample = make_sample(number, Position(0, 0, number))
            alive.append(weakref.ref(sample["frames"]))
            most = max(most, sum(frames() is not None for frames in alive))
            yield sample

    evaluate_samples(loaded.model, loaded.family, stream(), batch_size=2, compute=CPU)
    assert most <= 4
