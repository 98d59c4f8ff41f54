"""The benchmark of archives runs; what it reads is what GNU tar unpacks, and its page holds what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "archive.py"


def test_the_quick_benchmark_finds_all_members_entries_and_cuts_right(tmp_path: Path) -> None:
    page, record = tmp_path / "page.md", tmp_path / "archive.json"
    page.write_text(
        "before\n<!-- written by benchmarks/archive.py: begin -->\nold\n"
        "<!-- written by benchmarks/archive.py: end -->\nafter\n"
    )
    command = [sys.executable, str(BENCHMARK), "--quick", "--page", str(page), "--json", str(record)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(record.read_text())
    assert {"Python 9 (tarfile)", "stored blocks"} <= {result["writer"] for result in measured["results"]}
    for result in measured["results"]:
        passed, entered = result["passed"], result["entered"]
        assert passed["num_wrong"] == 0
        assert passed["requests_mean"] == 1
        assert entered["right"] == entered["entered"] > 0
        assert entered["searched_max_bytes"] <= 65_552
        assert entered["cuts_right"]
        assert f"| {result['writer']} |" in done.stdout
    text = page.read_text()
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert done.stdout.strip() in text
