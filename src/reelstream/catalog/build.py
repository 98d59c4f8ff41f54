"""Building a subset's catalog: annotation arrays in, the two files of `format` out, in bounded memory.

Samples are written as they come; what stays in memory is one path a clip and four bytes a sample. The order by clip
is known at the end only, so it is written then, as rows in `clips.arrow`, rather than by moving texts.
"""

from __future__ import annotations

import contextlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import zstandard

from reelstream.cache.budget import BLOCK_BYTES
from reelstream.catalog.format import (
    CLIPS_FILE,
    SAMPLES_FILE,
    Header,
    Identity,
    clips_schema,
    identity_of,
    samples_schema,
)
from reelstream.catalog.layout import SubsetLayout
from reelstream.catalog.parse import LeftOut, ParsedSample, parse_annotations
from reelstream.catalog.paths import path_hash
from reelstream.catalog.storage import PartialFile, Reserve, locked_folder, partial_file, size_on_disk
from reelstream.catalog.subset import is_complete
from reelstream.types import Conversation, RepositoryFile

OpenFile = Callable[[RepositoryFile], Iterator[bytes]]
"""Gives the bytes of a repository's file, in pieces; raises errors of `reelstream.errors`."""

_BATCH_BYTES = 2**20
_TRAINING_SAMPLES = 800
# Fewer samples train nothing that would pay for the dictionary's own bytes.
_LEAST_TRAINING_SAMPLES = 100
# Larger ones gain little: 0.36 of the size instead of 0.38 at 112 KiB.
_DICTIONARY_BYTES = 32 * 2**10
# With a dictionary, higher levels take three times as long and gain nothing on texts of some hundred bytes.
_COMPRESSION_LEVEL = 3
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def build_subset(
    layout: SubsetLayout,
    folder: Path,
    *,
    open_file: OpenFile,
    reserve: Reserve,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Build the catalog of one subset in `folder`, unless a complete one of `layout` is there.

    Memory stays bounded whatever the size of the annotations: one row at a time, and about 300 bytes a clip. Other
    processes that build in the same folder wait; a reader never sees half a catalog. On any error, and at Ctrl-C,
    what was written is removed: give back then what `reserve` granted.

    Args:
        layout: What to read.
        folder: Where the two files go; made if need be. Use `folder_name` for a name that tells stale from fresh.
        open_file: Gives an annotation file's bytes; each file is opened once, in order, and read to its end.
        reserve: Called with a number of bytes before they are written, in steps of about 1 MiB, or once with the size
            of what is there; the sum is what the folder takes on disk, in whole blocks. What it raises passes.
        progress: Called with the number of bytes of annotations that were just read.

    Raises:
        AnnotationError: A file is no array of records, is cut short, or holds a row that is wrong.
        DiskError: The disk is full, or the folder cannot be written to.
    """
    if is_complete(layout, folder):
        reserve(size_on_disk(folder))
        return
    reserve(BLOCK_BYTES)
    with locked_folder(folder):
        if is_complete(layout, folder):
            # Built by another process, while this one waited.
            reserve(size_on_disk(folder) - BLOCK_BYTES)
            return
        _remove_files(folder)
        try:
            with (
                partial_file(folder / SAMPLES_FILE, reserve) as samples,
                partial_file(folder / CLIPS_FILE, reserve) as clips,
            ):
                writer = SampleWriter(samples)
                for annotation in layout.annotations:
                    with _closed(open_file(annotation.file)) as chunks:
                        writer.write_file(parse_annotations(annotation.file, _counted(chunks, progress)))
                writer.finish(clips, identity_of(layout))
        except BaseException:
            # Stopped between the two files' publication, the first would stay for nothing.
            _remove_files(folder)
            raise


def _remove_files(folder: Path) -> None:
    # In this order: without its clips a catalog counts as torn.
    (folder / CLIPS_FILE).unlink(missing_ok=True)
    (folder / SAMPLES_FILE).unlink(missing_ok=True)


@contextlib.contextmanager
def _closed(chunks: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
    """Close a generator when the block ends, so that no connection outlives an error."""
    try:
        yield chunks
    finally:
        if isinstance(chunks, Generator):
            chunks.close()


def _counted(chunks: Iterable[bytes], progress: Callable[[int], None] | None) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        if progress is not None:
            progress(len(chunk))


class SampleWriter:
    """Writes samples as they come, and remembers whose they are."""

    def __init__(self, samples: PartialFile) -> None:
        self._samples = samples
        self._arrow = pa.ipc.new_file(pa.PythonFile(samples, mode="w"), samples_schema())
        self._clips: dict[str, int] = {}
        self._clip_of_sample = array("i")
        self._dictionaries: list[bytes] = []
        self._left_out: Counter[str] = Counter()

    def write_file(self, rows: Iterable[ParsedSample | LeftOut]) -> None:
        """Write the samples of the next annotation file."""
        file_number = len(self._dictionaries)
        samples = iter(self._kept(rows))
        first = list(islice(samples, _TRAINING_SAMPLES))
        dictionary = _trained([_encoded(sample.conversations) for sample in first])
        self._dictionaries.append(dictionary)
        compressor = _compressor(dictionary)
        batch = _Batch(file_number)
        for source in (first, samples):
            for sample in source:
                batch.add(sample, compressor.compress(_encoded(sample.conversations)))
                self._clip_of_sample.append(self._clips.setdefault(sample.path, len(self._clips)))
                if batch.size_bytes >= _BATCH_BYTES:
                    self._arrow.write_batch(batch.take())
        if batch.size_bytes:
            self._arrow.write_batch(batch.take())

    def finish(self, clips: PartialFile, identity: Identity) -> None:
        """Order the samples by clip, and publish both files, `clips` last."""
        self._arrow.close()
        header = Header(
            identity=identity,
            dictionaries=tuple(self._dictionaries),
            left_out=dict(self._left_out),
            num_samples=len(self._clip_of_sample),
            samples_size_bytes=self._samples.tell(),
        )
        schema = clips_schema(header)
        table = _ordered_clips(list(self._clips), np.frombuffer(self._clip_of_sample, np.int32), schema)
        with pa.ipc.new_file(pa.PythonFile(clips, mode="w"), schema) as arrow:
            arrow.write_batch(table)
        # Nothing but renaming is left to fail once both are on disk.
        self._samples.complete()
        clips.complete()
        self._samples.publish()
        clips.publish()

    def _kept(self, rows: Iterable[ParsedSample | LeftOut]) -> Iterator[ParsedSample]:
        for row in rows:
            if isinstance(row, LeftOut):
                self._left_out[row.reason] += 1
            else:
                yield row


class _Batch:
    """The columns of a record batch while it grows."""

    def __init__(self, file_number: int) -> None:
        self._file_number = file_number
        self._clear()

    def _clear(self) -> None:
        self._rows: list[int] = []
        self._ids: list[str] = []
        self._texts: list[bytes] = []
        self.size_bytes = 0

    def add(self, sample: ParsedSample, text: bytes) -> None:
        self._rows.append(sample.row)
        self._ids.append(sample.id)
        self._texts.append(text)
        self.size_bytes += len(text) + len(sample.id) + 16

    def take(self) -> pa.RecordBatch:
        """Return what was added, and begin anew."""
        schema = samples_schema()
        files = np.full(len(self._rows), self._file_number, np.uint8)
        columns = [files, self._rows, self._ids, self._texts]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
        self._clear()
        return pa.record_batch(arrays, schema=schema)


def _ordered_clips(paths: list[str], clip_of_sample: np.ndarray, schema: pa.Schema) -> pa.RecordBatch:
    """Return the rows of `clips.arrow`: by hash, each with its samples in the order they came."""
    hashes = np.fromiter((path_hash(path) for path in paths), np.uint64, len(paths))
    # Equal hashes of different paths are legal, if never seen; the path decides, so that the order is one.
    order = np.array(sorted(range(len(paths)), key=lambda clip: (hashes[clip], paths[clip])), np.int64)
    number_of = np.empty(len(paths), np.int32)
    number_of[order] = np.arange(len(paths), dtype=np.int32)
    clips = number_of[clip_of_sample]
    samples = np.argsort(clips, kind="stable").astype(np.int32)
    offsets = np.zeros(len(paths) + 1, np.int32)
    np.cumsum(np.bincount(clips, minlength=len(paths)), out=offsets[1:])
    columns = [
        pa.array([paths[clip] for clip in order], pa.string()),
        pa.array(hashes[order]),
        pa.ListArray.from_arrays(pa.array(offsets), pa.array(samples)),
    ]
    return pa.record_batch(
        [column.cast(field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


def _encoded(conversations: Conversation) -> bytes:
    turns = [[turn["from"], turn["value"]] for turn in conversations]
    return _ENCODER.encode(turns).encode()


def _trained(texts: Sequence[bytes]) -> bytes:
    """Return a dictionary for texts like these; empty where they are too few, or too alike, to train one."""
    if len(texts) < _LEAST_TRAINING_SAMPLES:
        return b""
    try:
        # A share of the texts at most, so that a small catalog is not made of its dictionary. Parameters given, since
        # the search for the best takes seconds and gains a percent.
        size_bytes = min(_DICTIONARY_BYTES, sum(map(len, texts)) // 8)
        return zstandard.train_dictionary(size_bytes, list(texts), k=256, d=8).as_bytes()
    except zstandard.ZstdError:
        return b""


def _compressor(dictionary: bytes) -> zstandard.ZstdCompressor:
    dictionary_data = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
    # The checksum tells a damaged text from a whole one; the dictionary's number is known from the file.
    return zstandard.ZstdCompressor(
        level=_COMPRESSION_LEVEL, dict_data=dictionary_data, write_checksum=True, write_dict_id=False
    )
