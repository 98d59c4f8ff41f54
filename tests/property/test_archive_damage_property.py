"""Damaged and hostile archives: an entry, a refusal or an error; no crash, no hang, no memory, and never believed."""

from __future__ import annotations

import functools
import random
import tracemalloc
import zlib
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archive_entry_kit import WRITERS, CountingSource, Files, blocked, media, named, tar_of, text
from reelstream.archive.cuts.cut import CutReader, whole_only
from reelstream.archive.cuts.entry import Entry, NoEntry, find_entry
from reelstream.archive.cuts.piece import pieces_are_true
from reelstream.archive.cuts.report import CutReport, settled
from reelstream.archive.source import BytesSource
from reelstream.errors import ArchiveError

DIGESTED = list[tuple[str, str]]


@dataclass(frozen=True)
class Packed:
    """An archive, and what is in it."""

    content: bytes
    members: DIGESTED


def _files() -> Files:
    inner = tar_of([(f"inner_{number}", media(50 + number, 30_000)) for number in range(4)])
    return [
        ("one.mp4", media(1, 160_000)),
        ("inner.tar", inner),
        ("notes.txt", text(2, 60_000)),
        ("inner.tar.gz", WRITERS["gzip -6"](inner)),
        ("zeros", bytes(400_000)),
        ("blocks.gz", blocked(inner)),
        ("two.mp4", media(3, 200_000)),
        ("three.mp4", media(4, 90_000)),
    ]


@functools.cache
def packed(writer: str) -> Packed:
    return Packed(WRITERS[writer](tar_of(_files())), named(_files()))


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The archive with some of it changed, cut off, taken out, put in or repeated."""
    out = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(out) - 1)))
        size = draw(st.sampled_from([1, 5, 300, 70_000]))
        kind = draw(st.sampled_from(["flip", "overwrite", "zero", "cut off", "take out", "put in", "repeat"]))
        if kind == "flip":
            out[at : at + 1] = bytes([out[at] ^ 1 << draw(st.integers(0, 7))]) if out else b""
        elif kind == "overwrite":
            out[at : at + size] = random.Random(at).randbytes(len(out[at : at + size]))
        elif kind == "zero":
            out[at : at + size] = bytes(len(out[at : at + size]))
        elif kind == "cut off":
            del out[max(at, 1000) :]
        elif kind == "take out":
            del out[at : at + size]
        elif kind == "put in":
            out[at:at] = random.Random(at).randbytes(size)
        else:
            out[at:at] = out[at : at + size]
    return bytes(out)


def deflated(parts: list[tuple[str, int, int]]) -> bytes:
    """A gzip file of anything, its blocks of all kinds and flushed at will."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, 31)
    out = bytearray()
    for number, (kind, size, flush) in enumerate(parts):
        content = {
            "zeros": lambda size: bytes(size * 20),
            "noise": lambda size: random.Random(size).randbytes(size),
            "text": lambda size: text(size, size),
            "gzip": lambda size: zlib.compress(media(size, size), 6, 31),
            "tar": lambda size: tar_of([(f"{size}", media(size, size))] * 2),
            "headers": lambda size: tar_of([(f"{each}", b"") for each in range(size // 2000)]),
        }[kind](size + number)
        out += compressor.compress(content) + compressor.flush(flush)
    return bytes(out + compressor.flush())


def read_in_cuts(content: bytes, cuts: list[int], *, learn: bool) -> tuple[DIGESTED, list[CutReport], bool]:
    """Read each cut by a reader of its own: the members that count, their reports, and whether all went well."""
    source = CountingSource(content)
    reports: list[CutReport] = []
    delivered: dict[int, DIGESTED] = {}
    went_well = True
    for number, first_byte in enumerate(cuts):
        members: list[tuple[str, bytes]] = []
        with CutReader(source, first_byte, cuts[number + 1 :], learn=learn) as reader:
            try:
                for member in reader.members():
                    pieces = []
                    for some in member.chunks():
                        assert len(some) <= 1 << 18
                        pieces.append(bytes(some))
                    members.append((member.name, b"".join(pieces)))
                reader.take_rows(now=True)
            except ArchiveError:
                went_well = False
            reports += reader.reports
        delivered[first_byte] = named(members)
    # Each reader reads its own bytes and some behind; searches for borders read a little more.
    assert source.read_bytes <= (len(cuts) + 1) * (len(content) + 1_000_000)
    chain = settled(reports)
    return [member for report in chain for member in delivered[report.first_byte]], chain, went_well


def cuts_of(data: st.DataObject, size_bytes: int) -> list[int]:
    return [0, *sorted(data.draw(st.sets(st.integers(1, max(1, size_bytes - 1)), max_size=3)))]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(writer=st.sampled_from(sorted(WRITERS)), learn=st.booleans(), data=st.data())
def test_a_damaged_archive_is_an_error_or_known_by_its_checksum_or_read_right(
    writer: str, learn: bool, data: st.DataObject
) -> None:
    archive = packed(writer)
    content = data.draw(damaged(archive.content))
    members, chain, went_well = read_in_cuts(content, cuts_of(data, len(content)), learn=learn)
    is_whole = bool(chain) and chain[-1].served_until >= len(content)
    if went_well and is_whole and pieces_are_true(report.piece for report in chain):
        assert members == archive.members


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(writer=st.sampled_from(sorted(WRITERS)), share=st.floats(0, 1), data=st.data())
def test_a_damaged_archive_is_entered_or_refused(writer: str, share: float, data: st.DataObject) -> None:
    content = data.draw(damaged(packed(writer).content))
    source = CountingSource(content)
    found = find_entry(source, int(share * len(content)))
    assert isinstance(found, NoEntry) or found.bit >> 3 >= int(share * len(content))
    assert source.read_bytes <= 8 * 65_552 + (1 << 22) + (1 << 20)
    whole_only(source)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    parts=st.lists(
        st.tuples(
            st.sampled_from(["zeros", "noise", "text", "gzip", "tar", "headers"]),
            st.integers(1, 120_000),
            st.sampled_from([zlib.Z_NO_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_BLOCK]),
        ),
        max_size=8,
    ),
    learn=st.booleans(),
    data=st.data(),
)
def test_any_gzip_file_is_read_in_cuts_or_refused(
    parts: list[tuple[str, int, int]], learn: bool, data: st.DataObject
) -> None:
    content = deflated(parts)
    read_in_cuts(content, cuts_of(data, len(content)), learn=learn)


@settings(max_examples=40, deadline=None)
@given(
    piece=st.binary(min_size=1, max_size=40),
    times=st.integers(1, 30_000),
    byte=st.integers(0, 2000),
    header=st.sampled_from([b"", b"\x1f\x8b\x08\0\0\0\0\0\0\xff", b"\0\x10\0\xef\xff", b"\x05\xc0\x81\x08\0\0"]),
)
def test_patterns_that_could_be_blocks_at_each_place_do_not_hold_a_search_up(
    piece: bytes, times: int, byte: int, header: bytes
) -> None:
    content = (header + piece) * times
    source = CountingSource(content)
    found = find_entry(source, min(byte, len(content)))
    assert isinstance(found, (Entry, NoEntry))
    assert source.read_bytes <= 8 * 65_552 + (1 << 22) + (1 << 20)


@pytest.mark.parametrize("learn", [False, True])
def test_a_bomb_takes_no_memory_to_enter_or_to_read(learn: bool) -> None:
    bomb = zlib.compress(tar_of([("bomb", bytes(150_000_000))]), 9, 31)
    source = BytesSource(bomb)
    tracemalloc.start()
    try:
        find_entry(source, len(bomb) // 3)
        with CutReader(source, 0, [len(bomb) // 2], learn=learn) as reader:
            size = sum(len(some) for member in reader.members() for some in member.chunks())
            reader.take_rows(now=True)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == 150_000_000
    assert peak_bytes < 24_000_000
