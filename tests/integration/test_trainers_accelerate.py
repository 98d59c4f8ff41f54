"""accelerate on a stream, in this process: what it leaves alone, what it saves, what it looks ahead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

pytest.importorskip("accelerate")
pytest.importorskip("torchdata")

from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration

from integration.run_kit import root_of, sample
from reelstream.data import StreamingVideoDataset
from reelstream.hubserver import HubProcess
from reelstream.trainers import StreamLoader
from reelstream.types import Position
from trainers_kit import stream


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(root_of(sample(tmp_path_factory))) as process:
        yield process


@pytest.fixture(scope="module")
def order(hub: HubProcess, tmp_path_factory: pytest.TempPathFactory) -> list[Position]:
    """The undisturbed order of an epoch."""
    with small(hub, tmp_path_factory.mktemp("order")) as dataset:
        return [sample["position"] for sample in dataset]


def small(hub: HubProcess, cache: Path) -> StreamingVideoDataset:
    return stream(hub.endpoint, cache, annotations=("cap", "mc"))


def positions(samples: Any) -> torch.Tensor:
    return torch.tensor([list(sample["position"]) for sample in samples])


def places(batches: Any) -> list[Position]:
    return [Position(*row) for batch in batches for row in batch.tolist()]


def test_a_stream_loader_is_left_as_it_is_and_saved_with_all_else(
    hub: HubProcess, tmp_path: Path, order: list[Position]
) -> None:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=3)
    model = torch.nn.Linear(1, 1)
    with small(hub, tmp_path / "cache") as dataset:
        loader = StreamLoader(dataset, batch_size=2, collate=positions, accumulate=3)
        assert accelerator.prepare(loader) is loader
        accelerator.register_for_checkpointing(loader)
        iterator = iter(loader)
        begun = [next(iterator) for _ in range(9)]
        accelerator.save_state(str(tmp_path / "saved"))
        next(iterator)

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=3)
    with small(hub, tmp_path / "cache") as dataset:
        loader = StreamLoader(dataset, batch_size=2, collate=positions, accumulate=3)
        accelerator.register_for_checkpointing(loader)
        accelerator.load_state(str(tmp_path / "saved"))
        rest, num_steps = [], 0
        for batch in loader:
            with accelerator.accumulate(model):
                num_steps += accelerator.sync_gradients
            rest.append(batch)
    assert places(begun + rest) == order
    # 46 samples: seven full steps of six, and one of four.
    assert num_steps == 8 - 3
    assert [len(batch) for batch in rest[-3:]] == [2, 1, 1]


def test_a_loader_that_looks_ahead_needs_the_last_batchs_position(
    hub: HubProcess, tmp_path: Path, order: list[Position]
) -> None:
    accelerator = Accelerator(cpu=True)
    with small(hub, tmp_path / "cache") as dataset:
        loader = accelerator.prepare(DataLoader(dataset, batch_size=4, collate_fn=positions))
        iterator = iter(loader)
        begun = [next(iterator) for _ in range(4)]
        state = dataset.state_dict(after=places(begun)[-1])
        ahead = dataset.state_dict()
    assert ahead["epoch_state"]["num_consumed"] == state["epoch_state"]["num_consumed"] + 4
    with small(hub, tmp_path / "cache") as dataset:
        dataset.load_state_dict(state)
        assert places(begun) + [sample["position"] for sample in dataset] == order


# torchdata calls what torch has deprecated.
@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
def test_accelerates_stateful_loader_is_exact_on_one_rank(
    hub: HubProcess, tmp_path: Path, order: list[Position]
) -> None:
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(use_stateful_dataloader=True))
    with small(hub, tmp_path / "cache") as dataset:
        loader = accelerator.prepare(DataLoader(dataset, batch_size=4, collate_fn=positions))
        iterator = iter(loader)
        begun = [next(iterator) for _ in range(4)]
        state = loader.state_dict()
    with small(hub, tmp_path / "cache") as dataset:
        loader = accelerator.prepare(DataLoader(dataset, batch_size=4, collate_fn=positions))
        loader.load_state_dict(state)
        assert places(begun) + places(loader) == order
