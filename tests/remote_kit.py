"""Checkpoints of a few bytes, for the tests of what copies them."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from reelstream.train.checkpoints import CheckpointContents, CheckpointStore
from reelstream.train.remote.remote import Bundle


def contents_of(step: int, size: int = 1000) -> CheckpointContents:
    return CheckpointContents(
        step=step,
        tensors={"model.safetensors": {"weight": torch.full((size,), float(step))}},
        files={"trainer.json": json.dumps({"step": step}).encode()},
    )


def run_with_checkpoints(folder: Path, *steps: int) -> CheckpointStore:
    """Make a run's folder with these checkpoints, an index and a configuration."""
    store = CheckpointStore(folder / "checkpoints", keep=100)
    store.open()
    for step in steps:
        store.save(contents_of(step))
    (folder / "indexes").mkdir(exist_ok=True)
    (folder / "indexes/abc.reelindex").write_bytes(b"index")
    (folder / "config.yaml").write_bytes(b"# of a run\n")
    return store


def bundle_of(folder: Path, step: int) -> Bundle:
    return Bundle(step=step, checkpoint=folder / f"checkpoints/step-{step:08d}", run_folder=folder)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
