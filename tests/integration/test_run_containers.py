"""Datasets that are published otherwise than as tar.gz: plain tar, zip, and videos that are files of their own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

import pytest

from reelstream.data import StreamingVideoDataset
from reelstream.hubserver import HubProcess
from reelstream.sampledata import SampleOptions, make_sample
from reelstream.sampledata.options import Packing
from reelstream.types import FrameSampling


@pytest.mark.parametrize("packing", ["tar", "zip", "files"])
@pytest.mark.parametrize("spans", ["auto", "archive"])
def test_each_epoch_delivers_every_sample_once(
    packing: Packing, spans: Literal["auto", "archive"], tmp_path: Path
) -> None:
    options = SampleOptions(
        num_clips=10,
        seed=1,
        sizes=((160, 120),),
        clip_bytes=30_000,
        min_duration_s=1,
        max_duration_s=1.5,
        num_heldout=0,
        packing=packing,
    )
    summary = make_sample(tmp_path / "hub", options)
    with (
        HubProcess(tmp_path / "hub") as hub,
        StreamingVideoDataset(
            summary.repo_id,
            [subset.name for subset in summary.subsets],
            cache_dir=tmp_path / "cache",
            disk_budget="8MB",
            cache_size=4,
            endpoint=hub.endpoint,
            spans=spans,
            frames=FrameSampling(max_frames=2, size=32),
        ) as dataset,
    ):
        epochs = []
        for epoch in range(2):
            dataset.set_epoch(epoch)
            epochs.append(Counter((each["subset"], each["clip"], str(each["conversations"])) for each in dataset))
    assert epochs[0] == epochs[1]
    assert epochs[0].total() == summary.num_rows
    assert len({clip for _, clip, _ in epochs[0]}) == summary.num_clips
