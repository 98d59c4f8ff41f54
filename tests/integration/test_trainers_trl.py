"""TRL's SFTTrainer on a streamed dataset, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined] # lazily exported

from integration.run_kit import root_of, sample
from reelstream.data import StreamingVideoDataset
from reelstream.errors import ConfigError
from reelstream.hubserver import HubProcess
from reelstream.trainers import attach, for_trl
from trainers_kit import IdCollate, smallest_model, stream


class KilledError(Exception):
    """Stands for a SIGKILL where the process has to go on."""


class KillAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if state.global_step == self.step:
            raise KilledError


class RecordingSFTTrainer(SFTTrainer):
    """Writes down what it computes the loss of."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.seen: list[list[str]] = []

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **settings: Any) -> Any:
        self.seen.append(inputs.pop("ids"))
        return super().compute_loss(model, inputs, *args, **settings)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(root_of(sample(tmp_path_factory))) as process:
        yield process


def small(hub: HubProcess, cache: Path) -> StreamingVideoDataset:
    """Return a stream of 46 samples."""
    return stream(hub.endpoint, cache, annotations=("cap", "mc"))


def trainer_of(dataset: StreamingVideoDataset, folder: Path, *, kill_at: int | None = None) -> Any:
    loaded = smallest_model()
    args = SFTConfig(
        output_dir=str(folder / "out"),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        num_train_epochs=1,
        save_strategy="steps",
        save_steps=2,
        save_total_limit=1,
        report_to=[],
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        logging_steps=1,
        dataloader_pin_memory=False,
        activation_checkpointing=False,
        seed=3,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
    )
    return RecordingSFTTrainer(
        model=loaded.model,
        args=args,
        train_dataset=for_trl(dataset),
        data_collator=IdCollate(loaded),
        processing_class=loaded.family.tokenizer,
        callbacks=[] if kill_at is None else [KillAt(kill_at)],
    )


def test_a_killed_run_goes_on_as_the_quiet_one(hub: HubProcess, tmp_path: Path) -> None:
    with small(hub, tmp_path / "quiet-cache") as dataset:
        quiet = trainer_of(dataset, tmp_path / "quiet")
        assert not dataset.is_open
        attach(quiet, dataset)
        quiet.train()
    with small(hub, tmp_path / "cache") as dataset:
        killed = trainer_of(dataset, tmp_path, kill_at=5)
        attach(killed, dataset)
        with pytest.raises(KilledError):
            killed.train()
    with small(hub, tmp_path / "cache") as dataset:
        resumed = trainer_of(dataset, tmp_path)
        attach(resumed, dataset)
        resumed.train(resume_from_checkpoint=True)

    names = [name for batch in quiet.seen for name in batch]
    assert len(names) == len(set(names)) == 46
    assert killed.seen[: 2 * 4] + resumed.seen == quiet.seen
    assert [line["loss"] for line in resumed.state.log_history if "loss" in line] == [
        line["loss"] for line in quiet.state.log_history if "loss" in line
    ]


def test_training_without_attaching_says_what_to_call(hub: HubProcess, tmp_path: Path) -> None:
    with small(hub, tmp_path / "cache") as dataset:
        trainer = trainer_of(dataset, tmp_path)
        trainer.data_collator = list
        with pytest.raises(ConfigError, match="call attach"):
            trainer.train()
