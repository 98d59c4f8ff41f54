from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from reelstream.errors import DiskError
from reelstream.telemetry import JsonLinesSink
from reelstream.telemetry.events import Notice


def _messages(path: Path) -> list[str]:
    return [json.loads(line).get("message", "") for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_a_killed_process_left_of_a_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sink = JsonLinesSink(path, limit_bytes=10_000)
    sink.receive(1.0, Notice(message="whole"))
    sink.close()
    with path.open("a") as file:
        file.write('{"time": 2, "event": "no')
    again = JsonLinesSink(path, limit_bytes=10_000)
    again.receive(3.0, Notice(message="after"))
    again.close()
    assert _messages(path) == ["whole", "after"]


def test_half_a_surrogate_pair_is_written_as_json_escapes_it(tmp_path: Path) -> None:
    sink = JsonLinesSink(tmp_path / "events.jsonl", limit_bytes=10_000)
    sink.receive(1.0, Notice(message="a\udc80b"))
    sink.close()
    assert _messages(tmp_path / "events.jsonl") == ["a\udc80b"]


@pytest.fixture
def refusing_disk() -> Iterator[int]:
    """Let the system refuse files larger than the size that is given, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        yield 1_000
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_log_that_the_disk_refuses_ends_on_a_whole_line_and_says_why(tmp_path: Path, refusing_disk: int) -> None:
    path = tmp_path / "events.jsonl"
    sink = JsonLinesSink(path, limit_bytes=100_000)
    for number in range(50):
        sink.receive(1.0, Notice(message=f"{number:0100}"))
    sink.close()
    assert path.stat().st_size <= refusing_disk
    assert _messages(path) == [f"{number:0100}" for number in range(len(_messages(path)))]
    assert isinstance(sink.problem, DiskError)
    assert str(path) in sink.problem.fact
