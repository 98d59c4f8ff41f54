"""Checkpoints in a model repository of the Hub."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Self

from reelstream.cancel import Cancellation
from reelstream.errors import StateError
from reelstream.telemetry import Telemetry
from reelstream.train.checkpoints import MANIFEST, step_name
from reelstream.train.remote.copying import disk_errors, replace_file, write_new
from reelstream.train.remote.place import HubPlace
from reelstream.train.remote.remote import INDEXES, Bundle, Progress
from reelstream.transport import HubClient
from reelstream.transport.upload import CommitOrder, commit
from reelstream.types import Repository, RepositoryFile

_STEP_FILE = re.compile(r"step-(\d{8,})/([^/]+)")
_OTHER_FILE = re.compile(rf"config\.yaml|{INDEXES}/[^/.][^/]*")


class HubRemote:
    """A `Remote` in a model repository; a context manager, since it holds connections.

    A push is one commit, so that a checkpoint is there with all its files or not at all.

    Args:
        place: Which repository, and which folder in it.
        endpoint: The Hub; None takes `HF_ENDPOINT`, or else the public one.
        token: As of `HubClient`.
        private: Whether a repository that `prepare` makes is private.
    """

    def __init__(
        self, place: HubPlace, *, endpoint: str | None = None, token: str | bool | None = None, private: bool = True
    ) -> None:
        self._place = place
        self._token = token
        self._private = private
        # What is received here is no data of the run's, and no part of its figures.
        self._client = HubClient(endpoint=endpoint, token=token, telemetry=Telemetry())
        self._prefix = f"{place.folder}/" if place.folder else ""

    def __str__(self) -> str:
        return str(self._place)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def prepare(self, cancellation: Cancellation) -> None:
        """Make the repository where there is none; asks for a token that may write."""
        order = CommitOrder(repo_id=self._place.repo_id, message="", create=True, private=self._private)
        self._commit(order, cancellation)

    def steps(self, cancellation: Cancellation) -> list[int]:
        """Return the steps of the checkpoints that are there, ascending."""
        return sorted(self._checkpoints(self._repository(cancellation)))

    def push(self, bundle: Bundle, *, keep: int, cancellation: Cancellation) -> None:
        """Commit a checkpoint, and the deletion of those beyond `keep` and of those of later steps."""
        present = self._repository(cancellation)
        steps = self._checkpoints(present)
        kept = sorted({*(step for step in steps if step <= bundle.step), bundle.step})[-keep:]
        others = bundle.other_files
        stale = [path for path in self._others(present) if path.startswith(f"{INDEXES}/") and path not in others]
        prefix = f"{self._prefix}{step_name(bundle.step)}/"
        files = {f"{self._prefix}{path}": file for path, file in others.items()}
        files |= {f"{prefix}{name}": file for name, file in bundle.checkpoint_files.items()}
        left = [path for path in steps.get(bundle.step, {}) if path not in bundle.checkpoint_files]
        order = CommitOrder(
            repo_id=self._place.repo_id,
            message=f"Checkpoint of step {bundle.step}",
            files=files,
            deleted_files=(
                *(f"{self._prefix}{path}" for path in stale),
                *(f"{prefix}{name}" for name in left),
            ),
            deleted_folders=tuple(f"{self._prefix}{step_name(step)}" for step in steps if step not in kept),
        )
        self._commit(order, cancellation)

    def fetch(self, step: int, target: Path, cancellation: Cancellation, progress: Progress) -> None:
        """Download the files of a checkpoint into a new folder."""
        repository = self._repository(cancellation)
        with disk_errors(f"{target.parent} cannot be written to", "make room, or check its permissions"):
            target.mkdir(parents=True)
            for name, file in self._checkpoint(repository, step).items():
                write_new(target / name, self._chunks(repository, file, cancellation), cancellation, progress)

    def checkpoint_bytes(self, step: int, cancellation: Cancellation) -> int:
        """Return the bytes that `fetch` writes."""
        return sum(file.size_bytes for file in self._checkpoint(self._repository(cancellation), step).values())

    def fetch_others(self, run_folder: Path, cancellation: Cancellation) -> None:
        """Download configuration and indexes into a run's folder."""
        repository = self._repository(cancellation)
        with disk_errors(f"{run_folder} cannot be written to", "make room, or check its permissions"):
            for path, file in self._others(repository).items():
                replace_file(run_folder / path, self._chunks(repository, file, cancellation), cancellation)

    def clear(self, cancellation: Cancellation) -> None:
        """Commit the deletion of the checkpoints, the indexes and the configuration."""
        repository = self._repository(cancellation)
        order = CommitOrder(
            repo_id=self._place.repo_id,
            message="The run is started anew",
            deleted_files=tuple(f"{self._prefix}{path}" for path in self._others(repository)),
            deleted_folders=tuple(f"{self._prefix}{step_name(step)}" for step in self._checkpoints(repository)),
        )
        self._commit(order, cancellation)

    # ------------------------------------------------------------------ inside

    def _repository(self, cancellation: Cancellation) -> Repository:
        return self._client.repository(self._place.repo_id, kind="model", cancellation=cancellation)

    def _commit(self, order: CommitOrder, cancellation: Cancellation) -> None:
        commit(order, endpoint=self._client.endpoint, token=self._token, cancellation=cancellation)

    def _paths(self, repository: Repository) -> Iterator[tuple[str, RepositoryFile]]:
        for file in repository.files:
            if file.path.startswith(self._prefix):
                yield file.path.removeprefix(self._prefix), file

    def _checkpoints(self, repository: Repository) -> dict[int, dict[str, RepositoryFile]]:
        """Return the files by name of each checkpoint that has a manifest."""
        steps: dict[int, dict[str, RepositoryFile]] = {}
        for path, file in self._paths(repository):
            match = _STEP_FILE.fullmatch(path)
            if match is not None and PurePosixPath(match.group(2)).name == match.group(2):
                steps.setdefault(int(match.group(1)), {})[match.group(2)] = file
        return {step: files for step, files in steps.items() if MANIFEST in files}

    def _checkpoint(self, repository: Repository, step: int) -> dict[str, RepositoryFile]:
        files = self._checkpoints(repository).get(step)
        if files is None:
            raise StateError(f"{self} no longer holds the checkpoint of step {step}", "try again")
        return files

    def _others(self, repository: Repository) -> dict[str, RepositoryFile]:
        return {path: file for path, file in self._paths(repository) if _OTHER_FILE.fullmatch(path)}

    def _chunks(self, repository: Repository, file: RepositoryFile, cancellation: Cancellation) -> Iterator[bytes]:
        with contextlib.closing(self._client.open(repository, file).read(0, file.size_bytes, cancellation)) as chunks:  # type: ignore[type-var]
            yield from chunks
