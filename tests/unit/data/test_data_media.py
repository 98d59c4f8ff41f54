"""What samples hold of their clips: the same order and books, whatever it is, and paths that live long enough."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from reelstream.data import Sample, StreamingLLaVAVideo, StreamingVideoDataset
from reelstream.decode import decode_clip
from reelstream.errors import BudgetTooSmallError, ConfigError
from reelstream.prefetch.options import StreamOptions
from reelstream.prefetch.paths import PathLeases
from reelstream.telemetry import Telemetry, events
from reelstream.testing import Recorder
from reelstream.types import AudioSampling
from unit.data.data_kit import Served, assert_nothing_runs, is_balanced, key, keys
from unit.data.ranks_in_threads import Outcome, joined, run_ranks

pytestmark = pytest.mark.timeout(120)

Options = Callable[..., dict[str, Any]]


def make(served: Served, values: dict[str, Any], **changes: Any) -> StreamingVideoDataset:
    return StreamingVideoDataset(served.repo_id, served.subsets, **{**values, **changes})


def published(served: Served) -> Counter[str]:
    """Return the digests of all files that the sample dataset's archives hold."""
    digests: Counter[str] = Counter()
    for archive in served.summary.folder.rglob("*.tar.gz"):
        with tarfile.open(archive) as tar:
            for member in filter(tarfile.TarInfo.isfile, tar):
                file = tar.extractfile(member)
                assert file is not None
                digests[hashlib.sha256(file.read()).hexdigest()] += 1
    return digests


def outcome(served: Served, values: dict[str, Any], **changes: Any) -> tuple[Any, ...]:
    """Return the order, the state in the middle, and the books of an epoch."""
    recorder = Recorder()
    order, state = [], {}
    with make(served, values, telemetry=Telemetry(recorder), **changes) as dataset:
        for number, sample in enumerate(dataset):
            order.append(key(sample))
            if number == 30:
                state = dataset.state_dict(after=sample["position"])["epoch_state"]
    for lane in state["lanes"]:
        # Where the lane's readers would begin again: that depends on how far they had got.
        del lane["mark"]
    (booked,) = recorder.of(events.EpochBooked)
    assert is_balanced(booked)
    quarantined = {(event.path, event.reason) for event in recorder.of(events.ClipQuarantined)}
    return order, state, booked, quarantined


@pytest.mark.parametrize("spans", ["archive", "cut"])
def test_order_state_digest_and_books_are_the_same_whatever_samples_hold(
    flawed: Served, options: Options, spans: str
) -> None:
    values = options(flawed, spans=spans, max_bad_share=1.0)
    frames = outcome(flawed, values)
    assert frames[3]
    for changes in ({"media": "bytes", "check": "decode"}, {"media": "path", "audio": AudioSampling()}):
        assert outcome(flawed, values, **changes) == frames


def test_unchecked_clips_come_however_bad_they_are(flawed: Served, options: Options) -> None:
    recorder = Recorder()
    values = options(flawed, media="bytes", max_bad_share=1.0)
    with make(flawed, values, telemetry=Telemetry(recorder)) as dataset:
        checked = {sample["clip"] for sample in dataset}
    bad = {event.path for event in recorder.of(events.ClipQuarantined) if "cut short" in event.reason}
    assert bad
    assert not bad & checked
    with make(flawed, values, check="none") as dataset:
        unchecked = list(dataset)
    assert {sample["clip"] for sample in unchecked} == checked | bad
    assert not any("fps" in sample or "duration" in sample for sample in unchecked)


def test_bytes_are_the_clip_as_published_and_not_copied_for_each_sample(good: Served, options: Options) -> None:
    with make(good, options(good, media="bytes")) as dataset:
        samples = list(dataset)
    digests = {hashlib.sha256(sample["video_bytes"]).hexdigest() for sample in samples}
    assert digests <= published(good).keys()
    by_clip: dict[str, set[int]] = {}
    for sample in samples:
        by_clip.setdefault(sample["clip"], set()).add(id(sample["video_bytes"]))
        assert "frames" not in sample
        assert sample["fps"] > 0
        assert sample["duration"] > 0
    assert all(len(ids) == 1 for ids in by_clip.values())


def test_bytes_count_in_decoded_memory(good: Served, options: Options) -> None:
    limit_bytes = 300_000
    with make(good, options(good, media="bytes", decoded_memory=limit_bytes)) as dataset:
        for sample in dataset:
            gauges = dataset.gauges()
            assert gauges is not None
            assert gauges.decoded_bytes <= limit_bytes + len(sample["video_bytes"])


def test_sound_comes_with_frames_bytes_and_paths_alike(good: Served, options: Options) -> None:
    with_sound: dict[str, dict[str, torch.Tensor]] = {}
    for media in ("frames", "bytes", "path"):
        with make(good, options(good, media=media, audio=AudioSampling(sampling_rate=8000))) as dataset:
            for sample in dataset:
                audio = sample["audio"]
                assert audio.dtype == torch.float32
                assert audio.ndim == 1
                assert sample["has_audio"] == (len(audio) > 0)
                assert len(audio) <= sample["duration"] * 8000 + 1
                with_sound.setdefault(sample["clip"], {})[media] = audio
    assert any(len(audios["frames"]) for audios in with_sound.values())
    assert any(not len(audios["frames"]) for audios in with_sound.values())
    for audios in with_sound.values():
        assert torch.equal(audios["frames"], audios["bytes"])
        assert torch.equal(audios["frames"], audios["path"])


def test_changing_a_samples_sound_in_place_reaches_no_other_sample(good: Served, options: Options) -> None:
    first: dict[str, torch.Tensor] = {}
    with make(good, options(good, audio=AudioSampling())) as dataset:
        for sample in dataset:
            was = first.setdefault(sample["clip"], sample["audio"].clone())
            assert torch.equal(sample["audio"], was)
            sample["audio"].fill_(7)


# ---------------------------------------------------------------------- paths


def test_a_path_names_the_published_bytes_and_stands_in_the_messages(good: Served, options: Options) -> None:
    values = options(good, media="path")
    digests = published(good)
    with make(good, values) as dataset:
        for sample in dataset:
            path = Path(sample["video_path"])
            assert path.is_absolute()
            assert hashlib.sha256(path.read_bytes()).hexdigest() in digests
            assert decode_clip(path, values["frames"]).fps == pytest.approx(sample["fps"])
            parts = [part for message in sample["messages"] for part in message["content"] if part["type"] == "video"]
            assert parts == [{"type": "video", "video": str(path)}]
            assert "frames" not in sample


def test_the_paths_of_all_samples_that_are_held_live(good: Served, options: Options, tmp_path: Path) -> None:
    with make(good, options(good, media="path", disk_budget="40MB", lease_samples=0)) as dataset:
        samples = list(dataset)
        assert all(Path(sample["video_path"]).exists() for sample in samples)
        assert dataset.session.paths is not None
    assert not any(Path(sample["video_path"]).exists() for sample in samples)
    assert_nothing_runs(tmp_path / "cache")


def held_paths(samples: Iterator[Sample], num_samples: int) -> list[Path]:
    """Return the paths of the next samples, which nobody holds any more."""
    return [Path(sample["video_path"]) for sample in islice(samples, num_samples)]


def test_paths_of_samples_that_were_let_go_of_live_for_lease_samples_later_ones(good: Served, options: Options) -> None:
    with make(good, options(good, media="path", disk_budget="40MB", lease_samples=30, keep_clips=False)) as dataset:
        samples = iter(dataset)
        paths: list[Path] = []
        while len(new := held_paths(samples, 1)) == 1:
            paths += new
            assert all(path.exists() for path in paths[-30:])
        gone = [path for path in paths if not path.exists()]
        assert gone
        samples.close()  # type: ignore[attr-defined]


def test_a_path_may_end_sooner_where_the_sample_is_told_consumed(good: Served, options: Options) -> None:
    with make(good, options(good, media="path", disk_budget="40MB", keep_clips=False)) as dataset:
        samples = list(dataset)
        assert all(Path(sample["video_path"]).exists() for sample in samples)
        half = len(samples) // 2
        dataset.state_dict(after=samples[half]["position"])
        living = [Path(sample["video_path"]).exists() for sample in samples]
        assert all(living[half + 1 :])
        used_up = {sample["clip"] for sample in samples[: half + 1]} - {
            sample["clip"] for sample in samples[half + 1 :]
        }
        assert not any(alive for alive, sample in zip(living, samples, strict=True) if sample["clip"] in used_up)


def test_a_lease_that_is_released_frees_a_used_up_clip_at_once(good: Served, options: Options) -> None:
    with make(good, options(good, media="path", disk_budget="40MB", keep_clips=False)) as dataset:
        samples = list(dataset)
        for sample in samples:
            with sample["lease"]:
                assert Path(sample["video_path"]).exists()
            sample["lease"].release()
        assert not any(Path(sample["video_path"]).exists() for sample in samples)
        assert len(dataset.session.paths) == 0


def tight(served: Served, values: dict[str, Any]) -> dict[str, Any]:
    """Return options whose budget leaves about 1 MiB for clips: fewer than the dataset has."""
    values = {**values, "lanes": 2, "cache_size": 4, "keep_clips": False, "media": "path"}
    with make(served, {**values, "disk_budget": 10_000_000}) as dataset:
        return {**values, "disk_budget": 10_000_000 - dataset.session.clip_budget_bytes + (1 << 20)}


def test_samples_that_nobody_lets_go_of_end_with_an_error_and_no_deadlock(good: Served, options: Options) -> None:
    values = {**tight(good, options(good)), "give_up_after": 0.5}
    with make(good, values) as dataset, pytest.raises(BudgetTooSmallError, match="leases are still held") as caught:
        list(dataset)
    assert "release" in caught.value.hint


def test_room_that_the_next_clip_needs_is_taken_from_paths_that_nobody_holds(good: Served, options: Options) -> None:
    values = {**tight(good, options(good)), "lease_samples": 10_000}
    with make(good, values, media="frames") as dataset:
        order = keys(dataset)
    with make(good, values) as dataset, pytest.warns(RuntimeWarning, match="paths of samples end before") as caught:
        seen = [sample["position"] for sample in dataset]
    assert len(caught) == 1
    assert seen == [position for position, *_ in order]


def test_held_samples_that_are_let_go_of_while_the_next_one_waits_let_it_come(
    good: Served, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a trainer does that works on a batch while another thread reads the next one."""
    held: list[Sample] = []
    make_way = PathLeases.make_way

    def make_way_or_let_go(self: PathLeases, *args: Any, **options: Any) -> float | None:
        again_s = make_way(self, *args, **options)
        if again_s is not None:
            held.clear()
            return 0.0
        return again_s

    values = {**tight(good, options(good)), "lease_samples": 0}
    monkeypatch.setattr(PathLeases, "make_way", make_way_or_let_go)
    num_served = most_held = 0
    with make(good, values) as dataset:
        for sample in dataset:
            held.append(sample)
            num_served += 1
            most_held = max(most_held, len(held))
    assert most_held < num_served


def test_ranks_lend_the_paths_of_their_own_lanes(good: Served, options: Options) -> None:
    def work(dataset: StreamingVideoDataset, outcome: Outcome) -> None:
        for sample in dataset:
            outcome.keys.append(key(sample))
            assert Path(sample["video_path"]).exists()

    values = options(good, disk_budget=12_000_000, media="path", lease_samples=4, tail="repeat")

    def stream_options(rank: int) -> StreamOptions:
        return StreamOptions(repo_id=good.repo_id, subsets=tuple(good.subsets), **values)

    by_world_size = [run_ranks(world_size, work, stream_options) for world_size in (1, 2)]
    for outcomes in by_world_size:
        assert [outcome.error for outcome in outcomes] == [None] * len(outcomes)
    assert joined(by_world_size[0]) == joined(by_world_size[1])


def test_the_last_batch_keeps_its_paths_beyond_the_epochs_end(good: Served, options: Options) -> None:
    with make(good, options(good, media="path", disk_budget="40MB")) as dataset:
        paths = held_paths(iter(dataset), 10**6)
        assert all(path.exists() for path in paths[-64:])


def test_default_collate_holds_the_leases(good: Served, options: Options) -> None:
    with make(good, options(good, media="path")) as dataset:
        batch = next(iter(DataLoader(dataset, batch_size=1)))
        assert Path(batch["video_path"][0]).exists()
        assert batch["lease"][0].path == Path(batch["video_path"][0])


def paths_of(samples: list[Sample]) -> list[str]:
    return [sample["video_path"] for sample in samples]


def test_paths_are_good_in_the_process_that_a_worker_streams_for(good: Served, options: Options) -> None:
    values = options(good, media="path", disk_budget="40MB")
    with make(good, values) as dataset:
        num_read = 0
        for paths in DataLoader(dataset, batch_size=4, collate_fn=paths_of, num_workers=1):
            num_read += sum(len(Path(path).read_bytes()) > 0 for path in paths)
    with make(good, values) as dataset:
        assert num_read == sum(1 for _ in dataset)


def test_a_sample_in_another_process_has_a_lease_that_holds_nothing(good: Served, options: Options) -> None:
    with make(good, options(good, media="path")) as dataset:
        sample = next(iter(dataset))
        copy: Sample = pickle.loads(pickle.dumps(sample))
        copy["lease"].release()
        assert copy["video_path"] == sample["video_path"]
        assert Path(sample["video_path"]).exists()


def test_a_map_style_dataset_gives_a_path_again_while_its_window_lasts(good: Served, options: Options) -> None:
    values = options(good, media="path")
    with StreamingLLaVAVideo(good.repo_id, good.subsets, **values) as dataset:
        paths = [Path(dataset[place]["video_path"]) for place in range(12)]
        again = Path(dataset[0]["video_path"])
        assert again == paths[0]
        assert again.exists()


def test_sound_of_clips_that_nobody_opens_is_refused(good: Served, options: Options) -> None:
    with pytest.raises(ConfigError, match="nobody opens"):
        make(good, options(good, media="bytes", check="none", audio=AudioSampling()))


def test_bytes_can_be_read_by_whoever_takes_a_file_object(good: Served, options: Options) -> None:
    with make(good, options(good, media="bytes")) as dataset:
        sample = next(iter(dataset))
    assert io.BytesIO(sample["video_bytes"]).read(8)[4:] == b"ftyp"
