"""Transformers' Trainer on a streamed dataset, in this process: epochs, resumes, checkpoints, the disk budget."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from transformers import Trainer, TrainerCallback, TrainingArguments

from integration.run_kit import root_of, sample
from reelstream.data import StreamingVideoDataset
from reelstream.errors import BudgetTooSmallError, ConfigError, StateError
from reelstream.hubserver import HubProcess
from reelstream.trainers import attach
from reelstream.trainers.checkpoints import folder_size_bytes
from reelstream.trainers.room import checkpoint_size_bytes
from reelstream.types import Position
from train_kit import make_sample
from trainers_kit import IdCollate, smallest_model, stream


class KilledError(Exception):
    """Stands for a SIGKILL where the process has to go on."""


class KillAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if state.global_step == self.step:
            raise KilledError


class RecordingTrainer(Trainer):
    """A stock trainer that writes down what it computes the loss of."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.seen: list[list[str]] = []

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **settings: Any) -> Any:
        self.seen.append(inputs.pop("ids"))
        return super().compute_loss(model, inputs, *args, **settings)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(root_of(sample(tmp_path_factory))) as process:
        yield process


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    settings: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "save_strategy": "no",
        "save_total_limit": 1,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_steps": 1,
        "learning_rate": 1e-3,
        "dataloader_pin_memory": False,
        "seed": 3,
        **changes,
    }
    return TrainingArguments(**settings)


def small(hub: HubProcess, cache: Path, **changes: Any) -> StreamingVideoDataset:
    """Return a stream of 46 samples."""
    return stream(hub.endpoint, cache, **{"annotations": ("cap", "mc"), **changes})


def trainer_of(
    dataset: StreamingVideoDataset, args: TrainingArguments, *, kill_at: int | None = None, kind: Any = RecordingTrainer
) -> Any:
    loaded = smallest_model()
    trainer = kind(
        model=loaded.model,
        args=args,
        train_dataset=dataset,
        data_collator=IdCollate(loaded),
        callbacks=[] if kill_at is None else [KillAt(kill_at)],
    )
    attach(trainer, dataset)
    return trainer


def losses(trainer: Any) -> list[tuple[int, float, float]]:
    return [(line["step"], line["epoch"], line["loss"]) for line in trainer.state.log_history if "loss" in line]


STEPS_OF_AN_EPOCH = {1: 12, 3: 4}
"""Of the 46 samples in batches of 4, by the batches of a step."""


@pytest.mark.parametrize(
    ("accumulate", "save_steps", "kill_at"),
    [
        pytest.param(1, 5, 17, id="in the second epoch", marks=pytest.mark.slow),
        pytest.param(1, 12, 14, id="saved at an epoch's last step"),
        pytest.param(3, 2, 3, id="accumulating"),
    ],
)
def test_a_killed_run_goes_on_as_the_quiet_one(
    hub: HubProcess, tmp_path: Path, accumulate: int, save_steps: int, kill_at: int
) -> None:
    settings = {"gradient_accumulation_steps": accumulate, "num_train_epochs": 2}
    saving = {"save_strategy": "steps", "save_steps": save_steps}
    with small(hub, tmp_path / "quiet") as dataset:
        quiet = trainer_of(dataset, arguments(tmp_path / "quiet", **settings))
        quiet.train()

    with small(hub, tmp_path / "cache") as dataset:
        killed = trainer_of(dataset, arguments(tmp_path, **settings, **saving), kill_at=kill_at)
        with pytest.raises(KilledError):
            killed.train()
    with small(hub, tmp_path / "cache") as dataset:
        resumed = trainer_of(dataset, arguments(tmp_path, **settings, **saving))
        resumed.train(resume_from_checkpoint=True)

    saved_at = kill_at // save_steps * save_steps
    assert killed.seen[: saved_at * accumulate] + resumed.seen == quiet.seen
    assert losses(resumed) == losses(quiet)
    assert resumed.state.epoch == quiet.state.epoch == 2.0
    assert quiet.state.global_step == quiet.state.max_steps == 2 * STEPS_OF_AN_EPOCH[accumulate]
    for ours, theirs in zip(resumed.model.parameters(), quiet.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_each_sample_of_an_epoch_is_trained_on_once(hub: HubProcess, tmp_path: Path, accumulate: int) -> None:
    with small(hub, tmp_path) as dataset:
        trainer = trainer_of(dataset, arguments(tmp_path, gradient_accumulation_steps=accumulate))
        trainer.train()
        assert dataset.epoch == 1
    names = [name for batch in trainer.seen for name in batch]
    assert len(names) == len(set(names)) == 46
    assert {len(batch) for batch in trainer.seen} == ({4, 2} if accumulate == 1 else {4, 3})


def test_an_epoch_longer_than_its_estimate_is_trained_on_to_its_end(
    hub: HubProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StreamingVideoDataset, "__len__", lambda _: 30)
    with small(hub, tmp_path) as dataset:
        trainer = trainer_of(dataset, arguments(tmp_path, num_train_epochs=2, save_strategy="steps", save_steps=50))
        trainer.train()
    assert sum(map(len, trainer.seen)) == 2 * 46
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["checkpoint-24"]


def test_an_epoch_shorter_than_its_estimate_ends_the_run_as_its_last_step_would(
    hub: HubProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StreamingVideoDataset, "__len__", lambda _: 90)
    with small(hub, tmp_path) as dataset:
        trainer = trainer_of(dataset, arguments(tmp_path, save_strategy="steps", save_steps=50))
        trainer.train()
    assert sum(map(len, trainer.seen)) == 46
    assert trainer.state.epoch == 1.0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["checkpoint-12"]


def test_a_number_of_steps_runs_on_over_epochs(hub: HubProcess, tmp_path: Path) -> None:
    with small(hub, tmp_path) as dataset:
        trainer = trainer_of(dataset, arguments(tmp_path, max_steps=15))
        trainer.train()
    assert sum(map(len, trainer.seen[:12])) == 46
    assert len(trainer.seen) == 15


@pytest.mark.parametrize("length", [{"num_train_epochs": 1}, {"max_steps": 4}], ids=["epochs", "steps"])
def test_a_run_resumed_after_its_end_trains_no_further(hub: HubProcess, tmp_path: Path, length: dict[str, int]) -> None:
    args = arguments(tmp_path, save_strategy="steps", save_steps=50, **length)
    with small(hub, tmp_path / "cache") as dataset:
        trainer_of(dataset, args).train()
    with small(hub, tmp_path / "cache") as dataset:
        resumed = trainer_of(dataset, args)
        resumed.train(resume_from_checkpoint=True)
    assert resumed.seen == []


def test_what_does_not_fill_a_step_is_left_out_where_that_is_asked_for(hub: HubProcess, tmp_path: Path) -> None:
    with small(hub, tmp_path) as dataset:
        trainer = trainer_of(dataset, arguments(tmp_path, dataloader_drop_last=True))
        trainer.train()
    assert [len(batch) for batch in trainer.seen] == 11 * [4]


class KilledInASave(RecordingTrainer):
    """Killed in the middle of its second checkpoint."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.state.global_step == 8:
            raise KilledError
        super()._save_optimizer_and_scheduler(output_dir)


def test_a_checkpoint_cut_short_is_told_and_passed_over(hub: HubProcess, tmp_path: Path) -> None:
    args = arguments(tmp_path, save_strategy="steps", save_steps=4)
    with small(hub, tmp_path / "cache") as dataset:
        killed = trainer_of(dataset, args, kind=KilledInASave)
        with pytest.raises(KilledError):
            killed.train()
    assert (tmp_path / "out" / "checkpoint-8").is_dir()

    with small(hub, tmp_path / "cache") as dataset:
        resumed = trainer_of(dataset, args)
        with pytest.warns(UserWarning, match=r"resuming from checkpoint-4: checkpoint-8 has no reelstream.manifest"):
            resumed.train(resume_from_checkpoint=True)
    names = [name for batch in killed.seen[:4] + resumed.seen for name in batch]
    assert len(names) == len(set(names)) == 46
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["checkpoint-12"]


def test_where_no_checkpoint_is_whole_all_are_named(hub: HubProcess, tmp_path: Path) -> None:
    (tmp_path / "out" / "checkpoint-5").mkdir(parents=True)
    with small(hub, tmp_path / "cache") as dataset:
        trainer = trainer_of(dataset, arguments(tmp_path))
        with pytest.raises(StateError, match=r"checkpoint-5 has no reelstream\.manifest\.json: its save was cut short"):
            trainer.train(resume_from_checkpoint=True)
        with pytest.raises(StateError, match="checkpoint-5"):
            trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-5"))


def test_checkpoints_are_counted_into_the_disk_budget(hub: HubProcess, tmp_path: Path) -> None:
    with small(hub, tmp_path / "cache") as dataset:
        trainer = trainer_of(dataset, arguments(tmp_path, save_strategy="steps", save_steps=4))
        trainer.train()
        account = dataset.session.budget.account("checkpoints")
        (saved,) = (tmp_path / "out").iterdir()
        assert account.used_bytes == folder_size_bytes(saved)
        expected = checkpoint_size_bytes(trainer, max_steps=12)
        assert folder_size_bytes(saved) <= expected
        assert account.set_aside_bytes == 2 * expected


# peft asks for what transformers has deprecated.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_checkpoints_of_adapters_take_the_room_of_adapters(hub: HubProcess, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    with small(hub, tmp_path / "cache") as dataset:
        loaded = smallest_model()
        adapters = peft.get_peft_model(loaded.model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
        trainer = RecordingTrainer(
            model=adapters,
            args=arguments(tmp_path, save_strategy="steps", save_steps=4, max_steps=6),
            train_dataset=dataset,
            data_collator=IdCollate(loaded),
        )
        attach(trainer, dataset)
        trainer.train()
        (saved,) = (tmp_path / "out").iterdir()
        assert folder_size_bytes(saved) <= checkpoint_size_bytes(trainer, max_steps=6)
        whole = trainer_of(dataset, arguments(tmp_path))
        assert checkpoint_size_bytes(trainer, max_steps=6) < checkpoint_size_bytes(whole, max_steps=6)


def test_evaluation_is_left_as_it_is(hub: HubProcess, tmp_path: Path) -> None:
    with small(hub, tmp_path / "cache") as dataset:
        loaded = smallest_model()
        trainer = RecordingTrainer(
            model=loaded.model,
            args=arguments(tmp_path, eval_strategy="epoch", remove_unused_columns=False, prediction_loss_only=True),
            train_dataset=dataset,
            eval_dataset=[make_sample(number, Position(0, 0, number)) for number in range(5)],
            data_collator=IdCollate(loaded),
        )
        attach(trainer, dataset)
        trainer.train()
    assert [line["epoch"] for line in trainer.state.log_history if "eval_loss" in line] == [1.0]
    assert sum(map(len, trainer.seen)) == 46 + 5


def test_a_budget_without_room_for_the_checkpoints_is_refused_with_the_numbers(hub: HubProcess, tmp_path: Path) -> None:
    with small(hub, tmp_path / "cache", disk_budget="8MB") as dataset:
        args = arguments(tmp_path, save_strategy="steps", save_total_limit=50)
        with pytest.raises(BudgetTooSmallError, match=r"cannot hold 51 checkpoints .*\nset disk_budget to \d+MB"):
            trainer_of(dataset, args).train()


def test_wrong_options_are_told_together(hub: HubProcess, tmp_path: Path) -> None:
    with small(hub, tmp_path / "cache") as dataset:
        args = arguments(
            tmp_path,
            save_strategy="steps",
            save_total_limit=None,
            dataloader_num_workers=2,
            auto_find_batch_size=True,
            train_sampling_strategy="group_by_length",
            accelerator_config={"split_batches": True},
        )
        with pytest.raises(ConfigError, match="5 options of RecordingTrainer") as caught:
            trainer_of(dataset, args)
        for name in ("save_total_limit", "num_workers=0", "split_batches", "auto_find_batch", "group_by_length"):
            assert name in caught.value.hint


def test_a_collator_that_cannot_join_clips_is_refused(hub: HubProcess, tmp_path: Path) -> None:
    with small(hub, tmp_path / "cache") as dataset:
        trainer = Trainer(model=smallest_model().model, args=arguments(tmp_path), train_dataset=dataset)
        with pytest.raises(ConfigError, match=r"data_collator=collate\(family\)"):
            attach(trainer, dataset)


def test_another_dataset_than_the_trainers_is_refused(hub: HubProcess, tmp_path: Path) -> None:
    with small(hub, tmp_path / "cache") as dataset, small(hub, tmp_path / "other") as other:
        trainer = trainer_of(dataset, arguments(tmp_path))
        with pytest.raises(ConfigError, match="attached to this trainer already"):
            attach(trainer, dataset)
        loaded = smallest_model()
        trainer = Trainer(
            model=loaded.model, args=arguments(tmp_path), train_dataset=dataset, data_collator=IdCollate(loaded)
        )
        with pytest.raises(ConfigError, match="another train_dataset"):
            attach(trainer, other)
