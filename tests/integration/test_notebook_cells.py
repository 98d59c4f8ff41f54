"""Cells of a notebook: run again, interrupted, left. The interpreter is Python's own, which keeps the last traceback.

That is what makes notebooks different: `sys.last_traceback` holds the frames of an interrupted cell, and so the dataset
that they were iterating over, until the next exception.
"""

from __future__ import annotations

import code
import contextlib
import gc
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.run_kit import ACADEMIC, REPO_ID, YOUTUBE, report_of, root_of, sample, stray_files, write_config
from reelstream.hubserver import HubProcess

_DATASET = f"""
from reelstream.data import StreamingVideoDataset
from reelstream.types import FrameSampling

dataset = StreamingVideoDataset(
    "{REPO_ID}", ["{ACADEMIC}", "{YOUTUBE}"], cache_dir=cache, endpoint=endpoint, disk_budget="16MB", cache_size=8,
    frames=FrameSampling(fps=1.0, max_frames=2, size=32), decode_threads=2,
)
"""
_LOOP = """
ids = []
for sample in dataset:
    ids.append(sample["id"])
    interrupt_at(len(ids))
"""
_TRAIN = """
from reelstream.cli.main import main

code = main(["train", config, "--resume-or-start", "--quiet"])
"""


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with HubProcess(root_of(sample(tmp_path_factory))) as hub:
        yield hub.endpoint


class Notebook:
    """Runs cells in one namespace, as a kernel does; what a cell raises is shown, and kept in `sys`."""

    def __init__(self, **names: Any) -> None:
        self.names = names
        self._interpreter = code.InteractiveInterpreter(names)
        self.shown = ""

    def run(self, cell: str) -> None:
        shown = io.StringIO()
        with contextlib.redirect_stderr(shown):
            self._interpreter.runcode(compile(cell, "<cell>", "exec"))
        self.shown = shown.getvalue()


@pytest.fixture
def no_last_error() -> Iterator[None]:
    yield
    forget_last_error()


def forget_last_error() -> None:
    for name in ("last_traceback", "last_value", "last_type", "last_exc"):
        if hasattr(sys, name):
            delattr(sys, name)
    gc.collect()


def our_threads() -> list[str]:
    """Return what runs beside the test; libraries have threads of their own for as long as the process lives."""
    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    return [name for name in names if "tqdm" not in name and "telemetry_worker" not in name]


def clips_in(cache: Path) -> list[str]:
    """Return the files that are neither catalog nor indexes; folders do not count."""
    return [
        path.name
        for path in cache.rglob("*")
        if path.is_file() and path.relative_to(cache).parts[0] not in {"catalog", "indexes"}
    ]


def interrupting_at(*numbers: int) -> Any:
    def interrupt_at(number: int) -> None:
        if number in numbers:
            signal.raise_signal(signal.SIGINT)

    return interrupt_at


@pytest.mark.usefixtures("no_last_error")
def test_a_cell_interrupted_between_samples_leaves_no_thread_and_runs_again(endpoint: str, tmp_path: Path) -> None:
    notebook = Notebook(cache=tmp_path, endpoint=endpoint, interrupt_at=interrupting_at(9))
    for _ in range(3):
        notebook.run(_DATASET + _LOOP)
        assert "KeyboardInterrupt" in notebook.shown
        assert our_threads() == []
    first = notebook.names["ids"]
    notebook.names["interrupt_at"] = interrupting_at()
    notebook.run(_DATASET + _LOOP)
    assert notebook.shown == ""
    assert notebook.names["ids"][:9] == first
    assert len(notebook.names["ids"]) == 168
    assert our_threads() == []


@pytest.mark.usefixtures("no_last_error")
def test_a_cell_interrupted_while_it_waits_for_a_clip_does_too(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reelstream.prefetch.pipeline import EpochPipeline

    notebook = Notebook(cache=tmp_path, endpoint=endpoint, interrupt_at=interrupting_at())
    served = 0
    next_sample = EpochPipeline.next_sample

    def interrupted_within(pipeline: EpochPipeline) -> Any:
        nonlocal served
        served += 1
        if served == 20:
            signal.raise_signal(signal.SIGINT)
        return next_sample(pipeline)

    monkeypatch.setattr(EpochPipeline, "next_sample", interrupted_within)
    notebook.run(_DATASET + _LOOP)
    assert "KeyboardInterrupt" in notebook.shown
    assert our_threads() == []
    # The traceback holds the old dataset; the new one works beside it.
    notebook.run(_DATASET + _LOOP)
    assert notebook.shown == ""
    assert len(notebook.names["ids"]) == 168
    notebook.run("del dataset, sample")
    forget_last_error()
    assert clips_in(tmp_path) == []
    assert our_threads() == []


@pytest.mark.usefixtures("no_last_error")
def test_the_loop_alone_runs_again_on_the_same_dataset_and_begins_the_epoch_anew_after_a_reset(
    endpoint: str, tmp_path: Path
) -> None:
    notebook = Notebook(cache=tmp_path, endpoint=endpoint, interrupt_at=interrupting_at(9))
    notebook.run(_DATASET)
    notebook.run(_LOOP)
    first = notebook.names["ids"]
    notebook.names["interrupt_at"] = interrupting_at()
    notebook.run("dataset.reset()" + _LOOP)
    assert notebook.names["ids"][:9] == first
    assert len(notebook.names["ids"]) == 168
    notebook.run("dataset.close()")
    assert clips_in(tmp_path) == []
    assert our_threads() == []


@pytest.mark.usefixtures("no_last_error")
def test_a_training_cell_is_interrupted_and_run_again(endpoint: str, tmp_path: Path) -> None:
    config = write_config(tmp_path, endpoint, {"train.max_steps": 12})
    notebook = Notebook(config=str(config))
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    log = tmp_path / "run/events.jsonl"
    over = threading.Event()

    def interrupt_after_three_steps() -> None:
        while not over.wait(0.005):
            if log.exists() and log.read_text().count("step_finished") >= 3:
                signal.pthread_kill(main_thread, signal.SIGINT)
                return

    watcher = threading.Thread(target=interrupt_after_three_steps)
    watcher.start()
    notebook.run(_TRAIN)
    over.set()
    watcher.join()
    before = signal.getsignal(signal.SIGINT)
    assert notebook.names["code"] == 130
    assert 3 <= report_of(config)["steps"] < 12
    assert our_threads() == []
    assert stray_files(config) == []
    notebook.run(_TRAIN)
    assert notebook.names["code"] == 0
    assert report_of(config)["steps"] == 12
    # Run once more it finds nothing to do.
    notebook.run(_TRAIN)
    assert notebook.names["code"] == 0
    assert our_threads() == []
    assert stray_files(config) == []
    assert signal.getsignal(signal.SIGINT) is before


def test_a_kernel_that_is_shut_down_in_the_middle_of_a_loop_leaves_no_clip(endpoint: str, tmp_path: Path) -> None:
    script = f"cache, endpoint = {str(tmp_path)!r}, {endpoint!r}\n{_DATASET}\nfor sample in dataset:\n    break\n"
    # Held by a name that lives as long as the interpreter, as in a kernel's history of outputs.
    script += "history = iter(dataset); next(history)\n"
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert clips_in(tmp_path) == []
