"""All clips and samples of the chosen subsets, as one numbered whole."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Self

import numpy as np

from reelstream.catalog.build import OpenFile, build_subset
from reelstream.catalog.format import fingerprint_of, folder_name
from reelstream.catalog.layout import SubsetLayout
from reelstream.catalog.split import BoolArray, Split, taken_clips
from reelstream.catalog.storage import Reserve, size_on_disk
from reelstream.catalog.subset import SubsetCatalog, open_subset
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import Notice
from reelstream.types import Annotation, ClipRecord, Int64Array


class SampleSource(NamedTuple):
    """Where a sample was published: what digests and messages name it by."""

    subset: str
    file: str
    """The annotation file's path in the repository."""
    row: int
    """Row in that file, from 0."""


class Catalog:
    """Clips and samples of some subsets, concatenated in the order given; memory-mapped, nothing held.

    Clips are numbered 0 to `num_clips - 1`, samples 0 to `num_samples - 1`; those of a subset are neighbours, and so
    are the samples of a clip. May be used by several threads at once. Use `open_catalog` or `prepare_catalog` to get
    one, as a context manager or with `close`.

    A catalog may be one side of a split (`on_side`): clips and samples then keep their numbers, but those of the other
    side are not found in archives, and are counted nowhere but in `num_clips` and `num_samples`.

    Attributes:
        fingerprint: SHA-256 over what the catalog is made from: format version, commit, subsets, kinds, and the
            annotation files' paths, sizes and digests. What saved states are compared by.
        num_clips: Clips that samples refer to, those of the other side included.
        num_samples: Samples, those of the other side included.
        taken: Which clips are on this side of the split, num_clips; None where there is no split.
        subsets: Their names, in order.
        left_out: Rows of the annotation files that are no samples, by reason.
        sample_counts: Samples of each clip, int64, num_clips.
    """

    def __init__(self, subsets: Sequence[SubsetCatalog], telemetry: Telemetry, taken: BoolArray | None = None) -> None:
        self._subsets = tuple(subsets)
        self.taken = taken
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._told: set[str] = set()
        self._number_of = {subset.name: number for number, subset in enumerate(subsets)}
        self._first_clips = _starts([subset.num_clips for subset in subsets])
        self._first_rows = _starts([subset.num_samples for subset in subsets])
        self.subsets: tuple[str, ...] = tuple(subset.name for subset in subsets)
        self.num_clips = int(self._first_clips[-1])
        self.num_samples = int(self._first_rows[-1])
        self.fingerprint = fingerprint_of([subset.header.identity for subset in subsets])
        left_out: Counter[str] = Counter()
        for subset in subsets:
            left_out.update(subset.header.left_out)
        self.left_out: Mapping[str, int] = MappingProxyType(dict(left_out))
        self.sample_counts: Int64Array = np.concatenate(
            [np.diff(subset.first_samples) for subset in subsets] or [np.zeros(0)]
        ).astype(np.int64)

    def on_side(self, split: Split) -> Catalog:
        """Return the same catalog as one side of a split sees it; it shares the mapped files.

        Raises:
            ConfigError: Where a side of the split would be empty.
        """
        if split.side == "all":
            return Catalog(self._subsets, self._telemetry)
        paths = (path for subset in self._subsets for path in subset.paths())
        return Catalog(self._subsets, self._telemetry, taken_clips(split, paths, self.sample_counts))

    def takes(self, clip: int) -> bool:
        """Return whether a clip is on this side of the split."""
        return self.taken is None or bool(self.taken[clip])

    @property
    def num_taken_clips(self) -> int:
        """Clips on this side of the split."""
        return self.num_clips if self.taken is None else int(self.taken.sum())

    @property
    def num_taken_samples(self) -> int:
        """Samples on this side of the split."""
        return self.num_samples if self.taken is None else int(self.sample_counts[self.taken].sum())

    @property
    def size_bytes(self) -> int:
        """Bytes that the catalog takes on disk, in whole blocks."""
        return sum(size_on_disk(subset.folder) for subset in self._subsets)

    def find(self, subset: str, member_name: str) -> int | None:
        """Return the number of the clip that an archive's member is, None where no sample on this side refers to it.

        Names agree exactly once normalised (`./`, double slashes); else one is the end of the other, on a folder's
        border, with at least one folder, and of one clip only: then a notice is given, once a subset. The bare file
        name is never enough.
        """
        number = self._number_of[subset]
        found = self._subsets[number].find(member_name)
        if found is None:
            return None
        clip = int(self._first_clips[number]) + found.clip
        if not self.takes(clip):
            return None
        if not found.is_exact:
            self._tell_once(subset, member_name, clip)
        return clip

    def _tell_once(self, subset: str, member_name: str, clip: int) -> None:
        with self._lock:
            if subset in self._told:
                return
            self._told.add(subset)
        self._telemetry.emit(
            Notice(
                message=f"{subset}: archives and annotations name files differently; {member_name!r} is taken for "
                f"{self.clip(clip).path!r}, since the ends agree. Others are matched in the same way."
            )
        )

    def clip(self, clip: int) -> ClipRecord:
        """Return what is known of a clip."""
        subset, local = self._subset_at(clip)
        return ClipRecord(
            clip=clip, subset=subset.name, path=subset.path(local), num_samples=int(self.sample_counts[clip])
        )

    def subset_of(self, clip: int) -> str:
        """Return the name of the subset that a clip belongs to."""
        return self._subset_at(clip)[0].name

    def num_samples_of(self, clip: int) -> int:
        """Return how many samples a clip has; at least one."""
        return int(self.sample_counts[clip])

    def samples_of(self, clip: int) -> range:
        """Return the samples of a clip: by kind as asked for, then as published."""
        number, local = _place(self._first_clips, clip)
        first = int(self._first_rows[number])
        starts = self._subsets[number].first_samples
        return range(first + int(starts[local]), first + int(starts[local + 1]))

    def clip_of(self, row: int) -> int:
        """Return the clip that a sample belongs to."""
        number, local = _place(self._first_rows, row)
        return int(self._first_clips[number]) + self._subsets[number].clip_of(local)

    def annotation(self, row: int) -> Annotation:
        """Read one sample; only its own text is decompressed.

        Raises:
            DiskError: The text on disk is damaged.
        """
        number, local = _place(self._first_rows, row)
        subset = self._subsets[number]
        sample = subset.sample(local)
        return Annotation(
            row=row,
            id=sample.id,
            clip=int(self._first_clips[number]) + subset.clip_of(local),
            kind=subset.header.identity["annotations"][sample.file]["kind"],
            conversations=sample.conversations,
        )

    def source_of(self, row: int) -> SampleSource:
        """Return where a sample was published."""
        number, local = _place(self._first_rows, row)
        subset = self._subsets[number]
        file, row_in_file = subset.source_of(local)
        return SampleSource(subset.name, subset.header.identity["annotations"][file]["path"], row_in_file)

    def clips_of(self, subset: str) -> range:
        """Return the clips of a subset."""
        number = self._number_of[subset]
        return range(int(self._first_clips[number]), int(self._first_clips[number + 1]))

    def clips_in(self, subset: str) -> int:
        """Return how many clips a subset has on this side of the split."""
        clips = self.clips_of(subset)
        return len(clips) if self.taken is None else int(self.taken[clips.start : clips.stop].sum())

    def samples_in(self, subset: str) -> int:
        """Return how many samples a subset has on this side of the split."""
        if self.taken is None:
            return self._subsets[self._number_of[subset]].num_samples
        clips = slice(self.clips_of(subset).start, self.clips_of(subset).stop)
        return int(self.sample_counts[clips][self.taken[clips]].sum())

    def close(self) -> None:
        """Let go of the mapped files; the catalog cannot be used afterwards."""
        self._subsets = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _subset_at(self, clip: int) -> tuple[SubsetCatalog, int]:
        number, local = _place(self._first_clips, clip)
        return self._subsets[number], local


def open_catalog(folders: Sequence[Path], *, telemetry: Telemetry | None = None) -> Catalog:
    """Open the catalogs in `folders` as one, in this order; needs neither the network nor their layouts.

    Args:
        folders: One a subset, as `build_subset` left them.
        telemetry: Where notices go.

    Raises:
        DiskError: A folder holds no whole catalog of this version.
    """
    return Catalog([open_subset(folder) for folder in folders], telemetry or Telemetry())


def prepare_catalog(
    layouts: Sequence[SubsetLayout],
    parent: Path,
    *,
    open_file: OpenFile,
    reserve: Reserve,
    progress: Callable[[int], None] | None = None,
    telemetry: Telemetry | None = None,
) -> Catalog:
    """Open the catalog of `layouts`, building in `parent` what is not there yet.

    Each subset has a folder of its own there, named by commit, kinds and format version among others, so that a
    stale one is never taken. A complete one is opened as it is, without the network; a torn one is built again.

    Args:
        layouts: The subsets, in order; see `select_subsets`.
        parent: The folder that holds the subsets' folders; made if need be.
        open_file: As for `build_subset`.
        reserve: As for `build_subset`.
        progress: As for `build_subset`.
        telemetry: Where notices go.

    Raises:
        AnnotationError, DiskError: As `build_subset`; subsets that were completed before stay, and stay reserved.
    """
    folders = [catalog_folder(layout, parent) for layout in layouts]
    for layout, folder in zip(layouts, folders, strict=True):
        build_subset(layout, folder, open_file=open_file, reserve=reserve, progress=progress)
    return open_catalog(folders, telemetry=telemetry)


def catalog_folder(layout: SubsetLayout, parent: Path) -> Path:
    """Return where `prepare_catalog` keeps the catalog of `layout`."""
    return parent / folder_name(layout)


def _starts(counts: Sequence[int]) -> Int64Array:
    return np.cumsum([0, *counts], dtype=np.int64)


def _place(starts: Int64Array, number: int) -> tuple[int, int]:
    """Return the subset that a number falls in, and what remains of the number."""
    if not 0 <= number < starts[-1]:
        raise IndexError(f"{number} is not in 0 to {int(starts[-1]) - 1}")
    place = int(np.searchsorted(starts, number, side="right")) - 1
    return place, number - int(starts[place])
