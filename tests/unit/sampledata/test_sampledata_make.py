from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import NamedTuple

import av
import pytest

from reelstream.archive import FileSource
from reelstream.archive.containers import Container, open_stream
from reelstream.catalog import find_subsets, select_subset
from reelstream.errors import DiskError
from reelstream.sampledata import FlawKind, SampleProgress, SampleSummary, make_sample, read_frame_number
from reelstream.types import Repository, RepositoryFile
from unit.sampledata.sampledata_samples import rgb_frame, small_options


class _DiskUsage(NamedTuple):
    total: int
    used: int
    free: int


def _members(folder: Path, archive: str) -> dict[str, bytes]:
    with tarfile.open(folder / archive, "r|gz") as tar:
        files = {}
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None:
                files[member.name] = file.read()
        return files


def _frame_numbers(content: bytes) -> tuple[int, list[int | None]]:
    """Return how many frames the file announces, and the numbers of those that can be decoded."""
    numbers: list[int | None] = []
    with av.open(io.BytesIO(content), "r") as container:
        announced = container.streams.video[0].frames
        with contextlib.suppress(av.FFmpegError):
            numbers.extend(read_frame_number(rgb_frame(frame)) for frame in container.decode(video=0))
    return announced, numbers


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def flawed(tmp_path_factory: pytest.TempPathFactory) -> SampleSummary:
    return make_sample(tmp_path_factory.mktemp("flawed"), small_options(with_flaws=True))


def test_a_sample_holds_what_its_summary_says(tmp_path: Path) -> None:
    seen: list[SampleProgress] = []
    summary = make_sample(tmp_path, small_options(), seen.append)
    assert summary.folder == tmp_path / "sample" / "llava-video-mini"
    assert (summary.num_clips, summary.num_archives, summary.reused) == (20, 9, False)
    paths = set()
    media_bytes = 0
    for subset in summary.subsets:
        for archive in subset.archives:
            for name, content in _members(summary.folder, archive).items():
                paths.add(name)
                media_bytes += len(content)
    assert media_bytes == summary.media_bytes
    rows = [
        row
        for name in ("cap", "oe", "mc")
        for path in summary.folder.glob(f"*/*{name}*.json")
        for row in json.loads(path.read_text())
    ]
    assert len(rows) == summary.num_rows
    assert {row["video"] for row in rows} == paths
    assert [state.done_clips for state in seen] == list(range(1, 21))
    assert seen[-1].media_bytes == media_bytes
    assert [path.name for path in (tmp_path / "sample").iterdir()] == ["llava-video-mini"]


def _clips_by_subset(folder: Path) -> dict[tuple[str, str], str]:
    """Digests of all clips as a reader finds them: by the repository's layout, out of whatever holds them."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = tuple(
        RepositoryFile(path=path.relative_to(folder).as_posix(), size_bytes=path.stat().st_size, sha256=None)
        for path in paths
    )
    repository = Repository(repo_id="made/sample", commit="c" * 40, files=files)
    digests = {}
    for name in find_subsets(repository):
        for archive in select_subset(repository, name).archives:
            with open_stream(Container.of(archive), FileSource(folder / archive.path), learn=False) as stream:
                for member in stream.members():
                    digests[name, member.name] = hashlib.sha256(b"".join(member.chunks())).hexdigest()
    return digests


def test_each_packing_holds_the_same_clips(tmp_path: Path) -> None:
    found = {}
    for packing in ("tar.gz", "tar", "zip", "files"):
        options = small_options(num_clips=4, num_heldout=1, packing=packing)
        summary = make_sample(tmp_path / packing, options)
        assert summary.num_archives == 5  # four archives and the held-out one, or five files
        assert make_sample(tmp_path / packing, options).reused
        found[packing] = _clips_by_subset(summary.folder)
    assert len(found["tar.gz"]) == 5
    assert found["tar.gz"] == found["tar"] == found["zip"] == found["files"]


def test_the_mean_size_is_the_one_asked_for(tmp_path: Path) -> None:
    summary = make_sample(tmp_path, small_options(num_clips=30, num_heldout=0, clip_bytes=60_000))
    assert summary.media_bytes / 30 == pytest.approx(60_000, rel=0.1)


def test_the_same_seed_gives_the_same_bytes(flawed: SampleSummary, tmp_path: Path) -> None:
    again = make_sample(tmp_path, small_options(with_flaws=True))
    assert _digests(again.folder) == _digests(flawed.folder)


def test_flaws_are_in_the_archives_as_listed(flawed: SampleSummary) -> None:
    contents = {}
    for subset in flawed.subsets:
        for archive in subset.archives:
            for name, content in _members(flawed.folder, archive).items():
                contents[archive, name.removeprefix("./")] = content
    videos = {row["video"] for path in flawed.folder.glob("*/*.json") for row in json.loads(path.read_text())}
    assert {flaw.kind for flaw in flawed.flaws} == set(FlawKind)
    for flaw in flawed.flaws:
        if flaw.archive is None:
            assert flaw.path in videos
            assert flaw.path not in {path for _, path in contents}
        elif flaw.path:
            assert (flaw.archive, flaw.path) in contents
            assert (flaw.path in videos) == (flaw.kind not in {FlawKind.UNREFERENCED, FlawKind.TEXT_MEMBER})
    assert sum(subset.num_clips for subset in flawed.subsets) == len(videos) == 20


def test_damaged_clips_fail_as_listed_and_all_others_decode(flawed: SampleSummary) -> None:
    kinds = {flaw.path: flaw.kind for flaw in flawed.flaws}
    for subset in flawed.subsets:
        for archive in subset.archives:
            for name, content in _members(flawed.folder, archive).items():
                kind = kinds.get(name.removeprefix("./"))
                if kind is FlawKind.TEXT_MEMBER:
                    continue
                if kind is FlawKind.TRUNCATED:
                    with pytest.raises(av.FFmpegError):
                        av.open(io.BytesIO(content))
                    continue
                announced, numbers = _frame_numbers(content)
                if kind is FlawKind.CUT_SHORT:
                    assert 0 < len(numbers) < announced
                else:
                    assert numbers == list(range(announced))
                assert kind is not FlawKind.TWO_FRAMES or announced == 2


def test_one_archive_names_its_members_with_dot_and_slash(flawed: SampleSummary) -> None:
    (flaw,) = (flaw for flaw in flawed.flaws if flaw.kind is FlawKind.DOT_SLASH)
    for subset in flawed.subsets:
        for archive in subset.archives:
            raw_names = _members(flawed.folder, archive)
            assert all(name.startswith("./") == (archive == flaw.archive) for name in raw_names)


def test_the_readme_lists_each_flaw(flawed: SampleSummary) -> None:
    readme = (flawed.folder / "README.md").read_text(encoding="utf-8")
    for flaw in flawed.flaws:
        assert f"| {flaw.kind} | " in readme
        assert flaw.path in readme


def test_the_same_options_find_the_sample_again(flawed: SampleSummary) -> None:
    before = {path: path.stat().st_mtime_ns for path in flawed.folder.rglob("*")}
    again = make_sample(flawed.folder.parent.parent, small_options(with_flaws=True))
    assert again.reused
    assert again.flaws == flawed.flaws
    assert again.subsets == flawed.subsets
    assert (again.num_rows, again.media_bytes) == (flawed.num_rows, flawed.media_bytes)
    assert {path: path.stat().st_mtime_ns for path in flawed.folder.rglob("*")} == before


def test_other_options_are_refused_by_name(flawed: SampleSummary) -> None:
    with pytest.raises(DiskError, match="seed 3 there, 4 asked for"):
        make_sample(flawed.folder.parent.parent, small_options(with_flaws=True, seed=4))


def test_a_changed_sample_is_refused(flawed: SampleSummary, tmp_path: Path) -> None:
    copy = tmp_path / "sample" / "llava-video-mini"
    shutil.copytree(flawed.folder, copy)
    archive = copy / flawed.subsets[0].archives[0]
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(DiskError, match=f"was changed: {flawed.subsets[0].archives[0]} has"):
        make_sample(tmp_path, small_options(with_flaws=True))
    archive.unlink()
    with pytest.raises(DiskError, match="is missing"):
        make_sample(tmp_path, small_options(with_flaws=True))


@pytest.mark.parametrize("record", [None, "not JSON", "[]", '{"format": 1}'])
def test_a_folder_with_something_else_is_left_as_it_is(record: str | None, tmp_path: Path) -> None:
    target = tmp_path / "sample" / "llava-video-mini"
    target.mkdir(parents=True)
    (target / "thesis.txt").write_text("all of it")
    if record is not None:
        (target / "sample.json").write_text(record)
    before = _digests(tmp_path)
    with pytest.raises(DiskError, match="not a sample dataset") as raised:
        make_sample(tmp_path, small_options())
    assert raised.value.hint
    assert _digests(tmp_path) == before


def test_an_empty_folder_gives_way(tmp_path: Path) -> None:
    (tmp_path / "sample" / "llava-video-mini").mkdir(parents=True)
    assert not make_sample(tmp_path, small_options(num_clips=2, num_heldout=0)).reused


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(state: SampleProgress) -> None:
        if state.done_clips == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_sample(tmp_path / "new", small_options(), interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_refused_before_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: _DiskUsage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(DiskError, match=r"needs 2\.44 MB; .* has 1\.00 MB free"):
        make_sample(tmp_path / "new", small_options())
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "sample").write_text("a file where the organisation's folder would be")
    with pytest.raises(DiskError, match="could not be written to"):
        make_sample(tmp_path, small_options())
