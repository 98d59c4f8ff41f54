from __future__ import annotations

import json
from pathlib import Path

import pytest

from reelstream.cli import make_sample as command
from reelstream.cli.main import main

_SMALL = ("--clips", "4", "--held-out", "1", "--size", "160x120", "--clip-bytes", "10kB", "--duration", "1s", "1.5s")


def test_a_sample_is_written_and_found_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command_line = [
        "make-sample",
        str(tmp_path),
        *_SMALL,
        "--seed",
        "2",
        "--repo-id",
        "me/mini",
        "--questions",
        "motion",
    ]
    assert main(command_line) == 0
    streams = capsys.readouterr()
    assert streams.out == f"{tmp_path / 'me' / 'mini'}\n"
    assert streams.err.startswith("wrote me/mini: 5 clips, ")
    assert " in 5 archives, in " in streams.err
    record = json.loads((tmp_path / "me" / "mini" / "sample.json").read_text())
    assert record["options"]["questions"] == "motion"
    assert record["options"]["sizes"] == ["160x120"]

    assert main(command_line) == 0
    streams = capsys.readouterr()
    assert streams.out == f"{tmp_path / 'me' / 'mini'}\n"
    assert streams.err.startswith("found me/mini: 5 clips, ")
    assert "made before with the same options" in streams.err


def test_clips_can_be_files_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["make-sample", str(tmp_path), *_SMALL, "--packing", "files"]) == 0
    assert " in 5 files, in " in capsys.readouterr().err
    assert len(list(tmp_path.rglob("*.mp4"))) == 5
    assert not list(tmp_path.rglob("*.tar.gz"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--clips", "0"), "of 0 clips cannot be made"),
        (("--clips", "40", "--seed", "-1"), "The seed is -1"),
        (("--clips", "40", "--size", "321x240"), "321x240 cannot be used"),
        (("--clips", "40", "--size", "big"), "'big' is not a frame size"),
        (("--clips", "40", "--clip-bytes", "much"), "'much' is not a size"),
        (("--clips", "40", "--archives", "0"), "into 0 archives"),
        (("--clips", "40", "--duration", "9s", "1s"), "Clips of 9.0 to 1.0 s"),
        (("--clips", "40", "--with-flaws", "--packing", "files"), "cannot be planted among loose files"),
        (("--clips", "3", "--with-flaws"), "each flaw needs a clip of its own"),
    ],
)
def test_wrong_input_gives_one_error_and_writes_nothing(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["make-sample", str(tmp_path / "new"), *words]) == 1
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith("reelstream: ")
    assert message in streams.err
    assert "\n  hint: " in streams.err
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told_in_lines_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_LINE_EVERY_S", 0.0)
    assert main(["make-sample", str(tmp_path), *_SMALL]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines[:5]] == [f"encoded {done} of 5 clips" for done in range(1, 6)]


def test_progress_is_a_bar_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert main(["make-sample", str(tmp_path), *_SMALL]) == 0
    assert "encoding" in capsys.readouterr().err
