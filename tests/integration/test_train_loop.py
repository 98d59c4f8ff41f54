from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from reelstream.cache.budget import DiskBudget
from reelstream.data.sample import Sample
from reelstream.errors import ConfigError, NetworkError, StateError, TrainingDivergedError
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import BatchReady, CheckpointSaved, Evaluated, Notice, StepFinished
from reelstream.testing import Recorder
from reelstream.train.checkpoints import CheckpointStore, load_newest
from reelstream.train.evaluate import EvaluationResult
from reelstream.train.loop import TrainingLoop, TrainOutcome
from reelstream.train.models import load_model, load_saved_model
from reelstream.train.options import CheckpointOptions, ModelOptions, TrainOptions
from reelstream.train.saving import saved_run_state
from reelstream.train.state import weights_of
from reelstream.train.stream import SampleStream
from train_kit import SMALLEST, TEXTS, NumberStream, smallest_model

# 22 samples an epoch: 6 batches, the last of 2 samples; with two of them a step, 3 steps an epoch.
NUM_SAMPLES = 22
OPTIONS = TrainOptions(epochs=4, batch_size=4, accumulate=2, warmup_steps=2, device="cpu", num_threads=1)
WORKER = Path(__file__).with_name("train_worker.py")
# Where the worker finds the test kit.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(WORKER.parents[1])}


class Run:
    """One training run on numbers, and what came of it."""

    def __init__(
        self, folder: Path, *, stream: SampleStream | None = None, resume: bool = False, keep: int = 1, **changes: Any
    ) -> None:
        self.folder = folder
        self.recorder = Recorder()
        self.stream = stream or NumberStream(NUM_SAMPLES)
        self.loaded = smallest_model()
        self.store = CheckpointStore(folder, keep=keep)
        self.store.open()
        keywords: dict[str, Any] = {
            "options": OPTIONS,
            "checkpoints": CheckpointOptions(every_steps=None),
            "samples_per_epoch": NUM_SAMPLES,
            **changes,
        }
        self.loop = TrainingLoop(
            self.loaded, self.stream, store=self.store, telemetry=Telemetry(self.recorder), **keywords
        )
        if resume:
            checkpoint = load_newest(folder)
            assert checkpoint is not None
            self.loop.resume(checkpoint)

    def go(self) -> TrainOutcome:
        return self.loop.run()

    @property
    def steps(self) -> list[tuple[Any, ...]]:
        return [
            (event.step, event.epoch, event.loss, event.learning_rate, event.num_samples)
            for event in self.recorder.of(StepFinished)
        ]

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return weights_of(self.loaded.model)


def assert_same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("quiet"))
    run.go()
    return run


class SignalAt:
    """A sink that sends this process a signal after a step."""

    def __init__(self, step: int, number: signal.Signals) -> None:
        self.step = step
        self.number = number

    def receive(self, wall_s: float, event: Any) -> None:
        if isinstance(event, StepFinished) and event.step == self.step:
            signal.raise_signal(self.number)


def test_a_run_makes_the_steps_that_epochs_and_batches_give(quiet: Run) -> None:
    assert [(step, epoch, samples) for step, epoch, _, _, samples in quiet.steps] == [
        (1 + 3 * epoch + number, epoch, samples) for epoch in range(4) for number, samples in enumerate((8, 8, 6))
    ]
    assert [event.step for event in quiet.recorder.of(CheckpointSaved)] == [12]
    assert len(quiet.recorder.of(BatchReady)) == 1
    assert not quiet.stream.cancelled.is_set()  # type: ignore[attr-defined]


def test_the_loss_falls(quiet: Run) -> None:
    losses = [loss for _, _, loss, _, _ in quiet.steps]
    assert losses[-1] < 0.9 * losses[0]


# In the middle of an epoch, at its very end, and in the next one.
@pytest.mark.parametrize("step", [1, 3, 7])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_was_called_off_and_resumed_is_the_quiet_one_bit_for_bit(
    tmp_path: Path, quiet: Run, step: int, number: signal.Signals
) -> None:
    first = Run(tmp_path)
    first.loop._telemetry.add(SignalAt(step, number))
    outcome = first.go()
    assert outcome.interrupted_by == number.name
    assert outcome.progress.step == step
    torch.manual_seed(999)
    second = Run(tmp_path, resume=True)
    assert second.go().interrupted_by is None
    assert first.steps + second.steps == quiet.steps
    assert_same_weights(second.weights, quiet.weights)


def test_batches_made_ahead_are_not_taken_for_consumed(tmp_path: Path) -> None:
    stream = NumberStream(NUM_SAMPLES)
    first = Run(tmp_path, stream=stream)
    first.loop._telemetry.add(SignalAt(1, signal.SIGTERM))
    first.go()
    assert len(stream.pulled) > 8
    checkpoint = load_newest(tmp_path)
    assert checkpoint is not None
    assert checkpoint.json("data_state.json") == {"epoch": 0, "consumed": 8}


def test_a_signal_while_waiting_for_data_stops_at_once_with_the_last_step_saved(tmp_path: Path) -> None:
    class Stuck(NumberStream):
        def __iter__(self) -> Iterator[Sample]:
            for sample in super().__iter__():
                if len(self.pulled) == 13:
                    # The trainer has a batch and a half of the second step, and waits for the rest.
                    threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident, signal.SIGTERM)).start()
                    self.cancelled.wait()
                yield sample

    run = Run(tmp_path, stream=Stuck(NUM_SAMPLES))
    outcome = run.go()
    assert (outcome.interrupted_by, outcome.progress.step) == ("SIGTERM", 1)
    checkpoint = load_newest(tmp_path)
    assert checkpoint is not None
    assert checkpoint.step == 1


def test_a_killed_process_and_its_resume_are_the_quiet_run_bit_for_bit(tmp_path: Path, quiet: Run) -> None:
    killed = subprocess.run(
        [sys.executable, str(WORKER), str(tmp_path), "--kill-at", "7"],
        env=ENVIRONMENT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = subprocess.run(
        [sys.executable, str(WORKER), str(tmp_path), "--resume"],
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
        text=True,
    )
    before, after = (
        [tuple(json.loads(line)) for line in text.splitlines() if line.startswith("[")]
        for text in (killed.stdout, resumed.stdout)
    )
    assert [step[0] for step in after] == [6, 7, 8, 9, 10, 11, 12], "from the checkpoint of step 5"
    assert before[:5] + after == quiet.steps
    rebuilt = load_newest(tmp_path)
    assert rebuilt is not None
    assert_same_weights(rebuilt.tensors("model.safetensors"), quiet.weights)


def test_checkpoints_come_in_their_rhythm_and_at_the_end(tmp_path: Path) -> None:
    run = Run(tmp_path, checkpoints=CheckpointOptions(every_steps=5), keep=2)
    run.go()
    assert [event.step for event in run.recorder.of(CheckpointSaved)] == [5, 10, 12]
    assert run.store.steps == [10, 12]


def test_a_checkpoint_is_a_model_that_can_be_used_elsewhere(quiet: Run) -> None:
    checkpoint = load_newest(quiet.folder)
    assert checkpoint is not None
    rebuilt = load_saved_model(checkpoint.folder, ModelOptions())
    assert weights_of(rebuilt.model).keys() == quiet.weights.keys()


def test_a_finished_run_that_is_resumed_only_evaluates_again(tmp_path: Path) -> None:
    Run(tmp_path).go()
    result = EvaluationResult(accuracy=0.5, chance=0.25, num_questions=2, chosen=(0, 1))
    again = Run(tmp_path, resume=True, evaluate=lambda: result)
    assert again.go().progress.step == 12
    assert again.steps == []
    assert again.recorder.of(CheckpointSaved) == []
    assert again.recorder.of(Evaluated) == [Evaluated(step=12, accuracy=0.5, chance=0.25, num_questions=2)]


def test_evaluations_come_in_their_rhythm_and_at_the_end_and_change_nothing(tmp_path: Path, quiet: Run) -> None:
    result = EvaluationResult(accuracy=0.5, chance=0.25, num_questions=2, chosen=(0, 1))
    run = Run(tmp_path, evaluate=lambda: result, evaluate_every_steps=5)
    run.go()
    assert [event.step for event in run.recorder.of(Evaluated)] == [5, 10, 12]
    assert run.steps == quiet.steps


def test_max_steps_ends_the_run_and_calls_the_stream_off(tmp_path: Path) -> None:
    stream = NumberStream(10_000)
    run = Run(tmp_path, stream=stream, options=TrainOptions(max_steps=2, batch_size=4, device="cpu"))
    assert run.go().progress.step == 2
    assert stream.cancelled.is_set()


def test_more_epochs_can_be_added_to_a_finished_run(tmp_path: Path) -> None:
    short = TrainOptions(epochs=1, batch_size=4, device="cpu")
    Run(tmp_path, options=short).go()
    longer = Run(tmp_path, resume=True, options=TrainOptions(epochs=2, batch_size=4, device="cpu"))
    outcome = longer.go()
    assert (outcome.progress.step, outcome.progress.total_steps) == (12, 12)
    assert [event.message for event in longer.recorder.of(Notice)] == [
        "resumed with other options: train.epochs was 1, is 2"
    ]


@pytest.mark.parametrize(("name", "value"), [("batch_size", 8), ("accumulate", 1)])
def test_a_resume_with_other_batches_is_refused(quiet: Run, tmp_path: Path, name: str, value: Any) -> None:
    shutil.copytree(quiet.folder, tmp_path / "copy")
    with pytest.raises(StateError, match=f"train.{name}"):
        Run(tmp_path / "copy", resume=True, options=dataclasses.replace(OPTIONS, **{name: value}))


def test_weights_alone_are_no_run_to_resume(tmp_path: Path) -> None:
    options = TrainOptions(max_steps=1, batch_size=4, device="cpu")
    Run(tmp_path, options=options, checkpoints=CheckpointOptions(weights_only=True)).go()
    with pytest.raises(StateError, match="weights only"):
        Run(tmp_path, resume=True, options=options)
    checkpoint = load_newest(tmp_path)
    assert checkpoint is not None
    assert "optimizer.safetensors" not in checkpoint.file_names


def test_what_the_caller_gives_along_comes_back(tmp_path: Path) -> None:
    Run(tmp_path, run_state=lambda: {"bytes": 7}).go()
    checkpoint = load_newest(tmp_path)
    assert checkpoint is not None
    assert saved_run_state(checkpoint) == {"bytes": 7}


def test_a_loss_that_is_no_number_ends_the_run_with_the_last_good_checkpoint(tmp_path: Path) -> None:
    run = Run(tmp_path, checkpoints=CheckpointOptions(every_steps=2))

    class Poison:
        def receive(self, wall_s: float, event: Any) -> None:
            if isinstance(event, StepFinished) and event.step == 3:
                with torch.no_grad():
                    next(run.loaded.model.parameters()).fill_(float("nan"))

    run.loop._telemetry.add(Poison())
    with pytest.raises(TrainingDivergedError, match=r"loss of step 4 is nan; the checkpoint of step 2 is kept"):
        run.go()
    assert run.store.steps == [2]


def test_an_error_of_the_stream_ends_the_run_and_leaves_no_thread(tmp_path: Path) -> None:
    class Broken(NumberStream):
        def __iter__(self) -> Iterator[Sample]:
            yield from list(super().__iter__())[:8]
            raise NetworkError("gone", "wait")

    with pytest.raises(NetworkError, match="gone"):
        Run(tmp_path, stream=Broken(NUM_SAMPLES)).go()
    assert not any(thread.name == "reelstream-batches" for thread in threading.enumerate())


def test_a_run_without_a_known_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_steps") as caught:
        Run(tmp_path, samples_per_epoch=None)
    assert "max_steps" in caught.value.hint


def test_a_step_weighs_tokens_not_batches(tmp_path: Path) -> None:
    """Two batches of 2 samples, accumulated, give the step that one batch of 4 gives, up to rounding."""
    once = Run(tmp_path / "once", options=TrainOptions(max_steps=1, batch_size=4, device="cpu"))
    twice = Run(tmp_path / "twice", options=TrainOptions(max_steps=1, batch_size=2, accumulate=2, device="cpu"))
    once.go()
    twice.go()
    assert once.steps[0][2] == pytest.approx(twice.steps[0][2], rel=1e-5)
    for name, tensor in once.weights.items():
        torch.testing.assert_close(tensor, twice.weights[name], rtol=1e-3, atol=1e-4)


def test_a_tiny_smolvlm2_takes_clips_of_mixed_lengths_and_learns() -> None:
    options = ModelOptions(family="smolvlm2", tiny=SMALLEST, image_size=32)
    loaded = load_model(options, texts=TEXTS, seed=0)
    recorder = Recorder()
    loop = TrainingLoop(
        loaded,
        NumberStream(NUM_SAMPLES),
        options=TrainOptions(epochs=4, batch_size=8, warmup_steps=1, device="cpu"),
        telemetry=Telemetry(recorder),
        samples_per_epoch=NUM_SAMPLES,
    )
    loop.run()
    losses = [event.loss for event in recorder.of(StepFinished)]
    assert losses[-1] < 0.9 * losses[0]


def test_bfloat16_trains_with_float32_weights(tmp_path: Path) -> None:
    options = TrainOptions(epochs=6, batch_size=8, warmup_steps=1, device="cpu", precision="bfloat16")
    run = Run(tmp_path, options=options)
    run.go()
    assert {tensor.dtype for tensor in run.weights.values()} == {torch.float32}
    assert run.steps[-1][2] < run.steps[0][2]


def test_old_and_new_checkpoints_stay_inside_the_budget_that_was_told_before(tmp_path: Path) -> None:
    from reelstream.train.saving import checkpoint_size_bytes

    run = Run(tmp_path / "probe")
    options = CheckpointOptions(every_steps=2, keep=2)
    budget = DiskBudget(3 * checkpoint_size_bytes(run.loaded, options))
    run.store = CheckpointStore(tmp_path / "run", keep=2, allowance=budget.account("checkpoints"))
    run.store.open()
    run.loop = TrainingLoop(
        run.loaded,
        run.stream,
        options=OPTIONS,
        checkpoints=options,
        store=run.store,
        samples_per_epoch=NUM_SAMPLES,
    )
    run.go()
    assert run.store.steps == [10, 12]
    assert 0 < budget.used_bytes <= budget.high_water_bytes <= budget.total_bytes
