"""`check_ranks` of real streams: one order for one, two and four ranks, no byte twice, and resumed on other numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reelstream.data import StreamingVideoDataset
from reelstream.errors import ConfigError
from reelstream.prefetch.options import StreamOptions
from reelstream.ranks import Ranks
from reelstream.sampledata import SampleOptions
from reelstream.telemetry import Telemetry
from reelstream.testing import SMALL_SAMPLE, ExactnessError, RanksReport, SampleHub, check_ranks, sample_hub
from reelstream.types import FrameSampling

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleHub]:
    with sample_hub(SMALL_SAMPLE, folder=tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture(scope="module")
def cuttable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleHub]:
    """Archives that are cut in two."""
    options = dataclasses.replace(SMALL_SAMPLE, num_clips=28, num_archives=4)
    with sample_hub(options, folder=tmp_path_factory.mktemp("hub")) as hub:
        yield hub


def check(sample: SampleHub, options: dict[str, Any], **arguments: Any) -> RanksReport:
    def make_rank(cache_dir: Path, ranks: Ranks) -> StreamingVideoDataset:
        values: dict[str, Any] = {
            "repo_id": sample.repo_id,
            "subsets": tuple(sample.subsets),
            "endpoint": sample.endpoint,
            "cache_dir": cache_dir,
            "disk_budget": 8_000_000,
            "cache_size": 16,
            "frames": FrameSampling(fps=1.0, max_frames=1, size=32),
            "decode_threads": 1,
            "spans": "archive",
            "tail": "repeat",
            **options,
        }
        return StreamingVideoDataset.from_options(StreamOptions(**values), telemetry=Telemetry(), ranks=ranks)

    return check_ranks(make_rank, **arguments)


def published_bytes(hub: SampleHub) -> int:
    folders = [hub.summary.folder / subset for subset in hub.subsets]
    return sum(path.stat().st_size for folder in folders for path in folder.glob("*.tar.gz"))


def test_one_two_and_four_ranks_serve_one_order_and_fetch_each_archive_once(small: SampleHub) -> None:
    report = check(small, {}, hub=small.hub, num_resumes=2)
    assert report.sent_bytes == dict.fromkeys([1, 2, 4], published_bytes(small))
    assert report.twice_bytes == dict.fromkeys([1, 2, 4], 0)
    assert [pair[1:] for pair in report.resumed] == [(1, 2), (1, 4)]


@pytest.mark.slow
@pytest.mark.parametrize("tail", ["repeat", "drop"])
def test_ranks_resume_what_any_others_left_over_the_end_of_an_epoch(tail: str, small: SampleHub) -> None:
    report = check(small, {"tail": tail}, world_sizes=[1, 2, 4, 8], epochs=2, num_resumes=12)
    assert len({pair[1:] for pair in report.resumed}) == 12


@pytest.mark.slow
def test_ranks_serve_one_order_where_clips_are_bad(tmp_path: Path) -> None:
    options = SampleOptions(
        num_clips=24, seed=1, clip_bytes=60_000, min_duration_s=1, max_duration_s=2, num_heldout=0, with_flaws=True
    )
    with sample_hub(options, folder=tmp_path) as hub:
        # Windows of several clips: the last one of each lane holds a good one, which the lane can repeat.
        check(hub, {"max_bad_share": 1.0, "on_bad_archive": "skip", "cache_size": 40}, num_resumes=6)


@pytest.mark.slow
def test_ranks_fetch_twice_what_lies_at_the_borders_of_cuts_only(cuttable: SampleHub) -> None:
    # Four borders within archives, about two clips at each: these are of 60 kB on average, and of uneven sizes.
    options = {"spans": "cut", "cut_size": 250_000, "lanes": 4}
    report = check(cuttable, options, hub=cuttable.hub, num_resumes=6, most_twice_bytes=4 * 200_000)
    # However many ranks there are: they pay what one rank pays.
    assert len(set(report.twice_bytes.values())) == 1


def test_bytes_that_are_fetched_twice_are_found(cuttable: SampleHub) -> None:
    with pytest.raises(ConfigError, match="later epoch"):
        check(cuttable, {}, hub=cuttable.hub, epochs=2)
    with pytest.raises(ExactnessError, match=r"1 rank fetched .* more than once"):
        check(cuttable, {"spans": "cut", "cut_size": 250_000, "lanes": 4}, hub=cuttable.hub, world_sizes=[1])


def test_ranks_of_different_configurations_are_found(small: SampleHub) -> None:
    # One rank passes over lanes that have ended; several ranks cannot.
    with pytest.raises(ExactnessError, match="2 ranks together"):
        check(small, {"tail": "auto"}, world_sizes=[1, 2], num_resumes=0)
