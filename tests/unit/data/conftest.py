"""Tiny published datasets, served by a hub on loopback: one in good order, one with everything that goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reelstream.hubserver import HubProcess
from reelstream.prefetch.options import StreamOptions
from reelstream.sampledata import SampleOptions, make_sample
from reelstream.types import FrameSampling
from unit.data.data_kit import Served
from unit.data.ranks_in_threads import MakeOptions, small_stream

_FRAMES = FrameSampling(fps=1.0, max_frames=2, size=32)


def _served(factory: pytest.TempPathFactory, *, with_flaws: bool) -> Iterator[Served]:
    options = SampleOptions(
        num_clips=24,
        seed=1,
        clip_bytes=60_000,
        min_duration_s=1,
        max_duration_s=2,
        num_heldout=4,
        with_flaws=with_flaws,
    )
    summary = make_sample(factory.mktemp("hub"), options)
    with HubProcess(summary.folder.parent.parent) as hub:
        yield Served(hub.endpoint, summary)


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from _served(tmp_path_factory, with_flaws=False)


@pytest.fixture(scope="session")
def flawed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from _served(tmp_path_factory, with_flaws=True)


@pytest.fixture
def options(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Options of a small stream; a clip has about 60 kB."""

    def make(served: Served, **changes: Any) -> dict[str, Any]:
        return {
            "endpoint": served.endpoint,
            "cache_dir": tmp_path / "cache",
            "disk_budget": "4MB",
            "cache_size": 8,
            "frames": _FRAMES,
            "decode_threads": 2,
            **changes,
        }

    return make


@pytest.fixture
def stream(tmp_path: Path) -> MakeOptions:
    """Options of a small stream in four lanes, the same for each rank; each `cache` is a folder of its own."""

    def make(served: Served, cache: str = "cache", **changes: Any) -> Callable[[int], StreamOptions]:
        return small_stream(served, tmp_path / cache, **changes)

    return make
