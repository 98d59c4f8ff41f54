"""The benchmark of whole epochs runs, and says what it measured."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "epoch.py"


@pytest.mark.slow
def test_the_quick_benchmark_prints_a_row_for_each_setting() -> None:
    done = subprocess.run([sys.executable, BENCHMARK, "--quick"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows[1:]]
    assert [tuple(row[:2]) for row in cells] == [
        (setting, spans)
        for setting in ("network-bound", "balanced", "compute-bound")
        for spans in ("archives", "blocks")
    ]
    for row in cells:
        over_floor = float(row[2])
        # Nothing is faster than its floor but for the burst that the bandwidth cap allows.
        assert over_floor > 0.9
