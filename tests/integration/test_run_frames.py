"""Which frames a sample holds, read from the bar codes in them after the whole way from the archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from integration.run_kit import REPO_ID, SUBSETS, root_of, sample
from reelstream.data import StreamingVideoDataset
from reelstream.hubserver import HubProcess
from reelstream.sampledata import read_frame_number
from reelstream.types import FrameSampling


@pytest.mark.parametrize("size", [384, 192])
def test_frame_indices_and_timestamps_are_those_of_the_frames(
    size: int, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    clips: set[str] = set()
    with (
        HubProcess(root_of(sample(tmp_path_factory))) as hub,
        StreamingVideoDataset(
            REPO_ID,
            SUBSETS,
            annotations=("cap",),
            cache_dir=tmp_path,
            disk_budget="20MB",
            frames=FrameSampling(fps=4.0, max_frames=5, size=size),
            endpoint=hub.endpoint,
        ) as dataset,
    ):
        for item in dataset:
            clips.add(item["clip"])
            numbers = [number for frame in item["frames"].numpy() if (number := read_frame_number(frame)) is not None]
            assert numbers == item["frame_indices"].tolist()
            assert numbers == sorted(set(numbers))
            np.testing.assert_allclose(item["timestamps"].numpy(), np.array(numbers) / item["fps"], atol=1e-6)
            assert item["timestamps"][-1] < item["duration"]
            # Made smaller where need be, never larger: the sample's clips have 320 or 384 pixels.
            assert max(item["frames"].shape[2:]) == (
                192 if size == 192 else 384 if 216 in item["frames"].shape else 320
            )
            assert len(numbers) == 5 or len(numbers) >= round(4.0 * item["duration"])
    assert len(clips) == 24
