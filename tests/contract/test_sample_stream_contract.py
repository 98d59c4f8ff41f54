"""The dataset, and the stream of numbers that stands for it in the loop's tests, keep the loop's contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reelstream.data import StreamingVideoDataset
from reelstream.sampledata import SampleOptions
from reelstream.testing import SampleHub, sample_hub
from reelstream.testing.contracts import SampleStreamContract
from reelstream.train.stream import SampleStream
from reelstream.types import FrameSampling
from train_kit import NumberStream


class TestNumberStream(SampleStreamContract):
    def make_stream(self) -> SampleStream:
        return NumberStream(17)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleHub]:
    options = SampleOptions(num_clips=6, clip_bytes=40_000, min_duration_s=1, max_duration_s=1, num_heldout=0)
    with sample_hub(options, folder=tmp_path_factory.mktemp("hub")) as hub:
        yield hub


class TestStreamingVideoDataset(SampleStreamContract):
    @pytest.fixture(autouse=True)
    def _on_a_hub(self, hub: SampleHub, tmp_path: Path) -> None:
        self.hub, self.folder = hub, tmp_path

    def make_stream(self) -> SampleStream:
        return StreamingVideoDataset(
            self.hub.repo_id,
            self.hub.subsets,
            endpoint=self.hub.endpoint,
            cache_dir=self.folder / "cache",
            disk_budget="4MB",
            # Epochs are asked for in any order, and learn of the archives as they go.
            spans="archive",
            frames=FrameSampling(max_frames=1, size=32),
        )
