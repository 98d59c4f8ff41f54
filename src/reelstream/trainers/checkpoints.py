r"""A trainer's checkpoint folders: which are whole, which one to resume from, which to delete.

```
OUTPUT/checkpoint-120/
├── model.safetensors, optimizer.pt, trainer_state.json, ...   the trainer's
├── reelstream.json             the data state of all ranks
└── reelstream.manifest.json    version, step, and the size of each file; written last
```

All files are forced to disk before the manifest is, and the manifest before an older checkpoint goes. So a folder
without it, or with a file of another size, was cut short by a kill and is never resumed from.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelstream.cache.budget import BLOCK_BYTES, allocated_bytes
from reelstream.durable import force_to_disk
from reelstream.errors import StateError
from reelstream.units import count

VERSION = 1
DATA_STATE = "reelstream.json"
MANIFEST = "reelstream.manifest.json"
_FOLDER = re.compile(r"^checkpoint-(\d+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a whole checkpoint says of itself."""

    step: int
    first_epoch: int
    """The dataset's epoch that the run began with."""
    epoch_step: int
    """Steps that were made in the epoch that runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The checkpoint folders below a trainer's output folder."""

    whole: dict[int, Path]
    """By step."""
    torn: dict[int, str]
    """Why each of the others cannot be used, by step."""


def survey(output: Path) -> Survey:
    """Look at all checkpoint folders."""
    whole: dict[int, Path] = {}
    torn: dict[int, str] = {}
    for step, folder in _folders(output).items():
        try:
            read_manifest(folder)
        except StateError as error:
            torn[step] = error.fact
        else:
            whole[step] = folder
    return Survey(whole=whole, torn=torn)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a checkpoint whose files are what it says.

    Raises:
        StateError: Where it is not whole, or was not saved by an attached trainer.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["version"] != VERSION:
            raise StateError(
                f"{folder.name} has a manifest of version {manifest['version']}, this Reelstream reads {VERSION}",
                "resume with the Reelstream that saved it",
            )
        for name, size_bytes in manifest["files"].items():
            found_bytes = (folder / name).stat().st_size
            if found_bytes != size_bytes:
                raise StateError(f"{folder.name}/{name} has {found_bytes} of {size_bytes} bytes")
        return Manifest(step=manifest["step"], first_epoch=manifest["first_epoch"], epoch_step=manifest["epoch_step"])
    except FileNotFoundError as error:
        if not folder.is_dir():
            raise StateError(f"there is no checkpoint {folder}", "name one, or True for the newest") from error
        name = Path(error.filename).name
        why = "its save was cut short, or no attached trainer made it" if name == MANIFEST else "it is not whole"
        raise StateError(f"{folder.name} has no {name}: {why}", "resume from another checkpoint") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, StateError):
            raise
        raise StateError(f"{folder.name} cannot be read: {error}", "resume from another checkpoint") from error


def read_data_state(folder: Path) -> dict[str, Any]:
    """Return the data state that a whole checkpoint holds."""
    state: dict[str, Any] = json.loads((folder / DATA_STATE).read_text(encoding="utf-8"))
    return state


def newest_of_all(whole_by_rank: Sequence[Sequence[int]]) -> int | None:
    """Return the newest step that is whole for each rank; None where there is none.

    Args:
        whole_by_rank: Steps; ranks on other nodes may have disks of their own.
    """
    common = set(whole_by_rank[0]).intersection(*whole_by_rank[1:])
    return max(common, default=None)


def none_whole(output: Path, torn: dict[int, str]) -> StateError:
    """Return what to say where there is nothing to resume from."""
    if not torn:
        return StateError(
            f"there is no checkpoint in {output} to resume from", "leave resume_from_checkpoint out for the first start"
        )
    return StateError(
        f"no checkpoint in {output} can be resumed from: {'; '.join(torn[step] for step in sorted(torn))}",
        f"delete {count(len(torn), 'folder')} and start anew",
    )


def clear(folder: Path) -> None:
    """Remove what a run left at this step before, manifest first, and make the folder."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)


def write_data_state(folder: Path, state: dict[str, Any]) -> None:
    """Put the data state into a checkpoint that is being written."""
    (folder / DATA_STATE).write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")


def seal(folder: Path, manifest: Manifest) -> None:
    """Make a checkpoint durable, and whole by its manifest, which is written last."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    for path in files:
        force_to_disk(path)
    for path in {path.parent for path in files}:
        force_to_disk(path)
    contents = {
        "version": VERSION,
        "step": manifest.step,
        "first_epoch": manifest.first_epoch,
        "epoch_step": manifest.epoch_step,
        "files": {path.relative_to(folder).as_posix(): path.stat().st_size for path in files},
    }
    partial = folder / f"{MANIFEST}.partial"
    partial.write_text(json.dumps(contents, indent=1), encoding="utf-8")
    force_to_disk(partial)
    partial.replace(folder / MANIFEST)
    force_to_disk(folder)
    force_to_disk(folder.parent)


def superfluous(found: Survey, *, newest: int, limit: int, best: int | None) -> list[int]:
    """Return the steps to delete once the newest checkpoint is durable, until no more than `limit` are left.

    Those that were cut short go first, then those of later steps, which are of a future given up; then the oldest.

    Args:
        found: All folders.
        newest: The step that was just saved; stays.
        limit: How many stay.
        best: The step of the best model; stays, also beyond the limit.
    """
    others = (found.whole.keys() | found.torn.keys()) - {newest, best}
    order = sorted(others, key=lambda step: (step not in found.torn, step < newest, step))
    num_kept = max(0, limit - len({newest, best} - {None}))
    return order[: max(0, len(others) - num_kept)]


def delete(output: Path, step: int) -> None:
    """Delete a checkpoint: its manifest first, so that a kill in the middle leaves nothing that looks whole."""
    folder = output / f"checkpoint-{step}"
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def sizes_on_disk(output: Path) -> dict[int, int]:
    """Return the bytes that each checkpoint folder takes, by step."""
    return {step: folder_size_bytes(folder) for step, folder in _folders(output).items()}


def folder_size_bytes(folder: Path) -> int:
    """Return the bytes on disk of a folder and all below it."""
    paths = list(folder.rglob("*"))
    files = sum(allocated_bytes(path.stat().st_size) for path in paths if path.is_file())
    return files + BLOCK_BYTES * (1 + sum(path.is_dir() for path in paths))


def step_of(folder: str | None) -> int | None:
    """Return the step that a checkpoint folder's name tells; None where there is none."""
    match = _FOLDER.match(Path(folder).name) if folder else None
    return int(match.group(1)) if match else None


def _folders(output: Path) -> dict[int, Path]:
    if not output.is_dir():
        return {}
    matches = ((_FOLDER.match(entry.name), entry) for entry in output.iterdir() if entry.is_dir())
    return {int(match.group(1)): entry for match, entry in matches if match}
