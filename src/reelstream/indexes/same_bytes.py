"""Members of several archives that have the very same bytes, as far as their indexes tell: nothing is read for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from reelstream.archive import ArchiveIndex, MemberKind
from reelstream.archive.seek.row_kinds import DIGEST_BYTES, DigestKind
from reelstream.types import Archive


class NamedMember(NamedTuple):
    """A member, by its names only."""

    archive: Archive
    name: str
    """As packed."""


def same_bytes(indexes: Sequence[tuple[Archive, ArchiveIndex]]) -> list[list[NamedMember]]:
    """Return groups of two or more members of equal size and digest, in the order of the archives.

    Members without a digest and empty ones are in no group. Zips know a CRC only: it tells accidents from one another,
    and together with the size hardly ever calls two different videos the same.
    """
    keys = [_keys(index) for _, index in indexes]
    if not keys:
        return []
    together = np.concatenate(keys)
    _, group_of, sizes = np.unique(together, axis=0, return_inverse=True, return_counts=True)
    group_of = group_of.reshape(-1)
    (places,) = np.nonzero((sizes[group_of] > 1) & (together[:, 0] > 0))
    ends = np.cumsum([len(of) for of in keys])
    groups: dict[int, list[NamedMember]] = {}
    for place in places.tolist():
        number = int(np.searchsorted(ends, place, side="right"))
        archive, index = indexes[number]
        row = place - int(ends[number]) + len(index)
        groups.setdefault(int(group_of[place]), []).append(NamedMember(archive, index.name(row)))
    return list(groups.values())


def _keys(index: ArchiveIndex) -> npt.NDArray[np.uint64]:
    """Return (size, kind of digest, digest) of what each row's member holds; the size 0 where nobody can tell."""
    columns = index.columns
    digests = np.frombuffer(columns.digests, np.uint64).reshape(len(index), DIGEST_BYTES // 8)
    sizes = np.where(columns.digest_kinds == DigestKind.NONE, 0, columns.sizes).astype(np.uint64)
    keys = np.column_stack([sizes, columns.digest_kinds.astype(np.uint64), digests])
    for link in np.nonzero(columns.kinds == MemberKind.HARD_LINK)[0].tolist():
        held = index.holding(link)
        keys[link] = 0 if held is None else keys[held]
    return keys
