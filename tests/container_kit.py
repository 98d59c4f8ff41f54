"""The same files in each kind of container, for the tests of the container protocol."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from archive_index_kit import media
from reelstream.archive import BytesSource
from reelstream.archive.containers import Container, ContainerKind
from reelstream.archive.seek.index import ArchiveIdentity
from reelstream.testing import pack_tar


@dataclass(frozen=True)
class Packed:
    """A container, and what is in it."""

    kind: ContainerKind
    content: bytes
    files: dict[str, bytes]
    """In the order they lie."""

    def container(self, *, with_sha256: bool = True, size_bytes: int | None = None) -> Container:
        """What the Hub says of it; where it names no SHA-256, it gives a tag."""
        sha256 = hashlib.sha256(self.content).hexdigest() if with_sha256 else None
        identity = ArchiveIdentity(
            size_bytes=len(self.content) if size_bytes is None else size_bytes,
            sha256=sha256,
            etag=None if with_sha256 else '"tag"',
        )
        return Container(kind=self.kind, identity=identity, file_name=next(iter(self.files), ""))


class CountingSource(BytesSource):
    """Counts what is asked for, what is given, and ranges that were neither ended nor closed."""

    def __init__(self, content: bytes, *, chunk_bytes: int = 50_000) -> None:
        super().__init__(content, "counted", chunk_bytes=chunk_bytes)
        self.ranges: list[tuple[int, int]] = []
        self.given_bytes = 0
        self.num_open = 0

    def read(self, first_byte: int, end_byte: int) -> Iterator[bytes]:
        self.ranges.append((first_byte, end_byte))
        self.num_open += 1
        try:
            for chunk in super().read(first_byte, end_byte):
                self.given_bytes += len(chunk)
                yield chunk
        finally:
            self.num_open -= 1


def clip_files() -> dict[str, bytes]:
    """Files of several sizes and names, an empty one among them."""
    files = {"source/first.mp4": media(1, 400_000), "source/empty.mp4": b"", "source/Zoë.mp4": media(2, 70_001)}
    files |= {f"notes/{number}.json": b'{"caption": "a dog", "n": %d}' % number for number in range(5)}
    return files | {"long/" + "n" * 150 + ".mp4": media(3, 300_000), "zeros.bin": bytes(200_000), "one": b"x"}


def pack_zip(
    files: dict[str, bytes],
    *,
    method: int = zipfile.ZIP_STORED,
    is_stream: bool = False,
    is_zip64: bool = False,
    comment: bytes = b"",
) -> bytes:
    """Pack a zip; as a stream, sizes come behind each member, as writers to a pipe have it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(_Pipe(packed) if is_stream else packed, "w") as archive:
        archive.comment = comment
        for name, content in files.items():
            info = zipfile.ZipInfo(name, (2024, 10, 1, 0, 0, 0))
            info.compress_type = method
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            if name.endswith("/"):
                archive.writestr(info, b"")
                continue
            with archive.open(info, "w", force_zip64=is_zip64) as member:
                member.write(content)
    return packed.getvalue()


class _Pipe(io.RawIOBase):
    """A file that cannot seek."""

    def __init__(self, target: io.BytesIO) -> None:
        self._target = target

    def writable(self) -> bool:
        return True

    def write(self, content: bytes) -> int:  # type: ignore[override]
        return self._target.write(content)


def with_folders(files: dict[str, bytes]) -> dict[str, bytes]:
    """A folder's entry before its first file, which no reader serves."""
    entries: dict[str, bytes] = {}
    for name, content in files.items():
        folder = name.rpartition("/")[0]
        if folder:
            entries.setdefault(f"{folder}/", b"")
        entries[name] = content
    return entries


Writer = Callable[[dict[str, bytes]], bytes]

WRITERS: dict[str, tuple[ContainerKind, Writer]] = {
    "tar.gz": (ContainerKind.TAR_GZ, lambda files: gzip.compress(pack_tar(with_folders(files)), mtime=0)),
    "tar": (ContainerKind.TAR, lambda files: pack_tar(with_folders(files))),
    "tar pax": (ContainerKind.TAR, lambda files: pack_tar(with_folders(files), tar_format=tarfile.PAX_FORMAT)),
    "zip stored": (ContainerKind.ZIP, lambda files: pack_zip(with_folders(files))),
    "zip deflated": (ContainerKind.ZIP, lambda files: pack_zip(files, method=zipfile.ZIP_DEFLATED)),
    "zip streamed": (ContainerKind.ZIP, lambda files: pack_zip(files, method=zipfile.ZIP_DEFLATED, is_stream=True)),
    "zip64": (ContainerKind.ZIP, lambda files: pack_zip(files, is_zip64=True, comment=b"PK\x05\x06 a comment")),
    "zip behind a program": (ContainerKind.ZIP, lambda files: b"#!/bin/sh\n" + bytes(3000) + pack_zip(files)),
    "file": (ContainerKind.FILE, lambda files: next(iter(files.values()))),
}


def pack(writer: str, files: dict[str, bytes] | None = None) -> Packed:
    """Pack files by a writer; a loose file is the first of them."""
    kind, write = WRITERS[writer]
    files = clip_files() if files is None else files
    held = dict(list(files.items())[:1]) if kind is ContainerKind.FILE else files
    return Packed(kind=kind, content=write(files), files=held)


@dataclass(frozen=True)
class RawEntry:
    """One member of a zip that is written by hand, so that it can say anything."""

    name: bytes
    content: bytes = b""
    method: int = 0
    flags: int = 0
    system: int = 3
    mode: int = 0o100644
    attributes: int = 0
    disk: int = 0
    crc32: int | None = None
    size_bytes: int | None = None
    packed_bytes: int | None = None
    offset: int | None = None
    extra: bytes = b""
    local_extra: bytes = b""
    local_name: bytes | None = None
    local_method: int | None = None

    @property
    def packed(self) -> bytes:
        if self.method == 8:
            compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
            return compressor.compress(self.content) + compressor.flush()
        return bz2.compress(self.content) if self.method == 12 else self.content


def raw_zip(entries: list[RawEntry], *, num_entries: int | None = None, disk: int = 0, tail: bytes = b"") -> bytes:
    """Write a zip by hand; `tail` stands between the directory and its end record."""
    body, directory = bytearray(), bytearray()
    for entry in entries:
        packed = entry.packed
        crc32 = zlib.crc32(entry.content) if entry.crc32 is None else entry.crc32
        size_bytes = len(entry.content) if entry.size_bytes is None else entry.size_bytes
        packed_bytes = len(packed) if entry.packed_bytes is None else entry.packed_bytes
        offset = len(body) if entry.offset is None else entry.offset
        local_name = entry.name if entry.local_name is None else entry.local_name
        local_method = entry.method if entry.local_method is None else entry.local_method
        body += struct.pack(
            *("<4s5H3I2H", b"PK\x03\x04", 20, entry.flags, local_method, 0, 33, crc32),
            *(packed_bytes & 0xFFFF_FFFF, size_bytes & 0xFFFF_FFFF, len(local_name), len(entry.local_extra)),
        )
        body += local_name + entry.local_extra + packed
        directory += struct.pack(
            *("<4s6H3I5H2I", b"PK\x01\x02", entry.system << 8 | 20, 20, entry.flags, entry.method, 0, 33, crc32),
            *(packed_bytes & 0xFFFF_FFFF, size_bytes & 0xFFFF_FFFF, len(entry.name), len(entry.extra), 0, entry.disk),
            *(0, entry.mode << 16 | entry.attributes, offset),
        )
        directory += entry.name + entry.extra
    count = len(entries) if num_entries is None else num_entries
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", disk, disk, count, count, len(directory), len(body), 0)
    return bytes(body + directory) + tail + end


def zip_of(content: bytes) -> Packed:
    """A zip whose members are not known beforehand."""
    return Packed(kind=ContainerKind.ZIP, content=content, files={})
