"""Archives as different programs write them, and sources that count what is read of them."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import random
import shutil
import struct
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from reelstream.archive.cuts.cut import CutReader, CutReport
from reelstream.archive.source import BytesSource
from reelstream.archive.tar import Member

Files = Sequence[tuple[str, bytes]]


def media(seed: int, size_bytes: int) -> bytes:
    """Bytes like a video's: an index that shrinks, then payload that does not, with start codes in it."""
    draw = random.Random(seed)
    table = b"".join(struct.pack(">II", 1, draw.randrange(40_000)) for _ in range(size_bytes // 400))
    content = bytearray(b"\0\0\0\x18ftypmp42" + table)
    while len(content) < size_bytes:
        content += struct.pack(">I", 4000) + b"\x41\x9a" + draw.randbytes(draw.randrange(1000, 7000))
    return bytes(content[:size_bytes])


def text(seed: int, size_bytes: int) -> bytes:
    """Text, which gzip shrinks by copying from far back."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randrange(2, 9))) for _ in range(3000)]
    return " ".join(draw.choices(words, k=size_bytes // 5))[:size_bytes].encode()


def tar_of(files: Files, *, tar_format: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar of files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _program(*command: str) -> Callable[[bytes], bytes]:
    def write(content: bytes) -> bytes:
        return subprocess.run(command, input=content, capture_output=True, check=True).stdout

    return write


def _gzip_member(content: bytes, level: int = 6) -> bytes:
    return gzip.compress(content, level, mtime=0)


def several_members(content: bytes) -> bytes:
    """Several gzip members, one after the other, of uneven sizes."""
    third = len(content) // 3
    cuts = [0, third - 777, 2 * third + 12_345, len(content)]
    return b"".join(_gzip_member(content[a:b]) for a, b in itertools.pairwise(cuts))


def blocked(content: bytes, block_bytes: int = 65_280) -> bytes:
    """A bgzip file: a gzip member of its own for each 64 kB, with their sizes in an extra field, and an empty one."""
    out = []
    for start in range(0, len(content) + block_bytes, block_bytes):
        block = content[start : start + block_bytes]
        compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
        body = compressor.compress(block) + compressor.flush()
        extra = b"BC\x02\0" + struct.pack("<H", (len(body) + 25) & 0xFFFF)
        header = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + struct.pack("<H", len(extra)) + extra
        out.append(header + body + struct.pack("<II", zlib.crc32(block), len(block)))
    return b"".join(out)


WRITERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip -1": _program("gzip", "-1n"),
    "gzip -6": _program("gzip", "-6n"),
    "gzip -9": _program("gzip", "-9n"),
    "python": lambda content: _gzip_member(content, 9),
    "stored": lambda content: _gzip_member(content, 0),
    "several members": several_members,
    "bgzip": blocked,
}
if shutil.which("pigz"):
    WRITERS["pigz"] = _program("pigz", "-6n")


class CountingSource(BytesSource):
    """Bytes in memory that count how often each of them is read."""

    def __init__(self, content: bytes, *, chunk_bytes: int = 1 << 14) -> None:
        super().__init__(content, "counted.tar.gz", chunk_bytes=chunk_bytes)
        self.read_bytes = 0
        self.num_ranges = 0

    def read(self, first_byte: int, end_byte: int) -> Iterator[bytes]:
        assert 0 <= first_byte < end_byte <= self.size_bytes
        self.num_ranges += 1
        for chunk in super().read(first_byte, end_byte):
            self.read_bytes += len(chunk)
            yield chunk


@dataclass(frozen=True)
class Taken:
    """What one reader took of an archive."""

    members: list[tuple[str, str]]
    report: CutReport


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def take(members: Iterable[Member]) -> list[tuple[str, str]]:
    """Read members: their names and digests."""
    return [(member.name, digest(b"".join(member.chunks()))) for member in members]


def take_cut(reader: CutReader) -> Taken:
    """Read one cut."""
    members = take(reader.members())
    return Taken(members, reader.reports[-1])


def named(files: Files) -> list[tuple[str, str]]:
    """What `take` gives of an archive of these files."""
    return [(name, digest(content)) for name, content in files]
