"""One subset's catalog, opened: mapped pages, and arithmetic on them."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zstandard

from reelstream.catalog.format import (
    CLIPS_FILE,
    SAMPLES_FILE,
    Header,
    identity_of,
    read_header,
)
from reelstream.catalog.layout import SubsetLayout
from reelstream.catalog.paths import folder_suffixes, normalise_path, path_hash
from reelstream.errors import DiskError
from reelstream.types import Conversation


class StoredSample(NamedTuple):
    """One row of `samples.arrow`, decoded."""

    file: int
    """Which annotation file of the subset."""
    row: int
    """Row in that file."""
    id: str
    conversations: Conversation


class FoundClip(NamedTuple):
    """A clip, and how a name led to it."""

    clip: int
    is_exact: bool
    """False where only the ends of the two paths agree."""


class SubsetCatalog:
    """The catalog of one subset. Clips and samples are numbered from 0; samples of a clip are neighbours.

    May be used by several threads at once. Use `open_subset` to get one.
    """

    def __init__(self, folder: Path, header: Header, clips: pa.RecordBatch, batches: Sequence[pa.RecordBatch]) -> None:
        self.folder = folder
        self.header = header
        self.name: str = header.identity["subset"]
        self.num_clips: int = clips.num_rows
        self.num_samples: int = header.num_samples
        self.first_samples: npt.NDArray[np.int32] = clips.column("samples").offsets.to_numpy()
        """Of each clip, and one past the last sample; num_clips + 1."""
        self._paths = clips.column("path")
        self._hashes: npt.NDArray[np.uint64] = clips.column("hash").to_numpy()
        self._places: npt.NDArray[np.int32] = clips.column("samples").values.to_numpy()
        self._batches = batches
        self._batch_ends = np.cumsum([batch.num_rows for batch in batches], dtype=np.int64)
        self._lock = threading.Lock()
        self._decompressors = [_decompressor(dictionary) for dictionary in header.dictionaries]
        self._suffixes: _SuffixIndex | None = None

    def path(self, clip: int) -> str:
        """The clip's normalised path."""
        path: str = self._paths[clip].as_py()
        return path

    def paths(self) -> list[str]:
        """The normalised paths of all clips, in their order."""
        paths: list[str] = self._paths.to_pylist()
        return paths

    def clip_of(self, sample: int) -> int:
        """The clip that a sample belongs to."""
        return int(np.searchsorted(self.first_samples, sample, side="right")) - 1

    def source_of(self, sample: int) -> tuple[int, int]:
        """The annotation file's number and the row in it that a sample was read from."""
        batch, place = self._locate(sample)
        return batch.column(0)[place].as_py(), batch.column(1)[place].as_py()

    def sample(self, sample: int) -> StoredSample:
        """Read one sample; decompresses its text only.

        Raises:
            DiskError: The text on disk is damaged.
        """
        batch, place = self._locate(sample)
        file, row, sample_id = (batch.column(number)[place].as_py() for number in range(3))
        try:
            # A decompressor serves one thread at a time.
            with self._lock:
                text = self._decompressors[file].decompress(batch.column(3)[place].as_buffer())
        except zstandard.ZstdError as error:
            raise DiskError(
                f"The catalog in {self.folder} is damaged: sample {sample} does not decompress.",
                "Delete the folder; it is built anew at the next start.",
            ) from error
        turns = [{"from": role, "value": value} for role, value in json.loads(text)]
        return StoredSample(file, row, sample_id, turns)

    def find(self, member_name: str) -> FoundClip | None:
        """Return the clip that a member of an archive is, None where no sample refers to it.

        The paths agree exactly once normalised; else one is the end of the other on a folder's border, with at least
        one folder, and no other clip's path is.
        """
        try:
            path = normalise_path(member_name)
        except ValueError:
            return None
        exact = self._find_exact(path)
        if exact is not None:
            return FoundClip(exact, is_exact=True)
        candidates = {self._find_exact(suffix) for suffix in folder_suffixes(path)} - {None}
        if "/" in path:
            candidates |= self._suffix_index().find(path, self._paths)
        found = candidates.pop() if len(candidates) == 1 else None
        return None if found is None else FoundClip(found, is_exact=False)

    def _find_exact(self, path: str) -> int | None:
        key = np.uint64(path_hash(path))
        place = int(np.searchsorted(self._hashes, key))
        while place < self.num_clips and self._hashes[place] == key:
            if self.path(place) == path:
                return place
            place += 1
        return None

    def _suffix_index(self) -> _SuffixIndex:
        with self._lock:
            if self._suffixes is None:
                self._suffixes = _SuffixIndex(self._paths)
            return self._suffixes

    def _locate(self, sample: int) -> tuple[pa.RecordBatch, int]:
        place = int(self._places[sample])
        number = int(np.searchsorted(self._batch_ends, place, side="right"))
        batch = self._batches[number]
        return batch, place - int(self._batch_ends[number]) + batch.num_rows


class _SuffixIndex:
    """Finds clips by the end of their path. Built when a name is first not found exactly: most datasets need none."""

    def __init__(self, paths: pa.StringArray) -> None:
        keys = [
            (path_hash(suffix), clip) for clip, path in enumerate(paths.to_pylist()) for suffix in folder_suffixes(path)
        ]
        hashes = np.fromiter((key for key, _ in keys), np.uint64, len(keys))
        clips = np.fromiter((clip for _, clip in keys), np.int32, len(keys))
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._clips = hashes[order], clips[order]

    def find(self, path: str, paths: pa.StringArray) -> set[int]:
        """Return clips whose path ends with `path`: all of them, or two where there are more."""
        key = np.uint64(path_hash(path))
        found: set[int] = set()
        place = int(np.searchsorted(self._hashes, key))
        while place < len(self._hashes) and self._hashes[place] == key and len(found) < 2:
            clip = int(self._clips[place])
            if paths[clip].as_py().endswith(f"/{path}"):
                found.add(clip)
            place += 1
        return found


def open_subset(folder: Path) -> SubsetCatalog:
    """Map the catalog in `folder`; takes milliseconds, whatever its size.

    Raises:
        DiskError: There is none, or it is torn or of another version.
    """
    try:
        clips = _map(folder / CLIPS_FILE)
        header = read_header(clips.schema)
        size_bytes = (folder / SAMPLES_FILE).stat().st_size
        _check_size(size_bytes, header.samples_size_bytes)
        samples = _map(folder / SAMPLES_FILE)
        batches = [samples.get_batch(number) for number in range(samples.num_record_batches)]
        return SubsetCatalog(folder, header, clips.get_batch(0), batches)
    # Arrow's errors are ValueError, OSError and KeyError as well.
    except (OSError, ValueError, LookupError, pa.ArrowException) as error:
        raise DiskError(
            f"There is no whole catalog in {folder}: {error}.", "Delete the folder; it is built anew at the next start."
        ) from error


def _check_size(size_bytes: int, expected_bytes: int) -> None:
    # Checked before it is mapped: a page that is not there kills the process.
    if size_bytes != expected_bytes:
        raise ValueError(f"{SAMPLES_FILE} has {size_bytes:,} bytes instead of {expected_bytes:,}")


def is_complete(layout: SubsetLayout, folder: Path) -> bool:
    """Whether `folder` holds a whole catalog of just this layout, so that nothing need be read from the Hub."""
    try:
        subset = open_subset(folder)
    except DiskError:
        return False
    return subset.header.identity == identity_of(layout)


def _map(path: Path) -> Any:
    return pa.ipc.open_file(pa.memory_map(str(path)))


def _decompressor(dictionary: bytes) -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(dict_data=zstandard.ZstdCompressionDict(dictionary) if dictionary else None)
