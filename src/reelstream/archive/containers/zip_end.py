"""Where a zip's directory lies, by the record at the zip's end: with ZIP64, behind other bytes, with a comment.

```
 [something else] ─ members ─ directory ─ [ZIP64 record ─ ZIP64 locator] ─ end record ─ [comment]
```
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from reelstream.archive.source import ByteSource, read_range
from reelstream.errors import ArchiveError

# Disk, the directory's disk, entries here, entries in all, the directory's size and offset, the comment's length.
_END = struct.Struct("<4s4H2IH")
_LOCATOR = struct.Struct("<4sIQI")
# Size, versions, disk, the directory's disk, entries here, entries in all, the directory's size and offset.
_ZIP64_END = struct.Struct("<4sQ2H2I4Q")
_END_SIGNATURE, _LOCATOR_SIGNATURE, _ZIP64_SIGNATURE = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
ENTRY_SIGNATURE = b"PK\x01\x02"
_LONGEST_COMMENT_BYTES = 0xFFFF
_TAIL_BYTES = _ZIP64_END.size + _LOCATOR.size + _END.size + _LONGEST_COMMENT_BYTES
# Some 600,000 members of the usual names. It is held in memory while its entries are put in order.
LARGEST_DIRECTORY_BYTES = 1 << 26

_HINT = "tell the archive's publisher"


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipDirectoryBytes:
    """A zip's directory, not yet read as such."""

    content: bytes
    num_entries: int
    first_byte: int
    """Where it lies: members lie before it."""
    shift_bytes: int
    """What is to be added to its offsets: the length of what was put before the zip."""
    disk: int
    """The number of this file among the parts of a split zip; 0 where it is not split."""


class _Tail:
    """A file whose end is at hand."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self.size_bytes = source.size_bytes
        self.first_byte = max(0, self.size_bytes - _TAIL_BYTES)
        self.content = read_range(source, self.first_byte, self.size_bytes)

    def read(self, first_byte: int, end_byte: int) -> bytes:
        if first_byte < self.first_byte:
            return read_range(self._source, first_byte, end_byte)
        return self.content[first_byte - self.first_byte : end_byte - self.first_byte]


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """What the end record says, ZIP64 or not."""

    record_at: int
    disk: int
    directory_disk: int
    num_entries: int
    directory_bytes: int
    directory_offset: int


def read_directory_bytes(source: ByteSource) -> ZipDirectoryBytes:
    """Read a zip's directory, in one range where it is small (65 kB), else in two or three.

    Raises:
        ArchiveError: Where there is none, it lies in another part of a split zip, or it is absurdly large.
    """
    tail = _Tail(source)
    end = _find_end(tail, source.path)
    if end.directory_disk != end.disk:
        raise ArchiveError(f"{source.path} is the last part of a split zip, and its directory begins in another", _HINT)
    if end.directory_bytes > LARGEST_DIRECTORY_BYTES:
        raise ArchiveError(
            f"{source.path}: its directory claims {end.directory_bytes:,} bytes; more than {LARGEST_DIRECTORY_BYTES:,} "
            "are not read",
            "publish it as several archives",
        )
    if not end.num_entries:
        return ZipDirectoryBytes(content=b"", num_entries=0, first_byte=end.record_at, shift_bytes=0, disk=end.disk)
    # Where it says; or, where something was put before the zip, right before the end record.
    for first_byte in dict.fromkeys((end.directory_offset, end.record_at - end.directory_bytes)):
        if 0 <= first_byte <= end.record_at - end.directory_bytes:
            content = tail.read(first_byte, first_byte + end.directory_bytes)
            if content.startswith(ENTRY_SIGNATURE) and len(content) == end.directory_bytes:
                return ZipDirectoryBytes(
                    content=content,
                    num_entries=end.num_entries,
                    first_byte=first_byte,
                    shift_bytes=first_byte - end.directory_offset,
                    disk=end.disk,
                )
    raise ArchiveError(f"{source.path}: there is no directory where the zip's end says that it lies", _HINT)


def _find_end(tail: _Tail, path: str) -> _End:
    place = _end_place(tail.content)
    if place is None:
        raise ArchiveError(f"{path} is cut short, or no zip: it has no directory at its end", _HINT)
    _, disk, directory_disk, _, num_entries, size_bytes, offset, _ = _END.unpack_from(tail.content, place)
    end = _End(
        record_at=tail.first_byte + place,
        disk=disk,
        directory_disk=directory_disk,
        num_entries=num_entries,
        directory_bytes=size_bytes,
        directory_offset=offset,
    )
    if 0xFFFF in {disk, directory_disk, num_entries} or 0xFFFF_FFFF in {size_bytes, offset}:
        return _zip64_end(tail, end) or end
    return end


def _end_place(content: bytes) -> int | None:
    """Return where the end record begins: the last one whose comment fills the file, or else the last that fits."""
    fitting = None
    place = len(content)
    while (place := content.rfind(_END_SIGNATURE, 0, place)) >= 0:
        beyond_bytes = len(content) - place - _END.size
        if beyond_bytes >= 0:
            comment_bytes = int.from_bytes(content[place + _END.size - 2 : place + _END.size], "little")
            if comment_bytes == beyond_bytes:
                return place
            if comment_bytes < beyond_bytes and fitting is None:
                fitting = place
    return fitting


def _zip64_end(tail: _Tail, end: _End) -> _End | None:
    """Return what the ZIP64 record says, None where there is none: a zip may have exactly 65,535 entries."""
    locator = tail.read(max(0, end.record_at - _LOCATOR.size), end.record_at)
    if len(locator) < _LOCATOR.size or not locator.startswith(_LOCATOR_SIGNATURE):
        return None
    _, _, declared_at, _ = _LOCATOR.unpack(locator)
    right_before = end.record_at - _LOCATOR.size - _ZIP64_END.size
    for place in dict.fromkeys((declared_at, right_before)):
        record = tail.read(place, place + _ZIP64_END.size) if 0 <= place <= right_before else b""
        if record.startswith(_ZIP64_SIGNATURE) and len(record) == _ZIP64_END.size:
            _, _, _, _, disk, directory_disk, _, num_entries, size_bytes, offset = _ZIP64_END.unpack(record)
            return _End(
                record_at=place,
                disk=disk,
                directory_disk=directory_disk,
                num_entries=num_entries,
                directory_bytes=size_bytes,
                directory_offset=offset,
            )
    return None
