"""What a catalog costs: memory and time of building one, time of opening one.

    python benchmarks/catalog.py            # the figures in docs/reference/catalog-format.md; about a minute and a half
    python benchmarks/catalog.py --quick    # a hundredth of it, in seconds

The annotation array is made while it is read, as `LLaVA-Video-178K`'s largest one is laid out (467 MB): it is never
whole in memory or on disk. Each measurement runs in a process of its own, so that its peak is its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reelstream.catalog import Catalog, SubsetLayout, open_catalog, prepare_catalog, select_subsets
from reelstream.types import Repository, RepositoryFile

LARGEST_ARRAY_BYTES = 467_000_000
ALL_SAMPLES = 1_300_000
ALL_CLIPS = 178_000

_MEAN_ROW_BYTES = 730
_NUM_PASSAGES = 20_000
_NUM_WORDS = 8000


@dataclass(frozen=True)
class Measured:
    """One process's figures."""

    seconds: float
    read_bytes: int
    peak_bytes: int
    num_samples: int
    num_clips: int
    catalog_bytes: int


def made_array(num_rows: int, num_clips: int, mean_row_bytes: int) -> Iterator[bytes]:
    """Yield the bytes of an annotation array, some hundred rows at a time."""
    draw = random.Random(0)
    passages = _passages(draw)
    mean_passage_bytes = sum(map(len, passages)) / _NUM_PASSAGES + 2
    num_passages = max(1, round((mean_row_bytes - 320) / mean_passage_bytes))
    for first in range(0, num_rows, 500):
        rows = (
            _made_row(row, row * 7919 % num_clips, draw.sample(passages, num_passages))
            for row in range(first, min(first + 500, num_rows))
        )
        head, tail = ("[" if first == 0 else ","), ("]" if first + 500 >= num_rows else "")
        yield f"{head}{','.join(rows)}{tail}".encode()


def _passages(draw: random.Random) -> list[str]:
    """Make sentences whose words are as frequent as in a language, so that they compress as texts do."""
    words = ["".join(draw.choices("etaoinshrdlucmfwypvbgk", k=draw.randint(2, 9))) for _ in range(_NUM_WORDS)]
    weights = list(itertools.accumulate(1 / (rank + 10) for rank in range(_NUM_WORDS)))
    return [" ".join(draw.choices(words, cum_weights=weights, k=draw.randint(8, 22))) for _ in range(_NUM_PASSAGES)]


def _made_row(row: int, clip: int, passages: list[str]) -> str:
    return (
        f'{{"id": "ytb_{clip:08d}", "conversations": [{{"from": "human", "value": "<image>\\nPlease provide a detailed '
        f'description of the video, focusing on {passages[0][:40]} number {row}."}}, {{"from": "gpt", "value": '
        f'"{". ".join(passages)}."}}], "data_source": "0_30_s_youtube_v0_1", "video": '
        f'"liwei_youtube_videos/videos/youtube_video_2024/ytb_{clip:08d}.mp4"}}'
    )


def made_layout(size_bytes: int) -> SubsetLayout:
    """The layout of a subset with one annotation file of this size."""
    folder = "0_30_s_youtube_v0_1"
    files = (
        RepositoryFile(path=f"{folder}/{folder}_cap_processed.json", size_bytes=size_bytes, sha256=None),
        RepositoryFile(path=f"{folder}/{folder}_videos_1.tar.gz", size_bytes=1, sha256=None),
    )
    return select_subsets(Repository(repo_id="made/array", commit="0" * 40, files=files), [folder], ["cap"])[0]


def measure_build(parent: Path, num_rows: int, num_clips: int, mean_row_bytes: int) -> Measured:
    """Build in this process; the CPU time is that of parsing and writing, less that of making the rows."""
    started = time.process_time()
    # The layout tells the size before the first byte is read; making the rows a first time gives it.
    size_bytes = sum(map(len, made_array(num_rows, num_clips, mean_row_bytes)))
    making_s = time.process_time() - started
    started = time.process_time()
    with prepare_catalog(
        [made_layout(size_bytes)],
        parent,
        open_file=lambda _: made_array(num_rows, num_clips, mean_row_bytes),
        reserve=lambda _: None,
    ) as catalog:
        return _measured(time.process_time() - started - making_s, size_bytes, catalog)


def measure_open(parent: Path) -> Measured:
    """Open what is in `parent`, and look one clip and one sample up."""
    started = time.perf_counter()
    with open_catalog(sorted(parent.iterdir())) as catalog:
        clip = catalog.find(catalog.subsets[0], f"./{catalog.clip(catalog.num_clips - 1).path}")
        assert clip is not None
        catalog.annotation(catalog.samples_of(clip)[0])
        return _measured(time.perf_counter() - started, 0, catalog)


def _measured(seconds: float, read_bytes: int, catalog: Catalog) -> Measured:
    return Measured(seconds, read_bytes, peak_bytes(), catalog.num_samples, catalog.num_clips, catalog.size_bytes)


def peak_bytes() -> int:
    """Return the most memory that this process had resident."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss: on Linux a child's begins at what its parent had resident when it started the child.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    # macOS counts in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_child(*words: str | int | Path) -> Measured:
    """Run one measurement in a process of its own."""
    command = [sys.executable, __file__, *map(str, words)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return Measured(**json.loads(answer.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the size")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        parent, *numbers = arguments.child
        measured = measure_build(Path(parent), *map(int, numbers)) if numbers else measure_open(Path(parent))
        print(json.dumps(vars(measured)))
        return
    share = 100 if arguments.quick else 1
    cases = [
        ("largest array", LARGEST_ARRAY_BYTES // _MEAN_ROW_BYTES // share, 60_000 // share, _MEAN_ROW_BYTES),
        ("all samples, short texts", ALL_SAMPLES // share, ALL_CLIPS // share, 400),
    ]
    print(f"{'':32} {'samples':>10} {'clips':>8} {'CPU s':>8} {'MB':>8} {'MB/s':>6} {'peak MB':>8} {'on disk MB':>11}")
    for name, num_rows, num_clips, mean_row_bytes in cases:
        with tempfile.TemporaryDirectory() as parent:
            built = in_child("--child", parent, num_rows, num_clips, mean_row_bytes)
            opened = in_child("--child", parent)
        print(_line(f"build: {name}", built))
        # So short that the time on the wall is shown instead.
        print(_line("open it", opened))


def _line(name: str, measured: Measured) -> str:
    read_mb = measured.read_bytes / 1e6
    speed = f"{read_mb:8.1f} {read_mb / measured.seconds:6.1f}" if read_mb else " " * 15
    return (
        f"{name:32} {measured.num_samples:10,} {measured.num_clips:8,} {measured.seconds:8.3f} {speed} "
        f"{measured.peak_bytes / 1e6:8.0f} {measured.catalog_bytes / 1e6:11.1f}"
    )


if __name__ == "__main__":
    main()
