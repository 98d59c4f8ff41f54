"""`reelstream find`: which archive holds a clip, from what is known, without reading archives."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clips_hub_kit import (
    ALL_CLIPS,
    LOOSE,
    LOOSE_PATH,
    MORE_PATH,
    PACKED_PATH,
    PLAIN_PATH,
    REPO_ID,
    SHORTS_PATH,
    Client,
    write_repository,
)
from reelstream.hubserver import HubProcess


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    folder = tmp_path_factory.mktemp("find-hub")
    write_repository(folder)
    with HubProcess(folder) as process:
        yield process


@pytest.fixture(scope="module")
def indexed(hub: HubProcess, tmp_path_factory: pytest.TempPathFactory) -> Client:
    client = Client(hub, tmp_path_factory.mktemp("find-cache"))
    assert client.run("index") == 0
    return client


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")


def test_a_clip_is_found_in_its_archive_with_its_size(indexed: Client, capsys: pytest.CaptureFixture[str]) -> None:
    assert indexed.run("find", "a/3.mp4") == 0
    streams = capsys.readouterr()
    assert streams.out == f"{SHORTS_PATH}\ta/3.mp4\t1200000\n"
    assert streams.err == ""
    assert indexed.hub.stats()["paths"] == {}


def test_a_pattern_finds_all_in_archives_of_every_kind(indexed: Client, capsys: pytest.CaptureFixture[str]) -> None:
    assert indexed.run("find", "*.mp4") == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert {name: int(size) for _, name, size in rows} == {name: len(content) for name, content in ALL_CLIPS.items()}
    assert {path for path, _, _ in rows} == {SHORTS_PATH, MORE_PATH, PLAIN_PATH, PACKED_PATH, LOOSE_PATH}


def test_a_subset_narrows_it(indexed: Client, capsys: pytest.CaptureFixture[str]) -> None:
    assert indexed.run("find", "1.mp4", "--subset", "plain", "packed") == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == [PLAIN_PATH, PACKED_PATH]


def test_what_is_not_there_leaves_with_1(indexed: Client, capsys: pytest.CaptureFixture[str]) -> None:
    assert indexed.run("find", "nothing.mp4") == 1
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err == "reelstream: no member that is known matches 'nothing.mp4'\n"


def test_archives_that_are_not_known_are_told_with_the_command_that_learns_them(
    hub: HubProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Client(hub, tmp_path / "cache")
    assert client.run("find", "*") == 0
    streams = capsys.readouterr()
    # A zip names its members, and so does a loose file.
    rows = [line.split("\t") for line in streams.out.splitlines()]
    assert [row[:2] for row in rows] == [
        *([PACKED_PATH, f"d/{number}.mp4"] for number in range(3)),
        [LOOSE_PATH, "e/loose.mp4"],
    ]
    assert rows[-1][2] == str(len(LOOSE))
    assert "3 archives (" in streams.err
    assert ") of 5 are not known, or not wholly" in streams.err
    assert f"hint: learn them with: reelstream index me/videos --endpoint {hub.endpoint}" in streams.err
    assert client.bytes_of(PACKED_PATH) > 0
    assert client.bytes_of(SHORTS_PATH) == client.bytes_of(PLAIN_PATH) == 0
    assert client.run("find", "*") == 0
    assert client.bytes_of(PACKED_PATH) == 0


def test_a_reader_who_has_seen_enough_causes_no_complaint(indexed: Client) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        found = subprocess.run(
            [sys.executable, "-m", "reelstream", "find", REPO_ID, "*", *indexed.options],
            stdout=write_end,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(write_end)
    assert (found.returncode, found.stderr) == (141, b"")


def test_a_name_of_several_lines_stays_on_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from indexes_kit import zipped

    folder = tmp_path / "hub" / "me" / "videos" / "s"
    folder.mkdir(parents=True)
    (folder / "odd.zip").write_bytes(zipped({"two\nlines\t.mp4": b"odd", "ü.mp4": b"fine"}))
    with HubProcess(tmp_path / "hub") as hub:
        assert Client(hub, tmp_path / "cache").run("find", "*") == 0
    assert capsys.readouterr().out == "s/odd.zip\ttwo\\nlines\\t.mp4\t3\ns/odd.zip\tü.mp4\t4\n"
