"""The benchmark of entries runs, and finds them right."""

import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "archive_entry.py"


def test_the_quick_benchmark_finds_every_entry_right_and_every_cut_whole() -> None:
    done = subprocess.run([sys.executable, BENCHMARK, "--quick"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]
    assert {"python -9", "stored", "several gzip members"} <= {row[1] for row in rows}
    for _, _, entered, right, *_, cuts, _ in rows:
        assert int(entered.split("/")[0]) > 0
        assert len(set(right.split("/"))) == 1
        assert cuts == "right"
