"""`reelstream get`: single clips, verified, for little more than their own bytes."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from clips_hub_kit import (
    ALL_CLIPS,
    LOOSE,
    LOOSE_PATH,
    MORE,
    MORE_PATH,
    PACKED_PATH,
    PLAIN_PATH,
    REPO_ID,
    SHORTS,
    SHORTS_PATH,
    Client,
    write_repository,
)
from indexes_kit import index_of_tar
from reelstream.archive import ArchiveIdentity
from reelstream.hubserver import HubProcess
from reelstream.indexes import INDEX_FOLDER, IndexStore


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("get-hub")
    write_repository(folder)
    return folder


@pytest.fixture(scope="module")
def hub(root: Path) -> Iterator[HubProcess]:
    with HubProcess(root, faults=True) as process:
        yield process


@pytest.fixture(scope="module")
def indexed(hub: HubProcess, tmp_path_factory: pytest.TempPathFactory) -> Client:
    client = Client(hub, tmp_path_factory.mktemp("get-cache"))
    assert client.run("index") == 0
    return client


@pytest.fixture
def fresh(hub: HubProcess, tmp_path: Path) -> Iterator[Client]:
    yield Client(hub, tmp_path / "cache")
    hub.set_faults([])


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")


def _files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_clip_is_fetched_in_one_request_of_its_own_bytes(
    indexed: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        name = f"a/{number}.mp4"
        assert indexed.run("get", name, "-o", str(tmp_path / name)) == 0
        streams = capsys.readouterr()
        assert streams.out == f"{tmp_path / name / name}\n"
        assert streams.err.startswith("fetched 1 clip, verified, in 1 request of 1.")
        assert _files_below(tmp_path / name) == {name: SHORTS[name]}
        assert indexed.ranges_of(SHORTS_PATH) == 1
        assert indexed.bytes_of(SHORTS_PATH) <= 1.02 * len(SHORTS[name])
        assert set(indexed.hub.stats()["paths"]) == {f"{REPO_ID}/{SHORTS_PATH}"}


def test_clips_of_archives_of_all_kinds_are_fetched_together(
    indexed: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["a/1.mp4", "a/4.mp4", "b/2.mp4", "c/0.mp4", "d/2.mp4", "e/loose.mp4"]
    assert indexed.run("get", *names, "--output", str(tmp_path)) == 0
    assert _files_below(tmp_path) == {name: ALL_CLIPS[name] for name in names}
    streams = capsys.readouterr()
    assert set(streams.out.splitlines()) == {str(tmp_path / name) for name in names}
    assert "fetched 6 clips, verified, in 6 requests of" in streams.err
    wanted_bytes = sum(len(ALL_CLIPS[name]) for name in names)
    fetched_bytes = sum(asked["bytes_sent"] for asked in indexed.hub.stats()["paths"].values())
    assert fetched_bytes <= 1.02 * wanted_bytes + 30_000


def test_neighbours_are_one_request(indexed: Client, tmp_path: Path) -> None:
    assert indexed.run("get", "b/*", "-o", str(tmp_path)) == 0
    assert _files_below(tmp_path) == MORE
    assert indexed.ranges_of(MORE_PATH) == 1


def test_what_is_there_already_costs_no_byte(
    indexed: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    indexed.run("get", "a/1.mp4", "loose.mp4", "-o", str(tmp_path))
    capsys.readouterr()
    assert indexed.run("get", "a/1.mp4", "loose.mp4", "-o", str(tmp_path)) == 0
    streams = capsys.readouterr()
    assert streams.out.splitlines() == [str(tmp_path / "a/1.mp4"), str(tmp_path / "e/loose.mp4")]
    assert streams.err == "2 clips are there already\n"
    assert indexed.hub.stats()["paths"] == {}


def test_another_file_is_replaced_only_by_force(
    indexed: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.mp4").write_bytes(b"mine")
    assert indexed.run("get", "a/1.mp4", "-o", str(tmp_path)) == 1
    streams = capsys.readouterr()
    assert "exists and is not the clip" in streams.err
    assert "--force" in streams.err
    assert indexed.hub.stats()["paths"] == {}
    assert indexed.run("get", "a/1.mp4", "-o", str(tmp_path), "--force") == 0
    assert _files_below(tmp_path) == {"a/1.mp4": SHORTS["a/1.mp4"]}


def test_what_is_not_there_is_told_and_the_rest_is_fetched(
    indexed: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert indexed.run("get", "nothing.mp4", "e/loose.mp4", "*none*", "-o", str(tmp_path)) == 1
    streams = capsys.readouterr()
    assert _files_below(tmp_path) == {"e/loose.mp4": LOOSE}
    assert (
        "reelstream: no archive holds nothing.mp4\n  hint: see what is there: reelstream find me/videos" in streams.err
    )
    assert "no archive holds *none*" in streams.err


def test_an_end_that_several_clips_have_is_refused(
    indexed: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert indexed.run("get", "1.mp4", "-o", str(tmp_path / "out")) == 1
    streams = capsys.readouterr()
    assert "1.mp4 fits members of 4 names: d/1.mp4, c/1.mp4, a/1.mp4, b/1.mp4" in streams.err
    assert "hint: " in streams.err
    assert not (tmp_path / "out").exists()


def test_bytes_that_are_not_those_that_were_indexed_are_not_written(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray((root / REPO_ID / PLAIN_PATH).read_bytes())
    index = index_of_tar(bytes(content))
    content[700_000 - 200_000] ^= 1  # inside the last clip
    folder = tmp_path / "hub" / REPO_ID / "s"
    folder.mkdir(parents=True)
    (folder / "all.tar").write_bytes(content)
    index.identity = ArchiveIdentity(size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    with HubProcess(tmp_path / "hub") as hub:
        client = Client(hub, tmp_path / "cache")
        IndexStore(tmp_path / "cache" / INDEX_FOLDER).save(index)
        assert client.run("get", "c/0.mp4", "c/2.mp4", "-o", str(tmp_path / "out")) == 1
    streams = capsys.readouterr()
    assert _files_below(tmp_path / "out") == {"c/0.mp4": ALL_CLIPS["c/0.mp4"]}
    assert streams.out == f"{tmp_path / 'out' / 'c/0.mp4'}\n"
    assert "c/2.mp4" in streams.err
    assert "hint: " in streams.err


def test_a_video_that_nothing_vouches_for_is_not_said_to_be_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "hub" / REPO_ID / "s"
    folder.mkdir(parents=True)
    (folder / "s_cap.json").write_text("[]")
    (folder / "small.wmv").write_bytes(LOOSE)  # neither of a name nor of a size that the Hub keeps as a large file
    with HubProcess(tmp_path / "hub") as hub:
        assert Client(hub, tmp_path / "cache").run("get", "small.wmv", "-o", str(tmp_path / "out")) == 0
    assert _files_below(tmp_path / "out") == {"small.wmv": LOOSE}
    streams = capsys.readouterr()
    assert "small.wmv is verified by its size only" in streams.err
    assert "verified, in" not in streams.err


# ---------------------------------------------------------------------- where nothing is known


def test_an_archive_that_is_not_known_is_looked_through_after_saying_so(
    fresh: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fresh.run("get", "a/1.mp4", "--subset", "shorts", "-o", str(tmp_path / "out")) == 0
    streams = capsys.readouterr()
    assert _files_below(tmp_path / "out") == {"a/1.mp4": SHORTS["a/1.mp4"]}
    lines = streams.err.splitlines()
    assert lines[0].startswith("a/1.mp4: in no archive that is known; looking through 2 archives, 7.")
    assert lines[1:3] == [f"  {SHORTS_PATH}", f"  {MORE_PATH}"]
    assert lines[-1].startswith(f"a/1.mp4 was in {SHORTS_PATH}, after ")
    assert "not verified" in lines[-1]
    size_bytes = sum(map(len, SHORTS.values()))
    assert fresh.bytes_of(SHORTS_PATH) < 0.8 * size_bytes
    assert fresh.bytes_of(MORE_PATH) == 0


def test_what_was_passed_on_the_way_is_known_afterwards(fresh: Client, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    fresh.run("get", "a/2.mp4", "--subset", "shorts", "-o", out)
    assert fresh.run("get", "a/0.mp4", "--subset", "shorts", "-o", out) == 0
    assert fresh.ranges_of(SHORTS_PATH) == 1
    assert fresh.bytes_of(SHORTS_PATH) <= 1.02 * len(SHORTS["a/0.mp4"])
    # And the rest of the archive is read from there on only.
    assert fresh.run("get", "a/4.mp4", "--subset", "shorts", "-o", out) == 0
    assert fresh.bytes_of(SHORTS_PATH) < 0.75 * sum(map(len, SHORTS.values()))
    assert _files_below(tmp_path / "out") == {f"a/{number}.mp4": SHORTS[f"a/{number}.mp4"] for number in (0, 2, 4)}


def test_archives_that_do_not_hold_the_clip_are_known_afterwards(
    fresh: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fresh.run("get", "nothing.mp4", "--subset", "plain", "-o", str(tmp_path / "out")) == 1
    assert "no archive holds nothing.mp4" in capsys.readouterr().err
    assert fresh.run("index", "--subset", "plain", "--check") == 0
    assert not (tmp_path / "out").exists()


def test_a_zip_and_a_loose_file_need_no_looking(fresh: Client, tmp_path: Path) -> None:
    assert fresh.run("get", "d/1.mp4", "loose.mp4", "-o", str(tmp_path)) == 0
    assert fresh.bytes_of(SHORTS_PATH) == fresh.bytes_of(PLAIN_PATH) == 0
    assert fresh.bytes_of(PACKED_PATH) < len(ALL_CLIPS["d/1.mp4"]) + 70_000
    assert fresh.bytes_of(LOOSE_PATH) == len(LOOSE)


def test_a_pattern_is_not_looked_for_in_what_is_not_known(
    fresh: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fresh.run("get", "a/*", "--subset", "shorts", "-o", str(tmp_path)) == 1
    streams = capsys.readouterr()
    assert "no member that is known fits a/*, and 2 archives are not known" in streams.err
    assert "learn them with: reelstream index me/videos" in streams.err
    assert fresh.bytes_of(SHORTS_PATH) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_whole_clips_only(fresh: Client, tmp_path: Path, number: signal.Signals, code: int) -> None:
    fresh.hub.set_faults([{"match": SHORTS_PATH, "on": "cdn", "kind": "stall", "after_bytes": 1_800_000}])
    words = ("get", "a/0.mp4", "a/1.mp4", "--subset", "shorts", "-o", str(tmp_path / "out"))
    with fresh.begin(*words) as running:
        running.wait_until_stalled(SHORTS_PATH, 1_800_000)
        returned, _, err = running.end_by(number)
    assert returned == code
    assert f"stopped by {number.name}" in err
    assert "Traceback" not in err
    assert _files_below(tmp_path / "out") == {"a/0.mp4": SHORTS["a/0.mp4"]}
    fresh.hub.set_faults([])
    assert fresh.run(*words) == 0
    assert _files_below(tmp_path / "out") == {name: SHORTS[name] for name in ("a/0.mp4", "a/1.mp4")}
