r"""Where checkpoints are kept besides the run's own folder, and what is kept there.

```
PLACE/
├── step-00000123/     as in RUN/checkpoints; whole or not there
├── indexes/           what the run has learned of the archives
└── config.yaml
```
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reelstream.cancel import Cancellation

INDEXES = "indexes"

Progress = Callable[[int], None]
"""Told of bytes that have just come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What is pushed: a checkpoint, and what lies beside it in the run's folder at that moment."""

    step: int
    checkpoint: Path
    """Its folder, which nobody changes or deletes meanwhile."""
    run_folder: Path

    @property
    def checkpoint_files(self) -> dict[str, Path]:
        """The checkpoint's files by name, its manifest last."""
        files = {path.name: path for path in sorted(self.checkpoint.iterdir())}
        manifest = files.pop("manifest.json")
        return {**files, manifest.name: manifest}

    @property
    def other_files(self) -> dict[str, Path]:
        """What a resume on an empty machine wants besides, by path in the run's folder.

        Newer than the checkpoint, it serves as well: a run that was killed finds it so in its own folder.
        """
        candidates = [self.run_folder / "config.yaml"]
        folder = self.run_folder / INDEXES
        if folder.is_dir():
            candidates += sorted(folder.iterdir())
        files = (path for path in candidates if path.is_file() and not path.name.startswith("."))
        return {path.relative_to(self.run_folder).as_posix(): path for path in files}

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in [*self.checkpoint_files.values(), *self.other_files.values()])


class Remote(Protocol):
    """One place; a protocol since a repository of the Hub and a mounted folder are reached in their own ways.

    All methods raise `HubError` or `DiskError` where the place cannot be reached or refuses, and `Cancelled`.
    """

    def __str__(self) -> str:
        """Return its name, as the user wrote it."""
        ...

    def prepare(self, cancellation: Cancellation) -> None:
        """Make the place where there is none, so that what would fail later fails at the start."""
        ...

    def steps(self, cancellation: Cancellation) -> list[int]:
        """Return the steps of the checkpoints that are there, ascending; an error where there is no such place."""
        ...

    def push(self, bundle: Bundle, *, keep: int, cancellation: Cancellation) -> None:
        """Put a checkpoint there, whole or not at all, and delete those beyond `keep` and those of later steps."""
        ...

    def fetch(self, step: int, target: Path, cancellation: Cancellation, progress: Progress) -> None:
        """Write the files of a checkpoint into a new folder. Nothing is compared with its manifest."""
        ...

    def checkpoint_bytes(self, step: int, cancellation: Cancellation) -> int:
        """Return the bytes that `fetch` writes."""
        ...

    def fetch_others(self, run_folder: Path, cancellation: Cancellation) -> None:
        """Write what lies beside the checkpoints into a run's folder; each file is replaced at once."""
        ...

    def clear(self, cancellation: Cancellation) -> None:
        """Delete the checkpoints and what lies beside them, and nothing else."""
        ...
