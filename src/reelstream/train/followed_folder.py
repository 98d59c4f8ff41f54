"""The run folder as ranks see it that do not write in it: the first rank claims it, the others follow."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from reelstream.errors import StateError
from reelstream.train.checkpoints import MANIFEST, Checkpoint
from reelstream.train.parallel import Team
from reelstream.train.run_folder import ClaimedFolder


class FollowedFolder:
    """The folder that the first rank has claimed; nothing is written in it here.

    Args:
        path: The folder, as this rank's options name it.
        found: What the first rank goes on from; see `found_in`.

    Raises:
        StateError: Where this rank does not see the first rank's checkpoint there.
    """

    def __init__(self, path: Path, found: dict[str, Any]) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.indexes = path / "indexes"
        self.checkpoint: Checkpoint | None = None
        """The one that the run goes on from, verified by the first rank; None where the run begins."""
        if found["checkpoint"] is not None:
            self.checkpoint = _same_checkpoint(self.checkpoints / found["checkpoint"], found)

    def put_back(self) -> None:
        """Do nothing: who claimed the folder puts it back."""


RunFolder = ClaimedFolder | FollowedFolder


def found_in(folder: ClaimedFolder) -> dict[str, Any]:
    """Return, as JSON values, which checkpoint a run goes on from, so that others can tell it from any other."""
    checkpoint = folder.checkpoint
    if checkpoint is None:
        return {"checkpoint": None}
    manifest = (checkpoint.folder / MANIFEST).read_bytes()
    return {"checkpoint": checkpoint.folder.name, "step": checkpoint.step, "manifest": _digest(manifest)}


def _same_checkpoint(folder: Path, found: dict[str, Any]) -> Checkpoint:
    """Return the checkpoint without reading its files once more: the first rank has verified them."""
    try:
        manifest = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise StateError(
            f"rank 0 goes on from {folder}, which this rank cannot read: {error.strerror}",
            "put run_dir on a disk that all nodes share, or copy the checkpoint to the same place on each",
        ) from error
    if _digest(manifest) != found["manifest"]:
        raise StateError(
            f"rank 0 goes on from {folder}, and this rank sees another checkpoint there",
            "put run_dir on a disk that all nodes share, or copy rank 0's checkpoint to the same place on each",
        )
    return Checkpoint(folder=folder, step=found["step"], file_names=frozenset(json.loads(manifest)["files"]))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def claimed_by_first(team: Team, path: Path, claim: Callable[[], ClaimedFolder]) -> Iterator[RunFolder]:
    """Claim a run folder on the first rank, and follow it on the others.

    Args:
        team: The ranks.
        path: The folder.
        claim: Makes the first rank's claim; it is entered here.

    Raises:
        ConfigError: On the first rank; see `ClaimedFolder`.
        RankLostError: On the others then.
        StateError: Where ranks see different checkpoints.
    """
    if not team.is_first:
        yield FollowedFolder(path, json.loads(team.from_first("run folder", b"")))
        return
    with claim() as folder:
        team.from_first("run folder", json.dumps(found_in(folder)).encode())
        yield folder
