"""A dataset with `streaming_mode=False`, by itself, on several ranks, called off, and interrupted."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest

from reelstream.cancel import Cancelled
from reelstream.data import StreamingVideoDataset
from reelstream.errors import BudgetTooSmallError, RankLostError
from reelstream.prefetch.downloads import files
from reelstream.prefetch.options import StreamOptions
from reelstream.telemetry import Telemetry, events
from reelstream.testing import Recorder
from reelstream.types import FrameSampling
from unit.data.data_kit import Served, assert_nothing_runs, contents, key, keys
from unit.data.ranks_in_threads import Outcome, joined, run_ranks, without_error


def options_of(served: Served, cache_dir: Path) -> StreamOptions:
    return StreamOptions(
        repo_id=served.repo_id,
        subsets=tuple(served.subsets),
        endpoint=served.endpoint,
        cache_dir=cache_dir,
        disk_budget=10_000_000,
        cache_size=8,
        frames=FrameSampling(fps=1.0, max_frames=2, size=32),
        decode_threads=1,
        lanes=4,
        tail="repeat",
        streaming_mode=False,
    )


def archive_bytes_received(recorder: Recorder) -> int:
    return sum(event.received_bytes for event in recorder.of(events.RangeFinished) if event.path.endswith(".tar.gz"))


def total_bytes(served: Served) -> int:
    return sum(path.stat().st_size for name in served.subsets for path in (served.summary.folder / name).glob("*.gz"))


def serve_two_epochs(dataset: StreamingVideoDataset, outcome: Outcome) -> None:
    for _ in range(2):
        outcome.keys.extend(keys(dataset))


def test_two_ranks_of_a_node_share_what_one_of_them_fetches(good: Served, tmp_path: Path) -> None:
    options = options_of(good, tmp_path / "downloaded")
    outcomes = without_error(run_ranks(2, serve_two_epochs, lambda rank: options))
    received = [archive_bytes_received(outcome.recorder) for outcome in outcomes]
    assert received == [total_bytes(good), 0]
    streamed = dataclasses.replace(options, streaming_mode=True, cache_dir=tmp_path / "streamed")
    assert joined(outcomes) == joined(run_ranks(1, serve_two_epochs, lambda rank: streamed))


def test_ranks_on_two_nodes_each_have_their_own_archives(good: Served, tmp_path: Path) -> None:
    outcomes = run_ranks(2, serve_two_epochs, lambda rank: options_of(good, tmp_path / str(rank)), nodes=2)
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert [archive_bytes_received(outcome.recorder) for outcome in outcomes] == [total_bytes(good)] * 2


def test_where_one_rank_cannot_hold_them_the_others_hear_of_it(good: Served, tmp_path: Path) -> None:
    tight = dataclasses.replace(options_of(good, tmp_path / "cache"), disk_budget=2_200_000)
    outcomes = run_ranks(2, serve_two_epochs, lambda rank: tight)
    assert isinstance(outcomes[0].error, BudgetTooSmallError)
    assert isinstance(outcomes[1].error, BudgetTooSmallError | RankLostError)


def test_what_is_needed_of_the_network_is_told_with_the_first_epoch(good: Served, tmp_path: Path) -> None:
    recorder = Recorder()
    options = options_of(good, tmp_path)
    with StreamingVideoDataset.from_options(options, telemetry=Telemetry(recorder)) as dataset:
        for _ in range(2):
            assert list(dataset)
    assert [event.needed_bytes for event in recorder.of(events.EpochStarted)] == [total_bytes(good), 0]
    assert_nothing_runs(tmp_path)
    assert len(list((tmp_path / "archives").iterdir())) == 8


def test_loose_settings_of_the_stream_work_on_downloaded_archives(flawed: Served, tmp_path: Path) -> None:
    options = dataclasses.replace(options_of(flawed, tmp_path / "downloaded"), max_bad_share=1.0, on_bad_archive="skip")
    streamed = dataclasses.replace(options, streaming_mode=True, cache_dir=tmp_path / "streamed")
    with (
        StreamingVideoDataset.from_options(options, telemetry=Telemetry()) as from_disk,
        StreamingVideoDataset.from_options(streamed, telemetry=Telemetry()) as from_hub,
    ):
        assert contents(from_disk) == contents(from_hub)
        assert from_disk.state_dict()["epoch_state"]["books"] == from_hub.state_dict()["epoch_state"]["books"]


def test_a_download_is_called_off_from_another_thread(
    good: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StreamingVideoDataset.from_options(options_of(good, tmp_path), telemetry=Telemetry()) as dataset:
        first, original = threading.Event(), files.FileDownload.run

        def run(self: files.FileDownload, cancellation: object) -> None:
            first.set()
            cancellation.event.wait()  # type: ignore[attr-defined]
            original(self, cancellation)  # type: ignore[arg-type]

        monkeypatch.setattr(files.FileDownload, "run", run)
        seen: list[BaseException] = []

        def iterate() -> None:
            try:
                next(iter(dataset))
            except Cancelled as error:
                seen.append(error)

        thread = threading.Thread(target=iterate)
        thread.start()
        assert first.wait(30)
        dataset.cancel()
        thread.join(30)
        assert [type(error) for error in seen] == [Cancelled]
        monkeypatch.undo()
        dataset.reset()
        assert key(next(iter(dataset)))
    assert_nothing_runs(tmp_path)
