"""The archive index for any archive, any index file and any lie that hypothesis thinks of."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import itertools
import random
import struct
import zlib
from typing import Any

import numpy as np
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from archive_index_kit import LIBRARIES, index_pass, media
from reelstream.archive.seek.coalesce import RequestCosts, WantedRange, plan_requests, plan_rows
from reelstream.archive.seek.index import ArchiveIdentity, ArchiveIndex, IndexRow, MemberKind, Verification
from reelstream.archive.seek.index_format import decode_index, encode_index
from reelstream.archive.seek.member_range import read_member, read_rows
from reelstream.archive.seek.seek_points import SeekPoint
from reelstream.archive.source import BytesSource
from reelstream.errors import ArchiveError
from reelstream.testing import pack_tar


def content(kind: int, seed: int, size_bytes: int) -> bytes:
    """Noise, a video, text that refers far back, zeros, or one byte in a period of almost a window."""
    draw = random.Random(seed)
    if kind == 0:
        return draw.randbytes(size_bytes)
    if kind == 1:
        return media(seed, size_bytes)
    if kind == 2:
        words = [draw.randbytes(5).hex().encode() for _ in range(50)]
        return b" ".join(draw.choices(words, k=size_bytes // 11 + 1))[:size_bytes]
    if kind == 3:
        return bytes(size_bytes)
    period = draw.randbytes(draw.randrange(32_000, 32_768))
    return (period * (size_bytes // len(period) + 1))[:size_bytes]


contents = st.builds(
    content,
    st.integers(0, 4),
    st.integers(0, 1000),
    st.one_of(st.integers(0, 2000), st.integers(0, 120_000), st.integers(500_000, 600_000)),
)
tars = st.lists(contents, max_size=7).map(
    lambda files: pack_tar({f"{number}.bin": each for number, each in enumerate(files)})
)


@dataclasses.dataclass(frozen=True)
class Stretch:
    """One gzip member, written in some way, as far as it goes."""

    level: int
    strategy: int
    memory: int
    pieces: tuple[tuple[int, int], ...]
    padding: int


stretches = st.builds(
    Stretch,
    st.sampled_from((6, 0, 1, 9)),
    st.sampled_from((zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE)),
    st.integers(1, 9),
    st.lists(
        st.tuples(
            st.sampled_from((300_000, 40_000, 4000, 3, 0)),
            st.sampled_from((zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_BLOCK)),
        ),
        max_size=4,
    ).map(tuple),
    st.integers(0, 3),
)


def write(tar: bytes, way: list[Stretch]) -> bytes:
    packed = bytearray()
    position = 0
    for stretch in way:
        compressor = zlib.compressobj(stretch.level, zlib.DEFLATED, 31, stretch.memory, stretch.strategy)
        for size, flush in stretch.pieces:
            packed += compressor.compress(tar[position : position + size]) + compressor.flush(flush)
            position += size
        packed += compressor.flush() + bytes(stretch.padding)
    return bytes(packed) + gzip.compress(tar[position:], mtime=0)


gzips = st.builds(write, tars, st.lists(stretches, max_size=4))


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:16]


@settings(max_examples=60, deadline=None)
@given(packed=gzips, library=st.sampled_from(LIBRARIES), chunk_bytes=st.sampled_from((1000, 65_536, 1 << 22)))
def test_each_member_of_any_archive_is_read_by_its_range(packed: bytes, library: str, chunk_bytes: int) -> None:
    index = decode_index(encode_index(index_pass(packed, library, chunk_bytes=chunk_bytes).index(etag="x")))
    assert index.complete
    source = BytesSource(packed, chunk_bytes=chunk_bytes)
    content = gzip.decompress(packed)
    for row in index:
        expected = content[row.data_offset : row.data_offset + row.size_bytes]
        assert b"".join(read_member(source, row)) == expected
        assert row.digest == digest(expected)


@settings(max_examples=25, deadline=None)
@given(packed=gzips, data=st.data())
def test_any_wanted_members_come_by_the_plan(packed: bytes, data: st.DataObject) -> None:
    index = index_pass(packed).index()
    numbers = data.draw(st.lists(st.integers(0, max(0, len(index) - 1)), max_size=6)) if len(index) else []
    costs = RequestCosts(latency_s=data.draw(st.sampled_from((0.0, 0.01, 1.0))), most_request_bytes=200_000)
    read: dict[str, bytes] = {}
    for request in plan_rows(index, numbers, costs):
        for member in read_rows(BytesSource(packed), [index.row(number) for number in request.numbers]):
            assert member.row.name not in read
            read[member.row.name] = b"".join(member.chunks())
    assert read.keys() == {index.name(number) for number in numbers}


ranges = st.tuples(st.integers(0, 5000), st.integers(0, 700)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(wanted=st.lists(ranges, max_size=30), gap=st.integers(0, 500), most=st.integers(1, 3000))
def test_a_plan_covers_each_wanted_range_once(wanted: list[tuple[int, int]], gap: int, most: int) -> None:
    costs = RequestCosts(latency_s=1, bandwidth_bytes_per_s=max(gap, 1), most_request_bytes=most)
    each = [WantedRange(number=number, first_byte=a, end_byte=b) for number, (a, b) in enumerate(wanted)]
    plan = plan_requests(each, costs)
    assert sorted(number for request in plan for number in request.numbers) == list(range(len(wanted)))
    for request in plan:
        held = [wanted[number] for number in request.numbers]
        assert request.first_byte == min(a for a, _ in held)
        assert request.end_byte == max(b for _, b in held)
        assert request.size_bytes <= max(most, *(b - a for a, b in held))
    assert [request.first_byte for request in plan] == sorted(request.first_byte for request in plan)
    if most == 3000:
        return
    unbounded = plan_requests(each, dataclasses.replace(costs, most_request_bytes=1 << 40))
    for before, after in itertools.pairwise(unbounded):
        assert after.first_byte - before.end_byte > costs.largest_gap_bytes


PACKED = gzip.compress(pack_tar({f"{number}": content(number % 5, number, 40_000) for number in range(20)}))
INDEX = index_pass(PACKED).index(etag="x")
BODY = zstandard.decompress(encode_index(INDEX)[71:-32])
HEADER = encode_index(INDEX)[:70]


def signed(body: bytes) -> bytes:
    """A file that holds this body, its lengths and checksums right."""
    packed = zstandard.compress(body)
    content = HEADER[:54] + struct.pack("<QQ", len(packed), len(body)) + b"x" + packed
    return content + hashlib.sha256(content).digest()


def assert_reads_fail_cleanly(index: ArchiveIndex) -> None:
    for number in range(min(len(index), 40)):
        row = index.row(number)
        held = index.holding(number)
        index.find(row.name)
        if held != number or row.range_bytes > 2 * len(PACKED):
            continue
        try:
            got = b"".join(read_member(BytesSource(PACKED), row))
        except ArchiveError:
            continue
        assert digest(got) == row.digest


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(BODY) - 1), st.integers(1, 255)), min_size=1, max_size=4))
def test_a_changed_and_signed_index_is_refused_or_its_reads_fail_cleanly(changes: list[tuple[int, int]]) -> None:
    body = bytearray(BODY)
    for place, change in changes:
        body[place] ^= change
    try:
        index = decode_index(signed(bytes(body)))
    except ArchiveError:
        return
    assert_reads_fail_cleanly(index)


@settings(max_examples=200)
@given(st.binary(max_size=300), st.booleans())
@example(b"", True)
def test_bytes_that_are_no_index_are_refused(data: bytes, as_body: bool) -> None:
    try:
        index = decode_index(signed(data) if as_body else b"reelindx\2\0" + data)
    except ArchiveError:
        return
    assert len(index) == 0


numbers = st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-10, 10), st.integers(0, len(PACKED) * 8))
LONG_COLUMNS = [
    field.name
    for field in dataclasses.fields(INDEX.columns)
    if isinstance(getattr(INDEX.columns, field.name), np.ndarray)
    and getattr(INDEX.columns, field.name).dtype == np.int64
]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(LONG_COLUMNS), st.integers(0, 1000), numbers), min_size=1, max_size=3),
)
def test_columns_that_lie_are_refused_or_their_reads_fail_cleanly(lies: list[tuple[str, int, int]]) -> None:
    changed: dict[str, Any] = {}
    for name, place, number in lies:
        column = changed.setdefault(name, getattr(INDEX.columns, name).copy())
        if len(column):
            column[place % len(column)] = number
    columns = dataclasses.replace(INDEX.columns, **changed)
    try:
        columns.check(len(PACKED))
    except ArchiveError:
        return
    assert_reads_fail_cleanly(
        ArchiveIndex(
            identity=ArchiveIdentity(size_bytes=len(PACKED)),
            verification=Verification.CHECKSUM,
            complete=True,
            columns=columns,
        )
    )


@settings(max_examples=100, deadline=None)
@given(
    archive=st.one_of(st.binary(max_size=3000), st.just(PACKED)),
    bit=st.integers(0, 30_000),
    output=st.integers(0, 1 << 40),
    skip=st.integers(0, 100_000),
    size=st.integers(0, 100_000),
    end=st.integers(0, 1 << 40),
    stored=st.one_of(st.just(0), st.integers(1, 65_535)),
)
def test_any_row_over_any_bytes_fails_cleanly(  # noqa: PLR0917
    archive: bytes, bit: int, output: int, skip: int, size: int, end: int, stored: int
) -> None:
    point = SeekPoint(
        bit_offset=bit,
        output_offset=output,
        stored_left_bytes=stored,
        stored_is_last=False,
        places=np.zeros(0, np.uint16),
        values=b"",
    )
    row = IndexRow(
        name="x",
        kind=MemberKind.REGULAR,
        size_bytes=size,
        header_offset=output,
        data_offset=output + skip,
        compressed_end=end,
        digest=digest(b""),
        link_target=None,
        point=point,
    )
    try:
        got = b"".join(read_member(BytesSource(archive), row))
    except ArchiveError:
        return
    assert got == b""
