"""Small archives of many kinds, and what is in them, for the tests of the archive index."""

from __future__ import annotations

import gzip
import random
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from reelstream.archive.seek.indexing import IndexingPass
from reelstream.archive.seek.inflate import BlockInflation, named_inflation
from reelstream.testing import media_bytes

LIBRARIES = [name for name in ("zlib-ng", "zlib") if named_inflation(name).library is not None]

media = media_bytes


def inflation(name: str) -> BlockInflation:
    return named_inflation(name)


def standard_files() -> dict[str, bytes]:
    """Members of many sizes: larger than a margin, tiny ones in a row, empty, plain zeros, text, a long name."""
    files = {"clips/": b"", "clips/0.mp4": media(0, 700_000), "clips/empty.mp4": b""}
    files |= {f"notes/{number}.json": b'{"caption": "a dog runs", "n": %d}' % number * 20 for number in range(40)}
    files |= {"clips/1.mp4": media(1, 1_300_000), "zeros.bin": bytes(900_000), "clips/2.mp4": media(2, 300_001)}
    files |= {"long/" + "n" * 180 + ".mp4": media(3, 150_000), "ü/3.mp4": media(4, 99_999), "one": b"x"}
    return files


def gzip_members(content: bytes, sizes: Iterator[int]) -> bytes:
    """Pack content as several gzip members, with zero padding between some of them."""
    packed = bytearray()
    position = 0
    for number, size in enumerate(sizes):
        if position >= len(content):
            break
        packed += gzip.compress(content[position : position + size], mtime=0) + bytes(7 * (number % 3))
        position += size
    return bytes(packed)


def run_writer(*command: str) -> Callable[[bytes], bytes]:
    def write(content: bytes) -> bytes:
        return subprocess.run(command, input=content, stdout=subprocess.PIPE, check=True).stdout

    return write


def odd_blocks(content: bytes) -> bytes:
    """One gzip member of fixed, dynamic, stored and empty blocks, with flushes of all kinds between them."""
    draw = random.Random(5)
    compressor = zlib.compressobj(6, zlib.DEFLATED, 31, 8, zlib.Z_DEFAULT_STRATEGY)
    packed = bytearray()
    position = 0
    while position < len(content):
        size = draw.choice((1, 300, 5000, 70_000, 200_000))
        packed += compressor.compress(content[position : position + size])
        for _ in range(draw.choice((1, 1, 3))):
            packed += compressor.flush(draw.choice((zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_BLOCK)))
        position += size
    return bytes(packed + compressor.flush())


def writers() -> dict[str, Callable[[bytes], bytes]]:
    found: dict[str, Callable[[bytes], bytes]] = {
        "python 6": lambda content: gzip.compress(content, 6, mtime=0),
        "python 1": lambda content: gzip.compress(content, 1, mtime=0),
        "stored": lambda content: gzip.compress(content, 0, mtime=0),
        "fixed": fixed_blocks,
        "odd blocks": odd_blocks,
        "two members": lambda content: gzip_members(content, iter([500_000, 1 << 40])),
        "many members": lambda content: gzip_members(content, (37_000 for _ in range(1 << 20))),
    }
    for name, command in (
        *((f"gzip -{level}", ("gzip", f"-{level}", "-c")) for level in (1, 6, 9)),
        ("pigz -6", ("pigz", "-6", "-b", "128", "-c")),
        ("bgzip", ("bgzip", "-c")),
    ):
        if shutil.which(command[0]):
            found[name] = run_writer(*command)
    return found


def fixed_blocks(content: bytes) -> bytes:
    compressor = zlib.compressobj(6, zlib.DEFLATED, 31, 8, zlib.Z_FIXED)
    return compressor.compress(content) + compressor.flush()


def chunked(content: bytes, size_bytes: int = 50_000) -> Iterator[bytes]:
    for start in range(0, len(content), size_bytes):
        yield content[start : start + size_bytes]


def index_pass(packed: bytes, library: str = LIBRARIES[0], *, chunk_bytes: int = 50_000) -> IndexingPass:
    """Stream an archive to its end without reading its members."""
    one_pass = IndexingPass(chunked(packed, chunk_bytes), "a.tar.gz", inflation=inflation(library))
    for _ in one_pass.members():
        pass
    return one_pass


def unpacked_by_gnu_tar(packed: bytes) -> dict[str, bytes]:
    """Return the regular files, as GNU tar unpacks them (the gzip program stops at padding between members)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(["tar", "-xf", "-", "-C", name], input=gzip.decompress(packed), check=True)
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and not path.is_symlink()
        }
