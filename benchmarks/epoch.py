"""Epochs over their floor: network-bound, balanced and compute-bound, on a Hub on loopback.

The first epoch of each setting streams whole archives, the second one blocks of clips whose places the first one has
learned; no clip is kept between them, so that both move all bytes.

The floor is `max(bytes / bandwidth, steps x step time)`. The trainer sleeps in its steps, so that what is measured is
the stream: how much of the time it waits although bandwidth and trainer would allow more.

    python benchmarks/epoch.py            about six minutes
    python benchmarks/epoch.py --quick    some seconds, as the tests run it
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelstream.data import StreamingVideoDataset
from reelstream.hubserver import HubProcess
from reelstream.sampledata import SampleOptions, make_sample
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import EpochStarted, Event, Stalled
from reelstream.types import FrameSampling
from reelstream.units import format_bytes

BATCH_SIZE = 4
LATENCY_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One measurement."""

    name: str
    step_over_network: float
    """Training time of the epoch, as a multiple of its download time."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one epoch took."""

    setting: Setting
    spans: str
    """What was read in one go."""
    epoch_s: float
    floor_s: float
    first_batch_s: float
    stall_s: float
    high_water_bytes: int


SETTINGS = (
    Setting(name="network-bound", step_over_network=0.0),
    Setting(name="balanced", step_over_network=1.0),
    Setting(name="compute-bound", step_over_network=2.0),
)


class _Stalls:
    """Adds up what the consumer waited in an epoch, and notes what it reads."""

    def __init__(self) -> None:
        self.wait_s = 0.0
        self.spans = ""

    def receive(self, _: float, event: Event) -> None:
        if isinstance(event, EpochStarted):
            self.wait_s, self.spans = 0.0, f"{event.span_kind}s"
        if isinstance(event, Stalled):
            self.wait_s += event.wait_s


def measure(setting: Setting, root: Path, *, bandwidth: int, budget: str, cache_size: int) -> Iterator[Result]:
    """Run two epochs of everything in `root`."""
    repository = next(folder for folder in root.glob("*/*") if folder.is_dir())
    subsets = sorted(folder.name for folder in repository.iterdir() if folder.is_dir())
    stalls = _Stalls()
    options: dict[str, Any] = {
        "disk_budget": budget,
        "cache_size": cache_size,
        "frames": FrameSampling(fps=1.0, max_frames=8, size=224),
        "keep_clips": False,
    }
    with (
        tempfile.TemporaryDirectory() as cache,
        HubProcess(root, bandwidth_bytes_per_s=bandwidth, latency_s=LATENCY_S) as hub,
        StreamingVideoDataset(
            f"{repository.parent.name}/{repository.name}",
            subsets,
            cache_dir=cache,
            endpoint=hub.endpoint,
            telemetry=Telemetry(stalls),
            **options,
        ) as dataset,
    ):
        num_steps = -(-len(dataset) // BATCH_SIZE)
        num_bytes = sum(layout.archive_size_bytes for layout in dataset.session.layouts)
        network_s = num_bytes / bandwidth
        step_s = setting.step_over_network * network_s / num_steps
        for _ in range(2):
            started_s = time.monotonic()
            first_batch_s = 0.0
            for number, _sample in enumerate(dataset, 1):
                if number == BATCH_SIZE:
                    first_batch_s = time.monotonic() - started_s
                if number % BATCH_SIZE == 0:
                    time.sleep(step_s)
            yield Result(
                setting=setting,
                spans=stalls.spans,
                epoch_s=time.monotonic() - started_s,
                floor_s=max(network_s, num_steps * step_s),
                first_batch_s=first_batch_s,
                stall_s=stalls.wait_s,
                high_water_bytes=dataset.session.budget.high_water_bytes,
            )


def table(results: list[Result], *, what: str) -> str:
    """Return the results as Markdown."""
    lines = [
        what,
        "",
        "| | spans | epoch ÷ floor | first batch s | waited s | epoch s | most on disk |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        cells = (
            result.setting.name,
            result.spans,
            f"{result.epoch_s / result.floor_s:.2f}",
            f"{result.first_batch_s:.2f}",
            f"{result.stall_s:.1f}",
            f"{result.epoch_s:.1f}",
            format_bytes(result.high_water_bytes),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Make the data, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--root", type=Path, help="a folder of one repository, as `reelstream make-sample` writes it")
    parser.add_argument("--bandwidth", type=int, default=10_000_000)
    parser.add_argument("--budget", default="93MB")
    parser.add_argument("--cache-size", type=int, default=100)
    arguments = parser.parse_args()
    bandwidth, budget, cache_size = arguments.bandwidth, arguments.budget, arguments.cache_size
    with tempfile.TemporaryDirectory() as made:
        root = arguments.root
        if root is None:
            root = Path(made)
            options = SampleOptions(num_clips=600, seed=0)
            if arguments.quick:
                options = SampleOptions(
                    num_clips=24, seed=0, num_heldout=4, clip_bytes=60_000, min_duration_s=1, max_duration_s=2
                )
                bandwidth, budget, cache_size = 2_000_000, "8MB", 16
            make_sample(root, options)
        results = [
            result
            for setting in SETTINGS
            for result in measure(setting, root, bandwidth=bandwidth, budget=budget, cache_size=cache_size)
        ]
        what = (
            f"{format_bytes(bandwidth)}/s, {LATENCY_S * 1000:.0f} ms a request, disk budget {budget}, all annotations"
        )
    print(table(results, what=what))


if __name__ == "__main__":
    main()
