"""A zip's members, from the directory at its end: what the zip says, held against what its bytes can be.

The directory is not trusted. What it says of a member that cannot be so, or that is not served (encrypted, of other
compression methods, links), makes that member one with a problem; the others are read. A range never reaches into the
next member, so that directories whose members overlap (the densest bombs) give nothing.
"""

from __future__ import annotations

import itertools
import stat
import struct
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from reelstream.archive.containers.container import Container, Directory, UnservedMember
from reelstream.archive.containers.zip_end import ENTRY_SIGNATURE, ZipDirectoryBytes, read_directory_bytes
from reelstream.archive.seek.index import (
    Coding,
    DigestKind,
    IndexBuilder,
    IndexRow,
    MemberKind,
    Verification,
    plain_point,
)
from reelstream.archive.seek.index_columns import LARGEST_RATIO, LOCAL_HEADER_BYTES
from reelstream.archive.seek.row_kinds import CRC32_BYTES
from reelstream.archive.source import ByteSource
from reelstream.errors import ArchiveError

# Versions, flags, method, time and date, CRC, packed size, size, lengths of name, extra fields and comment, disk,
# attributes, offset of the local header.
_ENTRY = struct.Struct("<4sH2x2H4x3I4H2xII")
_EXTRA = struct.Struct("<HH")
_ZIP64_EXTRA, _UNICODE_NAME_EXTRA = 0x0001, 0x7075
_SATURATED, _SATURATED_DISK = 0xFFFF_FFFF, 0xFFFF
_LONGEST_NAME_AND_EXTRA_BYTES = 2 * 0xFFFF

_STORED, _DEFLATED = 0, 8
_AES = 99
_METHOD_NAMES = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "xz", 96: "JPEG", 98: "PPMd"}
_ENCRYPTED_FLAGS = 1 | 1 << 6 | 1 << 13
_PATCH_FLAG, _UTF8_FLAG = 1 << 5, 1 << 11
_UNIX_SYSTEMS = {3, 19}
_DOS_FOLDER = 0x10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One member, as the directory has it."""

    name: str
    system: int
    flags: int
    method: int
    crc32: int
    packed_bytes: int
    size_bytes: int
    disk: int
    attributes: int
    header_offset: int

    @property
    def mode(self) -> int:
        """The file's mode where a Unix wrote it; 0 where none is known."""
        return self.attributes >> 16 if self.system in _UNIX_SYSTEMS else 0

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/") or stat.S_ISDIR(self.mode) or (not self.mode and self._is_dos_folder)

    @property
    def _is_dos_folder(self) -> bool:
        return bool(self.attributes & _DOS_FOLDER) and not self.size_bytes


def read_zip_directory(container: Container, source: ByteSource) -> Directory:
    """Return the members of a zip, read from its end in one to three ranges.

    Raises:
        ArchiveError: Where it has no directory that can be read from its first entry to its last.
    """
    directory = read_directory_bytes(source)
    places, offsets = _list_entries(directory, source.path)
    order = np.argsort(np.array(offsets, np.int64), kind="stable").tolist()
    builder = IndexBuilder()
    unserved = []
    # Each is read a second time, so that not all of them are held as objects at once.
    for number, next_number in itertools.pairwise([*order, None]):
        entry, _ = _read_entry(directory, places[number], source.path)
        if entry.is_folder:
            continue
        header_offset = offsets[number]
        next_offset = directory.first_byte if next_number is None else offsets[next_number]
        farthest = header_offset + LOCAL_HEADER_BYTES + _LONGEST_NAME_AND_EXTRA_BYTES + entry.packed_bytes
        end_byte = min(next_offset, farthest)
        room_bytes = end_byte - header_offset - LOCAL_HEADER_BYTES
        problem = next((what for is_so, what in _problems(entry, room_bytes, directory.disk) if is_so), None)
        if problem is None:
            builder.add(_row(entry, header_offset, end_byte))
        else:
            unserved.append(UnservedMember(name=entry.name, header_offset=header_offset, problem=problem))
    index = builder.build(container.identity, Verification.PROVISIONAL, complete=True)
    index.columns.check(source.size_bytes)
    return Directory(index=index, unserved=tuple(unserved))


def _list_entries(directory: ZipDirectoryBytes, path: str) -> tuple[array[int], array[int]]:
    """Return where each entry lies in the directory, and where each member in the file."""
    places, offsets = array("q"), array("q")
    place = 0
    while place < len(directory.content):
        if directory.content[place : place + 4] != ENTRY_SIGNATURE:
            break  # a digital signature may follow the entries
        entry, after = _read_entry(directory, place, path)
        places.append(place)
        # An offset that fits no file is bounded, so that it can be put in order; its member gets no bytes.
        offsets.append(max(0, min(entry.header_offset + directory.shift_bytes, directory.first_byte)))
        place = after
    # Zips beyond 65,535 entries without ZIP64 exist: their count is what is left of it.
    if len(places) & 0xFFFF != directory.num_entries & 0xFFFF:
        raise ArchiveError(
            f"{path}: its directory lists {len(places):,} members, and its end says {directory.num_entries:,}",
            "tell the archive's publisher",
        )
    return places, offsets


def _read_entry(directory: ZipDirectoryBytes, place: int, path: str) -> tuple[_Entry, int]:
    """Return the entry at a place of the directory, and where the next one begins."""
    content = directory.content
    if place + _ENTRY.size > len(content):
        raise ArchiveError(f"{path}: its directory ends inside an entry", "tell the archive's publisher")
    fields = _ENTRY.unpack_from(content, place)
    _, made_by, flags, method, crc32, packed_bytes, size_bytes, name_bytes, extra_bytes, comment_bytes, *rest = fields
    disk, attributes, header_offset = rest
    name_at = place + _ENTRY.size
    extra_at = name_at + name_bytes
    after = extra_at + extra_bytes + comment_bytes
    if after > len(content):
        raise ArchiveError(f"{path}: its directory ends inside an entry", "tell the archive's publisher")
    raw_name, extra = content[name_at:extra_at], _extra_fields(content[extra_at : extra_at + extra_bytes])
    # ZIP64 has the fields that are too large for their place, in this order, and only those.
    wide = extra.get(_ZIP64_EXTRA, b"")
    size_bytes, wide = _widened(size_bytes, _SATURATED, wide, 8)
    packed_bytes, wide = _widened(packed_bytes, _SATURATED, wide, 8)
    header_offset, wide = _widened(header_offset, _SATURATED, wide, 8)
    disk, _ = _widened(disk, _SATURATED_DISK, wide, 4)
    entry = _Entry(
        name=_name(raw_name, flags, extra.get(_UNICODE_NAME_EXTRA, b"")),
        system=made_by >> 8,
        flags=flags,
        method=method,
        crc32=crc32,
        packed_bytes=packed_bytes,
        size_bytes=size_bytes,
        disk=disk,
        attributes=attributes,
        header_offset=header_offset,
    )
    return entry, after


def _extra_fields(content: bytes) -> dict[int, bytes]:
    """Return the extra fields by their number; what is cut short is left out."""
    fields: dict[int, bytes] = {}
    place = 0
    while place + _EXTRA.size <= len(content):
        number, size_bytes = _EXTRA.unpack_from(content, place)
        place += _EXTRA.size
        fields.setdefault(number, content[place : place + size_bytes])
        place += size_bytes
    return fields


def _widened(value: int, saturated: int, wide: bytes, size_bytes: int) -> tuple[int, bytes]:
    if value != saturated or len(wide) < size_bytes:
        return value, wide
    return int.from_bytes(wide[:size_bytes], "little"), wide[size_bytes:]


def _name(raw: bytes, flags: int, unicode_extra: bytes) -> str:
    """Return a member's name: as marked, or else as UTF-8 where it is that, since macOS and many tools mark nothing."""
    if flags & _UTF8_FLAG:
        return raw.decode("utf-8", "replace")
    # Version, CRC-32 of the name that it stands for, the name.
    if unicode_extra[:1] == b"\1" and int.from_bytes(unicode_extra[1:5], "little") == zlib.crc32(raw):
        return unicode_extra[5:].decode("utf-8", "replace")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp437")


def _problems(entry: _Entry, most_packed_bytes: int, disk: int) -> Iterator[tuple[bool, str]]:
    """Yield why a member's bytes may be out of reach, and whether it is so; `most_packed_bytes` is what fits there."""
    yield bool(entry.flags & _ENCRYPTED_FLAGS) or entry.method == _AES, "encrypted"
    yield stat.S_ISLNK(entry.mode), "a symbolic link"
    yield stat.S_IFMT(entry.mode) not in {0, stat.S_IFREG}, "not a regular file"
    yield entry.disk != disk, "in another part of a split zip"
    method = _METHOD_NAMES.get(entry.method, f"method {entry.method}")
    is_other = entry.method not in {_STORED, _DEFLATED} or bool(entry.flags & _PATCH_FLAG)
    yield is_other, f"compressed by {method}, which is not read here"
    yield entry.packed_bytes > most_packed_bytes, "its directory places it over another member, or outside the archive"
    is_stored = entry.method == _STORED
    yield (
        is_stored and entry.packed_bytes != entry.size_bytes,
        "its directory names two sizes of what is not compressed",
    )
    yield entry.size_bytes > entry.packed_bytes * LARGEST_RATIO, "its directory claims more bytes than it can hold"


def _row(entry: _Entry, header_offset: int, end_byte: int) -> IndexRow:
    return IndexRow(
        name=entry.name,
        kind=MemberKind.REGULAR,
        size_bytes=entry.size_bytes,
        header_offset=header_offset,
        data_offset=header_offset + LOCAL_HEADER_BYTES,
        compressed_end=end_byte,
        digest=entry.crc32.to_bytes(CRC32_BYTES, "big"),
        link_target=None,
        point=plain_point(header_offset),
        coding=Coding.ZIP_STORED if entry.method == _STORED else Coding.ZIP_DEFLATED,
        digest_kind=DigestKind.CRC32,
    )
