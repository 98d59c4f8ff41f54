"""What is known of archives, taken from one store into another: beside a checkpoint, and back from there."""

from __future__ import annotations

from collections.abc import Iterable

from reelstream.indexes.store import IndexStore
from reelstream.types import Archive


def copy_known(source: IndexStore, target: IndexStore, archives: Iterable[Archive], *, with_cuts: bool) -> bool:
    """Copy what `target` lacks; return whether it has now all that `source` knows of these archives.

    Args:
        source: Where indexes are found.
        target: Where they are kept.
        archives: Those that matter.
        with_cuts: Whether learned cuts matter too, which parts of archives are known by.

    Raises:
        DiskError: Where they cannot be written.
    """
    has_all = True
    for archive in archives:
        index = source.find(archive)
        if index is not None and target.find(archive) is None:
            has_all &= target.save(index)
        if with_cuts:
            for cut in source.cuts(archive):
                known = target.find_cut(archive, cut.first_byte)
                if known is None or (known.report is None and cut.report is not None):
                    has_all &= target.save_cut(archive, cut)
    return has_all
