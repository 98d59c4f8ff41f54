"""An archive index as one small file, which another machine can use: drawn in docs/reference/archive-index.md.

What is read is not trusted: a file of another kind, version or length, a body that grows without end, and columns that
contradict each other or the archive are refused before a single row is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import zstandard

from reelstream.archive.seek.index import ArchiveIdentity, ArchiveIndex, IndexColumns, Verification
from reelstream.archive.seek.seek_points import Places
from reelstream.durable import force_to_disk
from reelstream.errors import ArchiveError, DiskError
from reelstream.types import Int64Array, UInt8Array

MAGIC = b"reelindx"
VERSION = 2
SUFFIX = ".reelindex"

_HEADER = struct.Struct("<8sHBBQ32sHQQ")
_COUNTS = struct.Struct("<7Q")
_CHECK_BYTES = 32
_NO_SHA256 = bytes(32)
_LARGEST_FILE_BYTES = 1 << 28
_LARGEST_BODY_BYTES = 1 << 28
_LARGEST_ETAG_BYTES = 1 << 10
_HAS_SHA256, _HAS_ETAG, _IS_COMPLETE = 1, 2, 4
SMALLEST, FASTEST = 19, 3
"""Levels of zstandard: for what is written once and read often, and for what is written anew as it grows."""

_HINT = "delete it; the next pass over the archive learns it anew"


def encode_index(index: ArchiveIndex, *, level: int = SMALLEST) -> bytes:
    """Return an index as the bytes of a file.

    Args:
        index: The index.
        level: How hard to pack it; `FASTEST` takes a tenth of the time.

    Raises:
        ArchiveError: Where the archive failed its checksum: such an index must not outlive the pass.
    """
    if index.verification is Verification.FAILED:
        raise ArchiveError(
            "the index of an archive that failed its checksum is not kept", "learn it anew from sound bytes"
        )
    identity = index.identity
    etag = (identity.etag or "").encode()
    if len(etag) > _LARGEST_ETAG_BYTES:
        raise ArchiveError(f"an etag of {len(etag):,} bytes cannot be kept", "name the archive by its SHA-256")
    body = _encode_body(index.columns)
    packed = zstandard.ZstdCompressor(level=level).compress(body)
    flags = _HAS_SHA256 * (identity.sha256 is not None) | _HAS_ETAG * (identity.etag is not None)
    header = _HEADER.pack(
        MAGIC,
        VERSION,
        flags | _IS_COMPLETE * index.complete,
        index.verification,
        identity.size_bytes,
        bytes.fromhex(identity.sha256) if identity.sha256 else _NO_SHA256,
        len(etag),
        len(packed),
        len(body),
    )
    content = header + etag + packed
    return content + hashlib.sha256(content).digest()


def decode_index(content: bytes, where: str = "an archive index") -> ArchiveIndex:
    """Return the index that the bytes of a file hold.

    Args:
        content: The whole file.
        where: Names it in errors.

    Raises:
        ArchiveError: Where it is no index, one of another version, or one that is damaged or contradicts itself.
    """
    if len(content) < _HEADER.size + _CHECK_BYTES or not content.startswith(MAGIC):
        raise ArchiveError(f"{where} is no archive index", _HINT)
    _, version, flags, verification, size_bytes, sha256, etag_bytes, packed_bytes, body_bytes = _HEADER.unpack_from(
        content
    )
    if version != VERSION:
        raise ArchiveError(f"{where} has version {version}; this release reads version {VERSION}", _HINT)
    if len(content) != _HEADER.size + etag_bytes + packed_bytes + _CHECK_BYTES:
        raise ArchiveError(f"{where} is cut short, or has more than it says", _HINT)
    if hashlib.sha256(content[:-_CHECK_BYTES]).digest() != content[-_CHECK_BYTES:]:
        raise ArchiveError(f"{where} is damaged: its checksum does not match", _HINT)
    if verification >= Verification.FAILED or flags > (_HAS_SHA256 | _HAS_ETAG | _IS_COMPLETE):
        raise ArchiveError(f"{where} is damaged: its header makes no sense", _HINT)
    if etag_bytes > _LARGEST_ETAG_BYTES or body_bytes > _LARGEST_BODY_BYTES or size_bytes >= 1 << 60:
        raise ArchiveError(f"{where} is damaged: a size in its header is out of bounds", _HINT)
    etag, packed = content[_HEADER.size :][:etag_bytes], content[_HEADER.size + etag_bytes : -_CHECK_BYTES]
    identity = ArchiveIdentity(
        size_bytes=size_bytes,
        sha256=sha256.hex() if flags & _HAS_SHA256 else None,
        etag=etag.decode("utf-8", "replace") if flags & _HAS_ETAG else None,
    )
    columns = _decode_body(_unpacked(packed, body_bytes, where), where)
    columns.check(size_bytes)
    return ArchiveIndex(
        identity=identity,
        verification=Verification(verification),
        complete=bool(flags & _IS_COMPLETE),
        columns=columns,
    )


def index_file_name(identity: ArchiveIdentity) -> str:
    """Return the name by which an archive's index is found again: by SHA-256, or else by size and tag.

    Raises:
        ArchiveError: Where the archive has neither.
    """
    if identity.sha256 is not None:
        return f"{identity.sha256}{SUFFIX}"
    if identity.etag is None:
        raise ArchiveError(
            "an archive without SHA-256 and etag cannot be told from another", "its index is not kept; read it anew"
        )
    tag = hashlib.sha256(identity.etag.encode()).hexdigest()
    return f"{identity.size_bytes}-{tag}{SUFFIX}"


def write_index(folder: Path, index: ArchiveIndex) -> Path:
    """Write an index into a folder so that it is there as a whole or not at all; return its path.

    Raises:
        ArchiveError: As `encode_index` and `index_file_name`.
        DiskError: Where the folder cannot be written to.
    """
    target = folder / index_file_name(index.identity)
    content = encode_index(index)
    partial = folder / f".{target.name}.{secrets.token_hex(8)}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _removed_at_failure(partial), partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            partial.replace(target)
        _sync_folder(folder)
    except OSError as error:
        raise DiskError(
            f"the archive index {target} cannot be written ({error})", "make room, or choose another folder"
        ) from error
    return target


def read_index(folder: Path, identity: ArchiveIdentity) -> ArchiveIndex | None:
    """Return the index of an archive, if the folder has it.

    Raises:
        ArchiveError: As `decode_index`; also where the file is another archive's, or far too large.
        DiskError: Where the file cannot be read.
    """
    path = folder / index_file_name(identity)
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DiskError(f"the archive index {path} cannot be read ({error})", "") from error
    if len(content) > _LARGEST_FILE_BYTES:
        raise ArchiveError(f"{path} is too large for an archive index", _HINT)
    index = decode_index(content, str(path))
    if not index.identity.is_same(identity):
        raise ArchiveError(f"{path} is the index of another archive than its name says", _HINT)
    return index


def _encode_body(columns: IndexColumns) -> bytes:
    counts = _COUNTS.pack(
        len(columns.sizes),
        len(columns.point_bits),
        len(columns.link_ends),
        len(columns.values),
        len(columns.names),
        len(columns.link_targets),
        0,
    )
    outputs, bits = columns.point_outputs[columns.point_numbers], columns.point_bits[columns.point_numbers]
    parts = [
        counts,
        columns.kinds.tobytes(),
        columns.codings.tobytes(),
        columns.digest_kinds.tobytes(),
        _planes(_steps(columns.name_ends)),
        _planes(columns.sizes),
        # Each number as its distance from the one that it is nearest to.
        _planes(columns.header_offsets - outputs),
        _planes(columns.data_offsets - columns.header_offsets),
        _planes(columns.compressed_ends - (bits >> 3)),
        _planes(_steps(columns.point_numbers)),
        columns.digests,
        _planes(_steps(columns.point_bits)),
        _planes(_steps(columns.point_outputs)),
        _planes(columns.point_stored_left),
        columns.point_stored_is_last.tobytes(),
        _planes(_steps(columns.point_kept_ends)),
        _planes(_steps(columns.places.astype(np.int64)), num_bytes=2),
        columns.values,
        _planes(_steps(columns.link_ends)),
        columns.names,
        columns.link_targets,
    ]
    return b"".join(parts)


def _decode_body(body: bytes, where: str) -> IndexColumns:
    if len(body) < _COUNTS.size:
        raise ArchiveError(f"{where} is damaged: it has no counts", _HINT)
    num_rows, num_points, num_links, num_kept, name_bytes, target_bytes, reserved = _COUNTS.unpack_from(body)
    row_bytes, point_bytes = 3 + 6 * 8 + 16, 4 * 8 + 1
    expected = num_rows * row_bytes + num_points * point_bytes + num_links * 8 + num_kept * 3
    if len(body) != _COUNTS.size + expected + name_bytes + target_bytes or reserved:
        raise ArchiveError(f"{where} is damaged: its columns do not have the lengths that it says", _HINT)
    take = _Cursor(body, _COUNTS.size)
    kinds, codings, digest_kinds = (take.bytes_column(num_rows) for _ in range(3))
    name_ends = _sums(take.planes(num_rows))
    sizes, from_point, from_header, from_first_byte = (take.planes(num_rows) for _ in range(4))
    point_numbers = _sums(take.planes(num_rows))
    digests = take.raw(16 * num_rows)
    point_bits, point_outputs = _sums(take.planes(num_points)), _sums(take.planes(num_points))
    point_stored_left = take.planes(num_points)
    point_stored_is_last = take.bytes_column(num_points)
    point_kept_ends = _sums(take.planes(num_points))
    places: Places = _sums(take.planes(num_kept, num_bytes=2)).astype(np.uint16)
    values = take.raw(num_kept)
    link_ends = _sums(take.planes(num_links))
    # Asked before it is used as an index; the rest is asked of the columns.
    if num_rows and not (point_numbers.min() >= 0 and point_numbers.max() < num_points):
        raise ArchiveError(f"{where} is damaged: a row names a point that is not there", _HINT)
    header_offsets = from_point + point_outputs[point_numbers]
    return IndexColumns(
        names=take.raw(name_bytes),
        link_targets=take.raw(target_bytes),
        name_ends=name_ends,
        link_ends=link_ends,
        kinds=kinds,
        codings=codings,
        digest_kinds=digest_kinds,
        sizes=sizes,
        header_offsets=header_offsets,
        data_offsets=header_offsets + from_header,
        compressed_ends=from_first_byte + (point_bits[point_numbers] >> 3),
        point_numbers=point_numbers,
        digests=digests,
        point_bits=point_bits,
        point_outputs=point_outputs,
        point_stored_left=point_stored_left,
        point_stored_is_last=point_stored_is_last,
        point_kept_ends=point_kept_ends,
        places=places,
        values=values,
    )


class _Cursor:
    """Takes columns from a body whose length was checked."""

    def __init__(self, body: bytes, position: int) -> None:
        self._body = body
        self._position = position

    def raw(self, size_bytes: int) -> bytes:
        taken = self._body[self._position : self._position + size_bytes]
        self._position += size_bytes
        return taken

    def bytes_column(self, length: int) -> UInt8Array:
        return np.frombuffer(self.raw(length), np.uint8)

    def planes(self, length: int, *, num_bytes: int = 8) -> Int64Array:
        planes = np.frombuffer(self.raw(length * num_bytes), np.uint8).reshape(num_bytes, length)
        numbers = np.zeros((length, 8), np.uint8)
        numbers[:, :num_bytes] = planes.T
        return numbers.view("<i8").reshape(length).astype(np.int64)


def _planes(numbers: Int64Array, *, num_bytes: int = 8) -> bytes:
    """Return numbers as all lowest bytes, then all second ones, and so on: the high ones, all zero, pack to nothing."""
    split = numbers.astype("<i8").view(np.uint8).reshape(len(numbers), 8)
    return split.T[:num_bytes].tobytes()


def _steps(numbers: Int64Array) -> Int64Array:
    return np.diff(numbers, prepend=np.int64(0))


def _sums(steps: Int64Array) -> Int64Array:
    """Undo `_steps`; wraps around where the steps are made to, which the checks on the sums find."""
    sums: npt.NDArray[np.int64] = np.cumsum(steps, dtype=np.int64)
    return sums


def _unpacked(packed: bytes, body_bytes: int, where: str) -> bytes:
    """Decompress step by step, so that no more memory is taken than the body really fills."""
    body = bytearray()
    try:
        with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=False) as reader:
            while len(body) <= body_bytes and (piece := reader.read(1 << 20)):
                body += piece
    except zstandard.ZstdError as error:
        raise ArchiveError(f"{where} is damaged: its body cannot be decompressed ({error})", _HINT) from error
    if len(body) != body_bytes:
        raise ArchiveError(f"{where} is damaged: its body is not as long as it says", _HINT)
    return bytes(body)


@contextlib.contextmanager
def _removed_at_failure(partial: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    force_to_disk(folder)
