"""What the tests of trainers share: a tiny dataset behind a hub, a tiny model, and what was trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from reelstream.data import Sample, StreamingVideoDataset
from reelstream.sampledata.record import SampleSummary
from reelstream.train.models import LoadedModel
from reelstream.trainers import collate
from reelstream.types import FrameSampling
from train_kit import smallest_model

REPO_ID = "sample/llava-video-mini"
SUBSETS = ["0_30_s_academic_v0_1", "0_30_s_youtube_v0_1"]


def stream(endpoint: str, cache: Path, **changes: Any) -> StreamingVideoDataset:
    """Return a stream of the sample dataset, with the same spans whatever is learned."""
    options: dict[str, Any] = {
        "endpoint": endpoint,
        "cache_dir": cache,
        "disk_budget": "8MB",
        "cache_size": 8,
        "frames": FrameSampling(fps=1.0, max_frames=2, size=32),
        "decode_threads": 1,
        "spans": "archive",
        "seed": 5,
        **changes,
    }
    return StreamingVideoDataset(REPO_ID, options.pop("subsets", SUBSETS), **options)


class IdCollate:
    """Collates with the family, and keeps beside the tensors which samples a batch holds."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._collate = collate(loaded.family)

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        batch: dict[str, Any] = dict[str, Any](self._collate(samples))
        batch["ids"] = [name_of(sample) for sample in samples]
        return batch


def name_of(sample: Sample) -> str:
    """What tells a sample from all others of the dataset."""
    said = hashlib.sha256(json.dumps(sample["conversations"]).encode()).hexdigest()[:8]
    return f"{sample['subset']}/{sample['clip']}#{said}"


__all__ = ["REPO_ID", "SUBSETS", "IdCollate", "SampleSummary", "Tensor", "name_of", "smallest_model", "stream"]
