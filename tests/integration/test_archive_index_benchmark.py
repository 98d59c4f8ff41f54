"""The benchmark of the archive index runs, and what it reads by range is what GNU tar unpacks."""

import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "archive_index.py"


def test_the_benchmark_of_the_archive_index_reads_every_member_right() -> None:
    options = ["--clip-mb", "0.1", "--total-mb", "0.4", "--rounds", "1", "--writers", "Python 6", "stored"]
    done = subprocess.run([sys.executable, BENCHMARK, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith(("| Python", "| stored"))]
    assert {row[1].strip() for row in rows} == {"Python 6", "stored"}
    assert all(row[-2].strip() == "0" for row in rows)
