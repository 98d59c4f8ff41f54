"""Entries into archives of all kinds of content: right, or refused with a reason; never wrong."""

from __future__ import annotations

import functools
import json
import random
import sysconfig
import zlib
from pathlib import Path

import numpy as np
import pytest

from archive_entry_kit import WRITERS, Files, media, tar_of, text
from reelstream.archive.cuts.cut import whole_only
from reelstream.archive.cuts.entry import Entry, NoEntry, NoEntryReason, find_entry
from reelstream.archive.source import BytesSource

SHARED_WRITERS = ["gzip -1", "gzip -6", "bgzip", *(["pigz"] if "pigz" in WRITERS else [])]


def footage(seed: int, size_bytes: int) -> bytes:
    """Bytes that shrink by some percent, without repeats, as encoded video may: gzip gives its blocks codes."""
    weights = np.linspace(1, 3, 256)
    return np.random.default_rng(seed).choice(256, size_bytes, p=weights / weights.sum()).astype(np.uint8).tobytes()


def _python_sources() -> Files:
    files, left = [], 5_000_000
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*/*.py")):
        content = path.read_bytes()
        if (left := left - len(content)) < 0:
            break
        files.append((path.name, content))
    return files


def _programs() -> Files:
    libraries = sorted(path for path in Path(np.__file__).parent.rglob("*") if path.suffix in {".so", ".pyd"})
    return [(path.name, path.read_bytes()[:2_000_000]) for path in libraries]


def _random_json() -> Files:
    draw = random.Random(4)

    def record() -> dict[str, object]:
        return {"id": draw.getrandbits(64), "score": draw.random(), "hash": draw.randbytes(16).hex()}

    return [(f"{number}.json", json.dumps([record() for _ in range(4000)]).encode()) for number in range(12)]


CONTENTS = {
    "text": lambda: [(f"{number}.txt", text(number, 1_000_000)) for number in range(6)],
    "Python sources": _python_sources,
    "programs": _programs,
    "random JSON": _random_json,
}


@functools.cache
def plain_tar(what: str) -> bytes:
    return tar_of(CONTENTS[what]())


def is_right(entry: Entry, content: bytes, tar: bytes) -> bool:
    """Return whether the 256 KiB that are true after an entry are in the tar, and the first 32 the entry's own."""
    inflation = entry.begin()
    output = b""
    at = entry.bit >> 3
    while len(output) < entry.true_from + (1 << 18) and at < len(content):
        inflation.give(content[at : at + (1 << 16)])
        at += 1 << 16
        while not inflation.hungry:
            output += inflation.inflate(1 << 20)
    true = output[entry.true_from :]
    return true[: 1 << 18] in tar and zlib.crc32(true[: 1 << 15]) == entry.window_crc32


@pytest.mark.parametrize("what", list(CONTENTS))
@pytest.mark.parametrize("writer", SHARED_WRITERS)
def test_what_is_no_video_is_entered_right_or_not_at_all(writer: str, what: str) -> None:
    tar = plain_tar(what)
    content = WRITERS[writer](tar)
    draw = random.Random(writer)
    refused = set()
    for _ in range(5):
        found = find_entry(BytesSource(content), draw.randrange(len(content) - 300_000))
        if isinstance(found, NoEntry):
            refused.add(found.reason)
        else:
            assert is_right(found, content, tar)
    assert refused <= {NoEntryReason.NOT_TRUE, NoEntryReason.END_TOO_NEAR}
    # Each of its gzip members depends on nothing before it.
    assert writer != "bgzip" or not refused
    if what == "random JSON" and writer != "bgzip":
        assert refused


@pytest.mark.parametrize("level", range(1, 10))
def test_each_level_of_gzip_is_entered_within_64_kib(level: int) -> None:
    tar = tar_of([(f"{number}.mp4", footage(number, 300_000)) for number in range(6)])
    content = zlib.compress(tar, level, 31)
    draw = random.Random(level)
    for _ in range(3):
        found = find_entry(BytesSource(content), draw.randrange(len(content) - 300_000))
        assert isinstance(found, Entry)
        assert found.searched_bytes <= 1 << 16
        assert is_right(found, content, tar)


@pytest.mark.parametrize("outer", ["gzip -6", "stored", "bgzip", "several members"])
@pytest.mark.parametrize("inner", ["gzip -1", "gzip -6", "bgzip", "several members"])
def test_an_archive_of_coded_blocks_inside_the_archive_is_not_entered_for_it(inner: str, outer: str) -> None:
    # Unlike stored ones, blocks with codes fall into step again behind the outer archive's headers.
    clips = [(f"{number}.mp4", footage(number, 260_000)) for number in range(6)]
    nested = [(f"nested_{number}.tar.gz", WRITERS[inner](tar_of(clips[number : number + 2]))) for number in range(4)]
    tar = tar_of([("first.mp4", media(1, 100_000)), *nested, ("notes.txt", text(1, 400_000)), *clips])
    content = WRITERS[outer](tar)
    draw = random.Random(inner + outer)
    for _ in range(7):
        found = find_entry(BytesSource(content), draw.randrange(len(content) - 1_200_000))
        assert isinstance(found, Entry)
        assert is_right(found, content, tar)


def test_a_nested_archive_that_ends_where_the_outer_one_begins_to_shrink_is_not_entered() -> None:
    # The outer archive goes on with codes of its own, which a block of the nested one takes for data of its own.
    nested = zlib.compress(footage(3, 400_000), 6, 31)
    tar = tar_of([("nested.gz", nested), *((f"{number}.mp4", footage(number, 500_000)) for number in range(3))])
    content = zlib.compress(tar, 6, 31)
    for byte in range(len(nested) - 60_000, len(nested), 6_000):
        found = find_entry(BytesSource(content), byte)
        assert isinstance(found, Entry)
        assert is_right(found, content, tar)


def test_headers_that_say_what_they_are_let_an_archive_be_cut_and_others_do_not() -> None:
    tar = tar_of([("one", b"1")])
    assert whole_only(BytesSource(WRITERS["python"](tar))) is None
    old = bytearray(tar)
    old[257:265] = bytes(8)
    assert "ustar" in (whole_only(BytesSource(WRITERS["python"](bytes(old)))) or "")
    assert whole_only(BytesSource(b"no gzip at all")) is not None
