r"""Checkpoints: whole or invisible, inside the disk budget, and no pickle.

```
RUN/checkpoints/
├── step-00000123/
│   ├── model.safetensors        weights; with the small files beside it, a folder that `from_pretrained` reads
│   ├── config.json, tokenizer.json, ...
│   ├── optimizer.safetensors    \
│   ├── random.0.safetensors      } absent where only weights are saved; random.* one for each rank
│   ├── trainer.json             /
│   ├── data_state.json
│   └── manifest.json            version, step, and size and SHA-256 of each file; written last
└── .partial-step-00000123-*/    being written or being deleted; swept at the next start
```

A save writes into a folder of its own, forces each file to disk, renames the folder and forces the parent to disk. So
`step-*` is there with all its files or not at all, and an older one goes only when the newer one is durable.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from reelstream.cache.budget import BLOCK_BYTES, allocated_bytes
from reelstream.durable import force_to_disk
from reelstream.errors import DiskError, StateError
from reelstream.train.extra import require_train_extra
from reelstream.units import count, format_bytes

VERSION = 1
MANIFEST = "manifest.json"
_STEP_FOLDER = re.compile(r"^step-(\d{8,})$")
_PARTIAL_FOLDER = re.compile(r"^\.partial-step-\d{8,}-[0-9a-f]{8}$")


class DiskAllowance(Protocol):
    """Where the bytes of checkpoints are booked; a protocol because a run without a budget has nowhere to book them."""

    def reserve(self, size_bytes: int) -> None:
        """Book bytes before they are written; raise `BudgetTooSmallError` where they are not free."""
        ...

    def release(self, size_bytes: int) -> None:
        """Give back bytes booked before."""
        ...


class Unlimited:
    """A `DiskAllowance` that books nothing."""

    def reserve(self, size_bytes: int) -> None:
        """Do nothing."""

    def release(self, size_bytes: int) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointContents:
    """What is saved."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    """CPU tensors by file name, `*.safetensors`, and name."""
    files: Mapping[str, bytes]
    """Everything else, by file name."""

    @property
    def largest_size_bytes(self) -> int:
        """Bytes on disk that a save of this never exceeds."""
        sizes = [tensor_file_bytes(tensors) for tensors in self.tensors.values()]
        sizes += [len(contents) for contents in self.files.values()]
        return folder_bytes([*sizes, _manifest_bytes(len(sizes))])


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A durable checkpoint whose files are what its manifest says."""

    folder: Path
    step: int
    file_names: frozenset[str]

    def json(self, file_name: str) -> Any:
        """Return the value in one of its JSON files."""
        return json.loads((self.folder / file_name).read_text(encoding="utf-8"))

    def tensors(self, file_name: str) -> dict[str, Tensor]:
        """Return the tensors in one of its safetensors files, on the CPU."""
        from safetensors.torch import load_file  # noqa: PLC0415 - an optional dependency

        return dict(load_file(self.folder / file_name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A save that is durable."""

    step: int
    folder: Path
    size_bytes: int
    """On disk."""


def tensor_file_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return bytes that a safetensors file of these never exceeds."""
    # The header names each tensor with type, shape and two offsets, and is padded to 8 bytes.
    header = sum(len(name.encode()) + 22 * (tensor.dim() + 2) + 64 for name, tensor in tensors.items())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) + header + 64


def folder_bytes(sizes: list[int]) -> int:
    """Return bytes on disk of a folder with files of these sizes."""
    return BLOCK_BYTES + sum(allocated_bytes(size) for size in sizes)


def _manifest_bytes(num_files: int) -> int:
    return 200 + 200 * num_files


class CheckpointStore:
    """The checkpoints of one run, with one writer.

    Args:
        folder: `RUN/checkpoints`; made by `open`.
        keep: How many stay. With 1, the newest is not deleted for one that is `held`: then there are two.
        allowance: Where their bytes are booked, those being written included.
        on_saved: Called once a save is durable, in the thread that saves.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        allowance: DiskAllowance | None = None,
        on_saved: Callable[[Saved], None] | None = None,
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._allowance = allowance or Unlimited()
        self._on_saved = on_saved
        self._size_bytes: dict[int, int] = {}
        self._lock = threading.Lock()  # of what is held and of deleting
        self._held: set[int] = set()

    def open(self) -> None:
        """Make the folder, sweep what a killed run left half written, and book what is there.

        Raises:
            BudgetTooSmallError: Where what is there does not fit.
            DiskError: Where the folder cannot be made.
        """
        require_train_extra("safetensors")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            sweep_partial_folders(self._folder)
        except OSError as error:
            raise DiskError(
                f"{self._folder} cannot be used for checkpoints: {error}", "choose another folder"
            ) from error
        for step, folder in step_folders(self._folder).items():
            self._size_bytes[step] = _size_on_disk(folder)
            self._allowance.reserve(self._size_bytes[step])

    @property
    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, ascending."""
        return sorted(self._size_bytes)

    def save(self, contents: CheckpointContents) -> Saved:
        """Make a checkpoint durable, then delete those beyond `keep`, the oldest first, and those of later steps.

        Later steps are there where a run goes on from before a damaged checkpoint: they are of a future given up.

        Raises:
            BudgetTooSmallError: Where it does not fit beside those that are there; nothing was written.
            DiskError: Where the disk refused; nothing is left of it.
        """
        from safetensors import SafetensorError  # noqa: PLC0415 - an optional dependency

        reserved_bytes = contents.largest_size_bytes
        self._allowance.reserve(reserved_bytes)
        partial = partial_folder(self._folder, contents.step)
        target = self._folder / step_name(contents.step)
        try:
            _write_folder(partial, contents)
            size_bytes = _size_on_disk(partial)
            assert size_bytes <= reserved_bytes, f"a checkpoint of {size_bytes} bytes was booked as {reserved_bytes}"
            if target.exists():
                # A run that went on from an older checkpoint comes by here again.
                self._delete(contents.step)
            partial.rename(target)
            force_to_disk(self._folder)
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            self._allowance.release(reserved_bytes)
            if isinstance(error, OSError | SafetensorError):
                raise DiskError(
                    f"the checkpoint of step {contents.step} cannot be written to {self._folder}: {error}",
                    f"free {format_bytes(reserved_bytes)} on that disk; older checkpoints are untouched",
                ) from error
            raise
        self._allowance.release(reserved_bytes - size_bytes)
        self._size_bytes[contents.step] = size_bytes
        with self._lock:
            for step in _superfluous(self.steps, contents.step, self._keep, self._held):
                self._delete(step)
        saved = Saved(step=contents.step, folder=target, size_bytes=size_bytes)
        if self._on_saved is not None:
            self._on_saved(saved)
        return saved

    @contextlib.contextmanager
    def held(self, step: int) -> Iterator[Path | None]:
        """Keep a checkpoint from being deleted as long as the block runs, in any thread; one at a time.

        It counts among those that stay, so that no more room is taken.

        Yields:
            Its folder; None where it is gone already.
        """
        with self._lock:
            present = step in self._size_bytes
            if present:
                self._held.add(step)
        try:
            yield self._folder / step_name(step) if present else None
        finally:
            with self._lock:
                self._held.discard(step)

    def _delete(self, step: int) -> None:
        # Out of sight first: killed in the middle, it must not look like a checkpoint that lacks files.
        hidden = partial_folder(self._folder, step)
        (self._folder / step_name(step)).rename(hidden)
        shutil.rmtree(hidden)
        self._allowance.release(self._size_bytes.pop(step))


def step_name(step: int) -> str:
    """Return the name of a checkpoint's folder."""
    return f"step-{step:08d}"


def partial_folder(parent: Path, step: int) -> Path:
    """Return a new name in `parent` for a checkpoint that is being written or deleted."""
    return parent / f".partial-{step_name(step)}-{secrets.token_hex(4)}"


def sweep_partial_folders(parent: Path) -> None:
    """Delete what was left half written, or half deleted.

    Raises:
        OSError: Where it cannot be deleted, or `parent` not be listed.
    """
    for entry in parent.iterdir():
        if _PARTIAL_FOLDER.match(entry.name):
            shutil.rmtree(entry)


def _superfluous(steps: list[int], newest: int, keep: int, held: Collection[int] = ()) -> list[int]:
    """Return the steps to delete once `newest` is durable."""
    kept = {newest, *held}
    earlier = [step for step in reversed(steps) if step < newest and step not in kept]
    kept.update(earlier[: max(0, keep - len(kept))])
    return [step for step in steps if step not in kept]


def load_newest(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint whose files are what its manifest says; None where there is none at all.

    A damaged one is passed over for the one before it.

    Raises:
        StateError: Where there are checkpoints, and all are damaged.
    """
    require_train_extra("safetensors")
    steps = step_folders(folder)
    reasons = []
    for step in sorted(steps, reverse=True):
        try:
            return verified(steps[step], step)
        except StateError as error:
            reasons.append(error.fact)
    if reasons:
        raise StateError(
            f"no checkpoint in {folder} can be used: {'; '.join(reasons)}",
            f"delete the {count(len(reasons), 'damaged one')} and start anew",
        )
    return None


def step_folders(folder: Path) -> dict[int, Path]:
    """Return the folders of checkpoints in `folder` by step; none where there is no such folder."""
    if not folder.is_dir():
        return {}
    matches = ((_STEP_FOLDER.match(entry.name), entry) for entry in folder.iterdir())
    return {int(match.group(1)): entry for match, entry in matches if match}


def verified(folder: Path, step: int) -> Checkpoint:
    """Return the checkpoint in a folder, all of it compared with its manifest.

    Raises:
        StateError: Where anything of it is missing, or is not what was saved.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["version"] != VERSION:
            raise StateError(f"{folder.name} has version {manifest['version']}, this Reelstream reads {VERSION}")
        for name, expected in manifest["files"].items():
            if Path(name).name != name:
                raise StateError(f"{folder.name} names a file outside itself: {name}")
            if _digest(folder / name) != expected:
                raise StateError(f"{folder.name}/{name} is not what was saved")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, StateError):
            raise
        raise StateError(f"{folder.name} is damaged: {error}") from error
    return Checkpoint(folder=folder, step=step, file_names=frozenset(manifest["files"]))


def _write_folder(folder: Path, contents: CheckpointContents) -> None:
    from safetensors.torch import save_file  # noqa: PLC0415 - an optional dependency

    folder.mkdir()
    for name, tensors in contents.tensors.items():
        # The format's own entry, so that from_pretrained takes the file.
        save_file(dict(tensors), folder / name, metadata={"format": "pt"})
        force_to_disk(folder / name)
    for name, data in contents.files.items():
        _write_file(folder / name, data)
    files = {name: _digest(folder / name) for name in sorted([*contents.tensors, *contents.files])}
    manifest = {"version": VERSION, "step": contents.step, "files": files}
    _write_file(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
    force_to_disk(folder)


def _digest(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        return {"size_bytes": file.stat().st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def _write_file(file: Path, data: bytes) -> None:
    with file.open("xb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())


def _size_on_disk(folder: Path) -> int:
    return folder_bytes([entry.stat().st_size for entry in folder.iterdir()])
