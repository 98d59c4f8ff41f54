"""Building in processes of their own: killed, interrupted, and two at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from hashlib import shake_128
from pathlib import Path

import pytest

from catalog_kit import MadeRepository, record

# Answers that compress badly, so that steps of 1 MiB are on disk before the end.
ROWS = [record(f"d/{row % 500}.mp4", answer=shake_128(b"%d" % row).hexdigest(150)) for row in range(20_000)]
REPOSITORY = MadeRepository({"s/s_cap.json": ROWS})

# Builds, and stops in the middle of the annotations until it is told to go on.
_CHILD = """
import sys
from pathlib import Path
from test_catalog_processes import REPOSITORY
from reelstream.catalog import build_subset, catalog_folder

def open_file(file):
    data = REPOSITORY.data[file.path]
    middle = len(data) // 10 * 9
    yield data[:middle]
    print("halfway", flush=True)
    sys.stdin.readline()
    yield data[middle:]

layout = REPOSITORY.layout("s")
print("begun", flush=True)
build_subset(layout, catalog_folder(layout, Path(sys.argv[1])), open_file=open_file, reserve=lambda _: None)
print("built", flush=True)
"""


def start_build(parent: Path) -> subprocess.Popen[str]:
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    code = f"import sys; sys.path[:0] = {paths!r}\n{_CHILD}"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(process, "begun")
    return process


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().strip() == line


def partial_files(parent: Path) -> list[Path]:
    return list(parent.glob("*/.*.partial"))


@pytest.mark.timeout(60)
def test_a_killed_build_is_done_again_and_its_leftovers_are_removed(tmp_path: Path) -> None:
    with start_build(tmp_path) as process:
        wait_for(process, "halfway")
        process.kill()
        process.communicate()
    assert any(path.stat().st_size for path in partial_files(tmp_path))
    with REPOSITORY.prepare(tmp_path, "s") as catalog:
        assert catalog.num_samples == 20_000
    assert partial_files(tmp_path) == []


@pytest.mark.timeout(60)
def test_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    with start_build(tmp_path) as process:
        wait_for(process, "halfway")
        process.send_signal(signal.SIGINT)
        _, talk = process.communicate()
    assert "KeyboardInterrupt" in talk
    assert "Exception ignored" not in talk
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(60)
def test_of_two_builds_at_once_the_second_waits_and_takes_what_the_first_made(tmp_path: Path) -> None:
    with start_build(tmp_path) as first:
        wait_for(first, "halfway")
        with start_build(tmp_path) as second:
            first.communicate("go on\n")
            # It never reads the annotations: it would say so.
            wait_for(second, "built")
            second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    opened_before = len(REPOSITORY.opened)
    REPOSITORY.prepare(tmp_path, "s").close()
    assert len(REPOSITORY.opened) == opened_before
