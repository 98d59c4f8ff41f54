"""The catalog's bounds, measured by the benchmark itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "catalog.py"


def run(*words: str | int | Path) -> str:
    return subprocess.run(
        [sys.executable, BENCHMARK, *map(str, words)], check=True, capture_output=True, text=True
    ).stdout


def measure(*words: str | int | Path) -> dict[str, Any]:
    measured: dict[str, Any] = json.loads(run("--child", *words))
    return measured


def test_the_quick_benchmark_prints_a_line_for_each_case() -> None:
    lines = run("--quick").splitlines()
    assert [line[:8].strip() for line in lines] == ["", "build: l", "open it", "build: a", "open it"]


@pytest.mark.slow
def test_building_from_a_467_mb_array_stays_under_500_mb_of_memory(tmp_path: Path) -> None:
    measured = measure(tmp_path, 640_000, 60_000, 730)
    assert measured["read_bytes"] > 467_000_000
    assert measured["num_samples"] == 640_000
    assert measured["peak_bytes"] < 500_000_000


@pytest.mark.slow
def test_1_300_000_samples_over_178_000_clips_open_in_under_3_seconds(tmp_path: Path) -> None:
    measure(tmp_path, 1_300_000, 178_000, 400)
    opened = measure(tmp_path)
    assert (opened["num_samples"], opened["num_clips"]) == (1_300_000, 178_000)
    assert opened["seconds"] < 3
