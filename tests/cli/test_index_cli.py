"""`reelstream index`: what it learns, what it prints, and how little a stop costs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from clips_hub_kit import (
    LOOSE_PATH,
    MORE_PATH,
    PACKED_PATH,
    PLAIN_PATH,
    REPO_ID,
    SHORTS_PATH,
    Client,
    write_repository,
)
from reelstream.cli import progress
from reelstream.cli.main import main
from reelstream.hubserver import HubProcess


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips-hub")
    write_repository(folder)
    return folder


@pytest.fixture(scope="module")
def hub(root: Path) -> Iterator[HubProcess]:
    with HubProcess(root, faults=True) as process:
        yield process


@pytest.fixture
def client(hub: HubProcess, tmp_path: Path) -> Iterator[Client]:
    yield Client(hub, tmp_path / "cache")
    hub.set_faults([])


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")


def _size_bytes(root: Path, path: str) -> int:
    return (root / REPO_ID / path).stat().st_size


def test_all_archives_are_learned_and_verified_and_nothing_else_is_kept(
    client: Client, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert client.run("index") == 0
    streams = capsys.readouterr()
    assert streams.out.splitlines() == [
        f"{PACKED_PATH}\tlearned\t3\teach member by itself",
        f"{PLAIN_PATH}\tlearned\t3\tSHA-256",
        f"{SHORTS_PATH}\tlearned\t5\tSHA-256",
        f"{MORE_PATH}\tlearned\t4\tSHA-256",
        f"{LOOSE_PATH}\tknown\t1\teach member by itself",
    ]
    assert streams.err.startswith("learned 4 archives from ")
    assert streams.err.rstrip().endswith(", 1 known before")
    for path in (SHORTS_PATH, MORE_PATH, PLAIN_PATH):
        assert client.bytes_of(path) == _size_bytes(root, path)
        assert client.ranges_of(path) == 1
    assert client.bytes_of(PACKED_PATH) < 70_000
    assert client.bytes_of(LOOSE_PATH) == 0
    assert {Path(name).suffix for name in client.kept()} == {".reelindex"}
    assert len(client.kept()) == 4


def test_what_is_known_costs_no_byte(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    assert client.run("index", "--subset", "shorts") == 0
    capsys.readouterr()
    for words in (("--subset", "shorts"), ("--subset", "shorts", "--check")):
        assert client.run("index", *words) == 0
        assert client.hub.stats()["paths"] == {}
        assert [line.split("\t")[1] for line in capsys.readouterr().out.splitlines()] == ["known"] * 3


def test_check_says_what_is_not_known_and_reads_nothing(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    client.run("index", "--subset", "plain")
    capsys.readouterr()
    assert client.run("index", "--subset", "shorts", "plain", "--check") == 1
    streams = capsys.readouterr()
    assert [line.split("\t")[:2] for line in streams.out.splitlines()] == [
        [SHORTS_PATH, "not known"],
        [MORE_PATH, "not known"],
        [LOOSE_PATH, "known"],
        [PLAIN_PATH, "known"],
    ]
    assert "2 archives of 4 are not known; learn them with: reelstream index me/videos --endpoint" in streams.err
    assert "--subset shorts plain" in streams.err
    assert client.hub.stats()["paths"] == {}


def test_a_damaged_index_is_learned_anew(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    client.run("index", "--subset", "plain")
    (path,) = client.cache_dir.rglob("*.reelindex")
    path.write_bytes(path.read_bytes()[:-4])
    assert client.run("index", "--subset", "plain") == 0
    assert "it is deleted and learned anew" in capsys.readouterr().err
    assert client.bytes_of(PLAIN_PATH) > 0
    assert client.run("index", "--subset", "plain", "--check") == 0


def test_one_that_fails_is_told_and_the_others_go_on(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "hub" / "me" / "videos" / "s"
    damaged.mkdir(parents=True)
    content = bytearray((root / REPO_ID / MORE_PATH).read_bytes())
    (damaged / "whole.tar.gz").write_bytes(content)
    (damaged / "torn.tar.gz").write_bytes(content[: len(content) // 2])
    (damaged / "none.zip").write_bytes(b"none" * 1000)
    with HubProcess(tmp_path / "hub") as hub:
        assert Client(hub, tmp_path / "cache").run("index") == 1
    streams = capsys.readouterr()
    assert sorted(line.split("\t")[1] for line in streams.out.splitlines()) == ["failed", "failed", "learned"]
    assert "learned 1 archive from" in streams.err
    assert ", 2 failed" in streams.err
    assert "s/torn.tar.gz" in streams.err
    assert "s/none.zip" in streams.err
    assert "hint: " in streams.err
    assert "Traceback" not in streams.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_what_was_learned_and_the_next_run_goes_on_there(
    client: Client, root: Path, number: signal.Signals, code: int
) -> None:
    size_bytes = _size_bytes(root, SHORTS_PATH)
    client.hub.set_faults([{"match": SHORTS_PATH, "on": "cdn", "kind": "stall", "after_bytes": size_bytes * 2 // 3}])
    with client.begin("index", "--subset", "shorts") as running:
        running.wait_until_stalled(SHORTS_PATH, size_bytes * 2 // 3)
        returned, out, err = running.end_by(number)
    assert (returned, out) == (code, "")
    assert f"stopped by {number.name}; what was learned is kept" in err
    assert "hint: go on with: reelstream index me/videos" in err
    assert "Traceback" not in err
    client.hub.set_faults([])
    assert client.run("index", "--subset", "shorts") == 0
    # Of two thirds, the clip that it was in is read again, and the one before it.
    assert client.bytes_of(SHORTS_PATH) <= size_bytes // 3 + 2 * 1_200_000
    assert {Path(name).suffix for name in client.kept()} == {".reelindex"}


def test_a_kill_costs_what_came_since_the_rows_were_kept_last(client: Client, root: Path) -> None:
    size_bytes = _size_bytes(root, SHORTS_PATH)
    client.hub.set_faults([{"match": SHORTS_PATH, "on": "cdn", "kind": "stall", "after_bytes": size_bytes * 4 // 5}])
    often = "import reelstream.indexes.passes as p; p._SAVE_EVERY_BYTES = 500_000; p._MOST_SAVING_SHARE = 1.0"
    with client.begin("index", "--subset", "shorts", before=often) as running:
        running.wait_until_stalled(SHORTS_PATH, size_bytes * 4 // 5)
        running.end_by(signal.SIGKILL)
    assert {Path(name).suffix for name in client.kept()} == {".reelindex", ".reelcut"}
    client.hub.set_faults([])
    assert client.run("index", "--subset", "shorts") == 0
    assert client.bytes_of(SHORTS_PATH) < size_bytes
    assert client.run("index", "--subset", "shorts", "--check") == 0


def test_progress_is_told_in_lines_where_there_is_no_terminal(
    client: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.001)
    assert client.run("index", "--subset", "shorts") == 0
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("learned ") and " of 3 archives, " in line and " read, " in line for line in lines)


def test_progress_is_a_bar_on_a_terminal(
    client: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert client.run("index", "--subset", "plain") == 0
    assert "of 1 archive" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--subset", "nothing"], "no subset 'nothing'"),
        (["--connections", "0"], "--connections must be at least 1"),
        (["--revision", "nowhere"], "nowhere"),
    ],
)
def test_wrong_input_gives_one_error_with_a_hint(
    client: Client, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert client.run("index", *words) == 1
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith("reelstream: ")
    assert message in streams.err
    assert "Traceback" not in streams.err
    assert client.kept() == set()


def test_a_name_that_no_repository_can_have_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "not a name"]) == 1
    assert "cannot be the name of a repository" in capsys.readouterr().err


def test_no_command_about_archives_loads_torch(client: Client, tmp_path: Path) -> None:
    after = "import atexit, sys\natexit.register(lambda: print('torch' in sys.modules))"
    for command, words in (
        ("index", ["--subset", "plain"]),
        ("find", ["c/1.mp4"]),
        ("get", ["c/1.mp4", "-o", str(tmp_path / "out")]),
    ):
        with client.begin(command, *words, before=after) as running:
            code, out, err = running.end_by()
        assert code == 0, err
        assert out.splitlines()[-1] == "False"
