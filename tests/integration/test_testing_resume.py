"""`check_exact_resume` of real streams: each way to be resumed, each kind of spans, and flaws."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reelstream.data import StreamingVideoDataset
from reelstream.errors import StateError
from reelstream.sampledata import SampleOptions
from reelstream.testing import ALL_WAYS, ExactnessReport, SampleHub, Way, check_exact_resume, sample_hub
from reelstream.types import FrameSampling

pytestmark = pytest.mark.timeout(240)

_FRAMES = FrameSampling(fps=1.0, max_frames=2, size=32)
_WITHOUT_LOADERS = [way for way in ALL_WAYS if "loader" not in way]
_CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "archives": {"spans": "archive", "keep_clips": False},
    "cuts": {"spans": "cut", "cut_size": "250kB", "lanes": 3},
    "a limit": {"limit": 5},
    "parts": {"parts": 2},
    "as published": {"shuffle": False, "lanes": 1},
    "the clips' bytes": {"media": "bytes"},
    "one clip at a time": {"cache_size": 1, "prefetch": False, "decoded_memory": 0},
    "repeats at the end": {"tail": "repeat"},
    "the shortest lane": {"tail": "drop"},
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleHub]:
    # Archives that can be cut in two.
    options = SampleOptions(
        num_clips=12, clip_bytes=90_000, min_duration_s=1, max_duration_s=1, num_heldout=0, num_archives=3
    )
    with sample_hub(options, folder=tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture(scope="module")
def flawed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleHub]:
    options = SampleOptions(
        num_clips=16, clip_bytes=40_000, min_duration_s=1, max_duration_s=1, num_heldout=0, with_flaws=True
    )
    with sample_hub(options, folder=tmp_path_factory.mktemp("hub")) as hub:
        yield hub


def check(hub: SampleHub, options: dict[str, Any], **arguments: Any) -> ExactnessReport:
    def make_dataset(cache_dir: Path) -> StreamingVideoDataset:
        common = {"disk_budget": "6MB", "cache_size": 8, "frames": _FRAMES, "decode_threads": 1}
        given = {"endpoint": hub.endpoint, "cache_dir": cache_dir, **common, **options}
        return StreamingVideoDataset(hub.repo_id, hub.subsets, **given)

    return check_exact_resume(make_dataset, **arguments)


def test_a_stream_is_exact_over_the_end_of_an_epoch(good: SampleHub) -> None:
    # The first epoch is of cuts, and the second of blocks, as what was learned allows.
    report = check(good, {}, ways=_WITHOUT_LOADERS, stops=1, num_samples=110)
    assert set(report.resumed) == set(_WITHOUT_LOADERS)
    assert len(report.order) == 110
    assert {seen.position.epoch for seen in report.order} == {0, 1}


@pytest.mark.parametrize("kind", ["loader", "stateful loader"])
def test_a_stream_is_exact_under_loaders(kind: str, good: SampleHub) -> None:
    report = check(good, {}, ways=[kind, f"{kind}, 2 workers"], stops=[33], num_samples=100)
    assert not report.left_out
    # At the end of the batch of four; workers hand out no state of their own.
    assert [stop for stops in report.resumed.values() for stop in stops] in ([36, 33], [36, 36])


@pytest.mark.slow
@pytest.mark.parametrize("name", _CONFIGURATIONS)
def test_streams_of_all_kinds_are_exact(name: str, good: SampleHub) -> None:
    report = check(good, _CONFIGURATIONS[name], ways=_WITHOUT_LOADERS, stops=3)
    assert set(report.resumed) == set(_WITHOUT_LOADERS)


@pytest.mark.slow
def test_a_stream_with_flaws_is_exact(flawed: SampleHub) -> None:
    check(flawed, {"max_bad_share": 1.0, "on_bad_archive": "skip"}, stops=3)


@pytest.mark.slow
def test_a_stream_is_exact_wherever_it_is_stopped(good: SampleHub) -> None:
    report = check(good, {"spans": "archive"}, stops="all", epochs=1, ways=[Way.LAGGING])
    assert len(report.resumed[Way.LAGGING]) == len(report.order) + 1


def test_a_configuration_that_another_order_follows_is_found(good: SampleHub) -> None:
    made: list[Path] = []

    def make_dataset(cache_dir: Path) -> StreamingVideoDataset:
        made.append(cache_dir)
        # As where the seed is drawn anew by each start.
        options: dict[str, Any] = {"endpoint": good.endpoint, "cache_dir": cache_dir, "frames": _FRAMES}
        return StreamingVideoDataset(good.repo_id, good.subsets, disk_budget="6MB", seed=len(made), **options)

    # The state's own check comes before ours.
    with pytest.raises(StateError, match="seed = 2, this run has 3"):
        check_exact_resume(make_dataset, stops=1, epochs=1, ways=[Way.SAME_MACHINE])
