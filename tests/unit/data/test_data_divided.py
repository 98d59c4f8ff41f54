"""accelerate divides the samples of an iterable dataset among the ranks; ours have divided them already."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from torch.utils.data import DataLoader

pytest.importorskip("accelerate")

from accelerate.data_loader import DataLoaderDispatcher, IterableDatasetShard

from reelstream.data import StreamingVideoDataset
from reelstream.errors import ConfigError
from unit.data.data_kit import Served

Options = Callable[..., dict[str, Any]]


def make(served: Served, values: dict[str, Any]) -> StreamingVideoDataset:
    return StreamingVideoDataset("sample/llava-video-mini", "0_30_s_academic_v0_1", **values)


def positions(samples: Any) -> Any:
    import torch

    return torch.tensor([list(sample["position"]) for sample in samples])


def test_a_shard_of_several_is_refused_before_anything_is_opened(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        shard = IterableDatasetShard(dataset, batch_size=2, num_processes=2, process_index=1)
        with pytest.raises(ConfigError, match=r"IterableDatasetShard.* among 2 ranks(.|\n)*StreamLoader"):
            next(iter(DataLoader(shard, batch_size=2, collate_fn=positions)))
        assert not dataset.is_open


def test_a_dispatcher_of_several_is_refused_before_anything_is_opened(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        dispatcher = DataLoaderDispatcher(dataset, batch_size=2, collate_fn=positions)
        dispatcher.state = SimpleNamespace(num_processes=2, process_index=0)
        with pytest.raises(ConfigError, match=r"DataLoaderDispatcher.* among 2 ranks"):
            dispatcher._fetch_batches(iter(dispatcher.base_dataloader))
        assert not dataset.is_open


def test_on_one_rank_accelerate_may_stand_between(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        shard = IterableDatasetShard(dataset, batch_size=1, num_processes=1, process_index=0)
        assert len(list(shard)) == len(dataset)
