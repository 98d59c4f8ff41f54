"""The folder of a run: claimed by one process at a time, and put back as it was where the run never began.

```
RUN/                 locked (flock on the folder itself) as long as its run lives
├── config.yaml      the options, as they were resolved
├── events.jsonl     what happened, a line each
├── totals.json      the figures so far, so that a resumed run's report covers the whole run
├── report.json      what was streamed, what it cost, what bounds it
├── indexes/         what was learned of the archives: a resume on an empty machine needs it
└── checkpoints/     see `checkpoints`
```

The lock is the kernel's and dies with the process, so no lock file is left behind.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from reelstream.errors import ConfigError, DiskError, StateError
from reelstream.indexes import IndexStore
from reelstream.train.checkpoints import Checkpoint, load_newest

CONFIG_FILE, EVENTS_FILE, TOTALS_FILE, REPORT_FILE = "config.yaml", "events.jsonl", "totals.json", "report.json"
CONFIG_HEADER = "# The options of this run, as Reelstream resolved them; a new run here writes its own.\n"
_OUR_FILES = (CONFIG_FILE, EVENTS_FILE, TOTALS_FILE, REPORT_FILE)
# What a killed process may have left of a file that it was about to replace.
_OUR_PARTIAL = re.compile(r"^\.(config\.yaml|totals\.json|report\.json)\..+$")
_OUR_CHECKPOINT = re.compile(r"^(step-\d{8,}|\.partial-step-\d{8,}-[0-9a-f]{8})$")


@contextlib.contextmanager
def locked_folder(path: Path) -> Iterator[None]:
    """Keep runs out of a run's folder as long as the block runs; it is made if need be, and does not stay empty.

    Raises:
        ConfigError: Where a run has it.
        DiskError: Where it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(path)
    except OSError as error:
        raise DiskError(f"{path} cannot be used: {error.strerror or error}", "choose another folder") from error
    try:
        yield
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            path.rmdir()


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConfigError(
            f"another process is training in {path}", "wait for it, stop it, or choose another run_dir"
        ) from error
    return descriptor


class Elsewhere(Protocol):
    """Where a copy of a run is kept, as the run's folder asks for it (`remote.copies.Copies`)."""

    def fetch_newer(self, run_folder: Path, *, than_step: int | None) -> bool:
        """Fetch the newest whole checkpoint where it is of a later step; return whether one came."""
        ...

    def refuse_another_run(self) -> None:
        """Raise `ConfigError` where a run is there already."""
        ...

    def clear(self) -> None:
        """Delete the run that is there."""
        ...


class ClaimedFolder:
    """A run's folder while its run lives; a context manager that claims it.

    A folder in which a run ended before its first checkpoint holds nothing to lose, and is begun in anew.

    Args:
        path: The folder; made if need be.
        resume: A run is there, or elsewhere, and goes on.
        restart: A run that is there is deleted, and its copy elsewhere: their own files, and nothing else.
        resume_or_start: A run goes on where there is one, and begins where there is none.
        elsewhere: Where a copy of the run may be; None looks nowhere.

    Raises (when entered):
        ConfigError: Where a run is there and none of them is asked for, or two are, or none is there to go on, or
            another process has it.
        StateError: Where no checkpoint can be used.
        DiskError: Where the folder cannot be made or written to.
    """

    def __init__(
        self,
        path: Path,
        *,
        resume: bool,
        restart: bool,
        resume_or_start: bool = False,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        asked = {"--resume": resume, "--restart": restart, "--resume-or-start": resume_or_start}
        if sum(asked.values()) > 1:
            names = " and ".join(name for name, wanted in asked.items() if wanted)
            raise ConfigError(f"{names} contradict each other", "choose one of them")
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.indexes = path / "indexes"
        self.checkpoint: Checkpoint | None = None
        """The one that the run goes on from; None where it begins."""
        self._resume = resume
        self._restart = restart
        self._resume_or_start = resume_or_start
        self._elsewhere = elsewhere
        self._made: list[Path] = []
        self._descriptor = -1
        self._new_files: tuple[str, ...] = ()
        """Names that were free when a run began here: what bears them since is its own."""

    def __enter__(self) -> Self:
        if self._resume and self._elsewhere is None and not self.checkpoints.is_dir():
            raise ConfigError(f"{self.path} holds no run that could go on", "start it without --resume")
        try:
            self._make()
            self._lock()
            self._sweep()
            if self._resume or self._resume_or_start:
                self.checkpoint = self._newest_checkpoint()
            if self.checkpoint is None:
                self._begin_anew()
        except BaseException as error:
            self.put_back()
            self._unlock()
            if isinstance(error, OSError) and not isinstance(error, DiskError):
                raise DiskError(
                    f"the run folder {self.path} cannot be used: {error.strerror or error}",
                    "choose another run_dir, or check its permissions",
                ) from error
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._unlock()

    def put_back(self) -> None:
        """Delete the small files of a run that never began, and the folders that were made for it; others stay."""
        for name in self._new_files:
            (self.path / name).unlink(missing_ok=True)
        for folder in reversed(self._made):
            # Fails where somebody has put something into it meanwhile.
            with contextlib.suppress(OSError):
                folder.rmdir()

    # ------------------------------------------------------------------ inside

    def _make(self) -> None:
        missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            self._made.append(folder)
        if not self.path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))

    def _lock(self) -> None:
        self._descriptor = _lock(self.path)

    def _unlock(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _sweep(self) -> None:
        for entry in self.path.iterdir():
            if _OUR_PARTIAL.match(entry.name) and entry.is_file():
                entry.unlink()

    def _newest_checkpoint(self) -> Checkpoint | None:
        try:
            checkpoint = load_newest(self.checkpoints)
        except StateError:
            if self._elsewhere is None or not self._elsewhere.fetch_newer(self.path, than_step=None):
                raise
            checkpoint = load_newest(self.checkpoints)
        else:
            step = None if checkpoint is None else checkpoint.step
            if self._elsewhere is not None and self._elsewhere.fetch_newer(self.path, than_step=step):
                checkpoint = load_newest(self.checkpoints)
        if checkpoint is None and self._resume:
            raise StateError(
                f"{self.checkpoints} holds no checkpoint to go on from: the run ended before its first one",
                "start it without --resume",
            )
        return checkpoint

    def _begin_anew(self) -> None:
        ours = [entry for entry in self._checkpoint_folders() if _OUR_CHECKPOINT.match(entry.name)]
        if any(not entry.name.startswith(".") for entry in ours) and not self._restart:
            raise ConfigError(
                f"a run is in {self.path} already",
                "go on with --resume, delete it with --restart, or choose another run_dir",
            )
        if self._elsewhere is not None:
            if self._restart:
                self._elsewhere.clear()
            elif not self._resume_or_start:
                self._elsewhere.refuse_another_run()
        config = self.path / CONFIG_FILE
        if config.exists() and not config.read_bytes().startswith(CONFIG_HEADER.encode()):
            raise ConfigError(
                f"{config} is not of a run, and a run here would write its own over it",
                "move it elsewhere, or choose another run_dir",
            )
        for name in (EVENTS_FILE, TOTALS_FILE, REPORT_FILE):
            (self.path / name).unlink(missing_ok=True)
        for entry in ours:
            shutil.rmtree(entry)
        IndexStore(self.indexes).clear()
        # An earlier run's configuration may be the very one that this run was started with.
        self._new_files = tuple(name for name in _OUR_FILES if not (self.path / name).exists())

    def _checkpoint_folders(self) -> list[Path]:
        return sorted(self.checkpoints.iterdir()) if self.checkpoints.is_dir() else []
