"""Checkpoints in a folder that is mounted from elsewhere: a network disk, or a cloud's drive."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from reelstream.cancel import Cancellation
from reelstream.durable import force_to_disk
from reelstream.train.checkpoints import (
    MANIFEST,
    partial_folder,
    step_folders,
    step_name,
    sweep_partial_folders,
)
from reelstream.train.remote.copying import chunks_of, disk_errors, replace_file, write_new
from reelstream.train.remote.remote import INDEXES, Bundle, Progress


class FolderRemote:
    """A `Remote` in a folder, with one writer.

    A checkpoint is copied under a name of its own, and renamed once all of it is durable.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __str__(self) -> str:
        return str(self._folder)

    def prepare(self, cancellation: Cancellation) -> None:
        """Make the folder, and sweep what a killed run left half copied."""
        cancellation.raise_if_cancelled()
        with self._errors("cannot be written to"):
            self._folder.mkdir(parents=True, exist_ok=True)
            sweep_partial_folders(self._folder)
            # Mounted without the right to write, it would be found out hours later.
            probe = partial_folder(self._folder, 0)
            probe.mkdir()
            probe.rmdir()

    def steps(self, cancellation: Cancellation) -> list[int]:
        """Return the steps of the checkpoints that are there, ascending."""
        cancellation.raise_if_cancelled()
        with self._errors("cannot be read"):
            self._folder.stat()
            return sorted(step for step, folder in step_folders(self._folder).items() if (folder / MANIFEST).is_file())

    def push(self, bundle: Bundle, *, keep: int, cancellation: Cancellation) -> None:
        """Copy a checkpoint, and delete those beyond `keep` and those of later steps."""
        with self._errors("cannot be written to"):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._copy_others(bundle, cancellation)
            self._copy_checkpoint(bundle, cancellation)
            steps = step_folders(self._folder)
            kept = sorted(step for step in steps if step <= bundle.step)[-keep:]
            for step in steps.keys() - {*kept}:
                self._delete(step)

    def fetch(self, step: int, target: Path, cancellation: Cancellation, progress: Progress) -> None:
        """Copy the files of a checkpoint into a new folder."""
        with self._errors("cannot be read"):
            target.mkdir(parents=True)
            for file in self._files(self._folder / step_name(step)):
                write_new(target / file.name, chunks_of(file), cancellation, progress)

    def checkpoint_bytes(self, step: int, cancellation: Cancellation) -> int:
        """Return the bytes that `fetch` writes."""
        cancellation.raise_if_cancelled()
        with self._errors("cannot be read"):
            return sum(file.stat().st_size for file in self._files(self._folder / step_name(step)))

    def fetch_others(self, run_folder: Path, cancellation: Cancellation) -> None:
        """Copy configuration and indexes into a run's folder."""
        with self._errors("cannot be read"):
            for file in (*self._files(self._folder, "config.yaml"), *self._files(self._folder / INDEXES)):
                replace_file(run_folder / file.relative_to(self._folder), chunks_of(file), cancellation)

    def clear(self, cancellation: Cancellation) -> None:
        """Delete the checkpoints, the indexes and the configuration."""
        cancellation.raise_if_cancelled()
        with self._errors("cannot be written to"):
            for step in step_folders(self._folder):
                self._delete(step)
            for file in (*self._files(self._folder, "config.yaml"), *self._files(self._folder / INDEXES)):
                file.unlink(missing_ok=True)

    # ------------------------------------------------------------------ inside

    def _copy_checkpoint(self, bundle: Bundle, cancellation: Cancellation) -> None:
        partial = partial_folder(self._folder, bundle.step)
        try:
            partial.mkdir()
            for name, file in bundle.checkpoint_files.items():
                write_new(partial / name, chunks_of(file), cancellation, lambda _: None)
            _try_to_force_to_disk(partial)
            if (self._folder / step_name(bundle.step)).exists():
                self._delete(bundle.step)
            partial.rename(self._folder / step_name(bundle.step))
            _try_to_force_to_disk(self._folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _copy_others(self, bundle: Bundle, cancellation: Cancellation) -> None:
        wanted = bundle.other_files
        for path, file in wanted.items():
            if _is_outdated(self._folder / path, file):
                replace_file(self._folder / path, chunks_of(file), cancellation)
        for file in self._files(self._folder / INDEXES):
            if file.relative_to(self._folder).as_posix() not in wanted:
                file.unlink(missing_ok=True)

    def _delete(self, step: int) -> None:
        # Out of sight first, as in the store of the run itself.
        hidden = partial_folder(self._folder, step)
        (self._folder / step_name(step)).rename(hidden)
        shutil.rmtree(hidden)

    @staticmethod
    def _files(folder: Path, pattern: str = "*") -> list[Path]:
        if not folder.is_dir():
            return []
        return sorted(file for file in folder.glob(pattern) if file.is_file() and not file.name.startswith("."))

    @contextlib.contextmanager
    def _errors(self, predicate: str) -> Iterator[None]:
        with disk_errors(f"{self._folder} {predicate}", "is it mounted, and is there room?"):
            yield


def _is_outdated(copy: Path, file: Path) -> bool:
    if not copy.is_file():
        return True
    there, here = copy.stat(), file.stat()
    return there.st_size != here.st_size or there.st_mtime_ns < here.st_mtime_ns


def _try_to_force_to_disk(folder: Path) -> None:
    # Some mounted drives cannot force a folder; its files are forced one by one.
    with contextlib.suppress(OSError):
        force_to_disk(folder)
