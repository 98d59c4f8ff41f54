"""What the tests of whole runs share: a tiny dataset made once a session, a configuration, and the real command."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from reelstream.cli.main import main
from reelstream.sampledata import SampleOptions, make_sample
from reelstream.sampledata.record import SampleSummary

REPO_ID = "sample/llava-video-mini"
ACADEMIC, YOUTUBE, HELD_OUT = "0_30_s_academic_v0_1", "0_30_s_youtube_v0_1", "0_30_s_heldout_v0_1"
SUBSETS = [ACADEMIC, YOUTUBE]

_TINY = {
    "vocabulary_size": 320,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_layers": 1,
    "num_heads": 2,
    "num_key_value_heads": 1,
    "vision_hidden_size": 16,
    "vision_layers": 1,
}
_DEADLINE_S = 120.0


def sample(factory: pytest.TempPathFactory) -> SampleSummary:
    """Return a sample dataset of 24 clips and 168 rows, with 4 held-out clips; made once a session."""
    return _made(factory, False)


def sample_with_flaws(factory: pytest.TempPathFactory) -> SampleSummary:
    """Return a sample dataset with everything that goes wrong in published ones; made once a session."""
    return _made(factory, True)


def _made(factory: pytest.TempPathFactory, with_flaws: bool) -> SampleSummary:
    options = SampleOptions(
        num_clips=24,
        seed=1,
        clip_bytes=60_000,
        min_duration_s=1,
        max_duration_s=2,
        num_heldout=4,
        with_flaws=with_flaws,
    )
    # What is there from an earlier test is found by its record.
    return make_sample(factory.getbasetemp() / ("sample-with-flaws" if with_flaws else "sample"), options)


def root_of(summary: SampleSummary) -> Path:
    """Return the folder that a hub serves the sample from."""
    return summary.folder.parent.parent


def write_config(folder: Path, endpoint: str | None, changes: Mapping[str, Any] | None = None) -> Path:
    """Write the configuration of a tiny run in `folder`, which takes seconds; return its file.

    Args:
        folder: Gets `config.yaml`; the run goes to `run`, the clips to `cache`.
        endpoint: The hub; None leaves it out.
        changes: Values by dotted key.
    """
    config: dict[str, Any] = {
        "run_dir": str(folder / "run"),
        "data": {
            "repo_id": REPO_ID,
            "subsets": SUBSETS,
            "cache_dir": str(folder / "cache"),
            "disk_budget": "16MB",
            "cache_size": 8,
            "frames": {"fps": 1.0, "max_frames": 2, "size": 32},
            "decode_threads": 2,
        },
        "model": {"tiny": dict(_TINY)},
        "train": {"batch_size": 8, "num_threads": 1, "warmup_steps": 2},
        "checkpoints": {"every_steps": 5},
        "log_budget": "500kB",
    }
    if endpoint is not None:
        config["data"]["endpoint"] = endpoint
    for key, value in (changes or {}).items():
        *sections, name = key.split(".")
        section = config
        for step in sections:
            section = section.setdefault(step, {})
        section[name] = value
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


# ---------------------------------------------------------------------- the command


def train(config: Path, *words: str) -> int:
    """Run `reelstream train` in this process; return its exit code."""
    return main(["train", str(config), *words])


def report_of(config: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((config.parent / "run" / "report.json").read_text())
    return report


def events_of(config: Path, name: str | None = None) -> list[dict[str, Any]]:
    """Return the events of a run, or those of one name."""
    lines = (config.parent / "run" / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return [event for event in events if name in (None, event["event"])]


def losses_of(config: Path) -> dict[int, float]:
    """Return the loss of each step; of a step that was made again, the last one."""
    return {event["step"]: event["loss"] for event in events_of(config, "step_finished")}


def weights_of(config: Path) -> str:
    """Return the digest of the newest checkpoint's weights."""
    newest = max((config.parent / "run" / "checkpoints").glob("step-*"))
    return hashlib.sha256((newest / "model.safetensors").read_bytes()).hexdigest()


def digests_of(config: Path) -> list[str]:
    """Return the order digest of each epoch."""
    return [epoch["order_digest"] for epoch in report_of(config)["epochs"]]


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def stray_files(config: Path) -> list[str]:
    """Return what lies in the cache folder and is neither the catalog nor an index."""
    cache = config.parent / "cache"
    names = files_below(cache) if cache.exists() else []
    return [name for name in names if not name.startswith(("catalog/", "indexes/"))]


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    out: str
    err: str


class Running:
    """`reelstream train` in a process of its own, in a process group of its own; killed when the block ends."""

    def __init__(self, config: Path, *words: str, environment: Mapping[str, str] | None = None) -> None:
        self.config = config
        self.process = subprocess.Popen(
            [sys.executable, "-m", "reelstream", "train", str(config), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            if self.process.poll() is None:
                self.process.kill()

    def wait_for(self, event: str, number: int = 1) -> None:
        """Wait until the log of this process's run holds `number` events of a name."""
        deadline_s = time.monotonic() + _DEADLINE_S
        path = self.config.parent / "run" / "events.jsonl"
        needle = f'"event": "{event}"'
        while True:
            if path.exists() and path.read_text(errors="replace").count(needle) >= number:
                return
            code = self.process.poll()
            assert code is None, f"ended with {code} before {event}: {self.process.communicate()}"
            assert time.monotonic() < deadline_s, f"no {event} came"
            self.process_ended(0.005)

    def process_ended(self, wait_s: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(wait_s)
            return True
        return False

    def kill(self) -> None:
        """Kill it as `kill -9` does, and wait for its end."""
        self.process.kill()
        self.end()

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> Ended:
        """Send a signal to the whole group, as a terminal does; return how it ended."""
        os.killpg(self.process.pid, number)
        return self.end()

    def end(self) -> Ended:
        """Wait for its end."""
        out, err = self.process.communicate(timeout=_DEADLINE_S)
        return Ended(self.process.returncode, out, err)


def run_process(config: Path, *words: str, environment: Mapping[str, str] | None = None) -> Ended:
    """Run the command in a process of its own to its end."""
    with Running(config, *words, environment=environment) as running:
        return running.end()


# ---------------------------------------------------------------------- the disk, from outside


class DiskPoll:
    """Adds up what some folders take on disk, every few milliseconds as long as the block runs, as `du` does."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="disk-poll")
        self.most_bytes = 0
        self.num_polls = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.002):
            self.most_bytes = max(self.most_bytes, sum(map(_allocated, self._folders)))
            self.num_polls += 1


def _allocated(folder: Path) -> int:
    try:
        size_bytes = folder.lstat().st_blocks * 512
        entries = list(os.scandir(folder))
    except OSError:
        return 0
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            size_bytes += _allocated(Path(entry.path))
        else:
            with contextlib.suppress(OSError):
                size_bytes += entry.stat(follow_symlinks=False).st_blocks * 512
    return size_bytes


# ---------------------------------------------------------------------- the server, from inside


def read_tar_gz(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each member."""
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                yield member.name, file.read()
