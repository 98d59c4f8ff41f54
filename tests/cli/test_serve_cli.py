from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from reelstream.cli.main import main


def serve(*words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "reelstream", "serve", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_says_one_line_and_stops_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "org/name").mkdir(parents=True)
    with serve(str(tmp_path), "--bandwidth", "10MB/s", "--latency", "1ms", "--address-ttl", "1h") as process:
        assert process.stdout is not None
        word, endpoint = process.stdout.readline().split()
        assert word == "endpoint"
        with urllib.request.urlopen(f"{endpoint}/api/datasets/org/name", timeout=60) as response:
            assert json.load(response)["id"] == "org/name"
        process.send_signal(number)
        out, talk = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out == ""
    assert f"export HF_ENDPOINT={endpoint}" in talk
    assert "1 dataset repository" in talk
    assert "10.0 MB/s" in talk
    assert "Traceback" not in talk


def test_serve_stops_when_its_input_ends_if_told_to(tmp_path: Path) -> None:
    with serve(str(tmp_path), "--exit-with-parent") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline().startswith("endpoint ")
        _, talk = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "<org>/<name>/" in talk


def test_serve_stops_in_the_middle_of_its_digests(tmp_path: Path) -> None:
    (tmp_path / "org/name").mkdir(parents=True)
    with (tmp_path / "org/name/videos.tar").open("wb") as stream:
        stream.truncate(10**12)
    with serve(str(tmp_path)) as process:
        assert process.stderr is not None
        assert "reading 1 file of 1.00 TB for digests" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, talk = process.communicate(timeout=60)
    assert (process.returncode, out, talk) == (0, "", "")


def test_a_port_in_use_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(tmp_path), "--port", str(port)]) == 1
    out, talk = capsys.readouterr()
    assert out == ""
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in talk
    assert "hint: port 0" in talk


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["none"], "'none' is not a folder"),
        ([".", "--port", "70000"], "port must be from 0 to 65535, not 70000"),
        ([".", "--port", "7000", "--cdn-port", "7000"], "port and cdn-port are both 7000"),
        ([".", "--bandwidth", "0"], "bandwidth must be above 0"),
        ([".", "--token", ""], "the token is empty"),
        ([".", "--host", "no.such.host.invalid"], "cannot listen on 'no.such.host.invalid'"),
    ],
)
def test_a_wrong_setting_is_one_clear_error(
    words: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *words]) == 1
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "example"), [("--bandwidth", "10MB/s"), ("--latency", "50ms"), ("--address-ttl", "50ms")]
)
def test_a_wrong_unit_is_refused_with_an_example(option: str, example: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", ".", option, "fast"])
    assert caught.value.code == 2
    assert example in capsys.readouterr().err


def test_without_aiohttp_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "aiohttp" else real(name, *rest)
    )
    assert main(["serve", str(tmp_path)]) == 1
    assert "pip install 'reelstream[serve]'" in capsys.readouterr().err
