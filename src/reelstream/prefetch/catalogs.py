"""The catalogs of a run on disk: its own are counted and held, others that nobody holds are removed.

```
CACHE_DIR/catalog/
├── <subset>-<16 hex digits>/   of this run: clips.arrow is locked (shared) while it is open
└── <subset>-<16 hex digits>/   of another commit or selection: removed before the first clip, unless it is held
```

They are caches, and can be built again; but a byte on disk is a byte of the budget, and a clip budget that depended on
what earlier runs left would cut other windows, and so give another order, on one machine than on another. They go only
when clips come, so that a run which opens several datasets finds them all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from reelstream.cache import DiskBudget
from reelstream.catalog import Catalog, OpenFile, SubsetLayout, build_subset, catalog_folder, open_catalog
from reelstream.catalog.format import CLIPS_FILE, SAMPLES_FILE
from reelstream.catalog.storage import remove_leftovers, size_on_disk
from reelstream.telemetry import Telemetry

_OUR_FOLDER = re.compile(r"^.+-[0-9a-f]{16}$")


@contextlib.contextmanager
def opened_catalog(
    layouts: Sequence[SubsetLayout],
    parent: Path,
    *,
    budget: DiskBudget,
    open_file: OpenFile,
    progress: Callable[[int], None] | None,
    telemetry: Telemetry,
) -> Iterator[Catalog]:
    """Build what is missing of the catalog in `parent`, hold it, and open it.

    What it takes on disk is reserved in an account for each subset, and stays reserved when the block ends, since the
    files stay: whoever opens them next in the same budget has them counted once.

    Args:
        layouts: The subsets, in order.
        parent: The folder that holds the subsets' folders.
        budget: Where their bytes are reserved.
        open_file: Gives an annotation file's bytes.
        progress: Called with the bytes of annotations that were just read.
        telemetry: Where notices go.

    Raises:
        AnnotationError: Where the annotations are not what the format says.
        BudgetTooSmallError: Where they do not fit.
        DiskError: Where the folder cannot be used.
    """
    folders = [catalog_folder(layout, parent) for layout in layouts]
    with contextlib.ExitStack() as stack:
        for layout, folder in zip(layouts, folders, strict=True):
            held = False
            while not held:
                with _reservation(folder, budget, keep=folders) as reserve:
                    build_subset(layout, folder, open_file=open_file, reserve=reserve, progress=progress)
                # Between the two another start may have taken it for one that nobody holds.
                held = stack.enter_context(_hold(folder))
        yield stack.enter_context(open_catalog(folders, telemetry=telemetry))


@contextlib.contextmanager
def _reservation(folder: Path, budget: DiskBudget, *, keep: Sequence[Path]) -> Iterator[Callable[[int], None]]:
    """Give a way to reserve what a catalog takes, in place of what is reserved for it; errors release all of it."""
    account = budget.account(_account_name(folder))
    account.resize(0)
    others_bytes = sum(_size_bytes(other) for other in _others(folder.parent, keep))

    def reserve(size_bytes: int) -> None:
        nonlocal others_bytes
        if others_bytes and budget.used_bytes + others_bytes + size_bytes > budget.total_bytes:
            remove_unused(folder.parent, budget=budget, keep=keep)
            others_bytes = 0
        account.reserve(size_bytes)

    try:
        yield reserve
    except BaseException:
        account.resize(0)
        raise


def remove_unused(parent: Path, *, budget: DiskBudget, keep: Sequence[Path]) -> None:
    """Remove the catalogs in `parent` that nobody builds or holds, those to keep apart, with what is reserved for them.

    Only files of a catalog's names are deleted; a folder that holds anything else stays, with that in it.
    """
    for folder in _others(parent, keep):
        if _remove(folder):
            budget.account(_account_name(folder)).resize(0)


def _others(parent: Path, keep: Sequence[Path]) -> list[Path]:
    if not parent.is_dir():
        return []
    return [
        entry
        for entry in sorted(parent.iterdir())
        if entry not in keep and _OUR_FOLDER.match(entry.name) and entry.is_dir() and not entry.is_symlink()
    ]


def _size_bytes(folder: Path) -> int:
    try:
        return size_on_disk(folder)
    except OSError:  # it is being removed by somebody else
        return 0


def _remove(folder: Path) -> bool:
    """Remove a catalog; return False where somebody builds or holds it, or it cannot be removed."""
    with contextlib.suppress(OSError), _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
        clips = folder / CLIPS_FILE
        held = _locked(clips, fcntl.LOCK_EX | fcntl.LOCK_NB) if clips.exists() else contextlib.nullcontext()
        with held:
            # In this order: without its clips a catalog counts as torn.
            clips.unlink(missing_ok=True)
            (folder / SAMPLES_FILE).unlink(missing_ok=True)
            remove_leftovers(folder)
        # Fails where somebody else's file is inside.
        with contextlib.suppress(OSError):
            folder.rmdir()
        return True
    return False


@contextlib.contextmanager
def _hold(folder: Path) -> Iterator[bool]:
    """Keep others from removing a catalog; give False where it is gone already."""
    clips = folder / CLIPS_FILE
    try:
        descriptor = os.open(clips, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield clips.exists() and os.path.samestat(clips.stat(), os.fstat(descriptor))
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(path: Path, operation: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def _account_name(folder: Path) -> str:
    return f"catalog {folder.name}"
