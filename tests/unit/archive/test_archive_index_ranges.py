"""Members read from ranges, and the plan of which ranges to ask for."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import random
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from archive_index_kit import index_pass, media, standard_files, writers
from reelstream.archive.seek.coalesce import PlannedRequest, RequestCosts, WantedRange, plan_requests, plan_rows
from reelstream.archive.seek.index import ArchiveIndex, IndexRow
from reelstream.archive.seek.member_range import read_member, read_rows
from reelstream.archive.seek.seek_points import SeekPoint
from reelstream.archive.source import BytesSource
from reelstream.errors import ArchiveChecksumError, ArchiveError
from reelstream.testing import pack_tar

FILES = standard_files()
PACKED = gzip.compress(pack_tar(FILES))


@pytest.fixture(scope="module")
def index() -> ArchiveIndex:
    return index_pass(PACKED).index()


def row_named(index: ArchiveIndex, name: str) -> IndexRow:
    number = index.find(name)
    assert number is not None
    return index.row(number)


@pytest.mark.parametrize("writer", list(writers()))
def test_neighbours_come_from_one_range(writer: str) -> None:
    packed = writers()[writer](pack_tar(FILES))
    index = index_pass(packed).index()
    wanted = [index.row(number) for number in range(1, len(index), 3)]
    ranges = []

    class Source(BytesSource):
        def read(self, first_byte: int, end_byte: int) -> Iterator[bytes]:
            ranges.append((first_byte, end_byte))
            return super().read(first_byte, end_byte)

    read = {member.row.name: b"".join(member.chunks()) for member in read_rows(Source(packed), wanted)}
    assert read == {row.name: FILES[row.name] for row in wanted}
    assert len(ranges) == 1


def test_a_member_that_is_passed_over_costs_the_next_nothing_but_time(index: ArchiveIndex) -> None:
    rows = list(index)
    read = {}
    for number, member in enumerate(read_rows(BytesSource(PACKED), rows)):
        if number % 2:
            read[member.row.name] = b"".join(member.chunks())
        else:
            next(member.chunks(), None)
    assert read == {row.name: FILES[row.name] for row in rows[1::2]}


def test_no_rows_are_no_request() -> None:
    assert list(read_rows(BytesSource(b""), [])) == []


def test_the_range_is_given_up_where_the_reader_stops(index: ArchiveIndex) -> None:
    closed = []

    class Source(BytesSource):
        def read(self, first_byte: int, end_byte: int) -> Iterator[bytes]:
            try:
                yield from super().read(first_byte, end_byte)
            finally:
                closed.append(True)

    chunks = read_member(Source(PACKED, chunk_bytes=1000), row_named(index, "clips/1.mp4"))
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert closed == [True]


def test_bytes_that_changed_are_refused_at_the_end_of_the_member(index: ArchiveIndex) -> None:
    row = row_named(index, "clips/1.mp4")
    draw = random.Random(1)
    for _ in range(40):
        damaged = bytearray(PACKED)
        damaged[draw.randrange(row.first_byte + 40_000, row.compressed_end)] ^= 1 << draw.randrange(8)
        if damaged[row.first_byte : row.compressed_end] != PACKED[row.first_byte : row.compressed_end]:
            with pytest.raises(ArchiveError):
                b"".join(read_member(BytesSource(bytes(damaged)), row))


def test_another_archives_bytes_are_refused(index: ArchiveIndex) -> None:
    for other in (bytes(len(PACKED)), b"\xff" * len(PACKED), random.Random(2).randbytes(len(PACKED)), b"", PACKED[:9]):
        with pytest.raises(ArchiveError):
            b"".join(read_member(BytesSource(other), row_named(index, "clips/1.mp4")))


@pytest.mark.parametrize(
    "lie",
    [
        {"size_bytes": 10**12},
        {"size_bytes": 5},
        {"data_offset": 10**12},
        {"data_offset": 0},
        {"compressed_end": 10**12},
        {"compressed_end": 1},
        {"digest": bytes(16)},
    ],
)
def test_a_row_that_lies_fails_cleanly(index: ArchiveIndex, lie: dict[str, int | bytes]) -> None:
    row = dataclasses.replace(row_named(index, "clips/1.mp4"), **lie)  # type: ignore[arg-type]
    if "compressed_end" in lie and lie["compressed_end"] == 10**12:
        assert b"".join(read_member(BytesSource(PACKED), row)) == FILES["clips/1.mp4"]
        return
    with pytest.raises(ArchiveError):
        b"".join(read_member(BytesSource(PACKED), row))


def test_a_point_that_lies_fails_cleanly(index: ArchiveIndex) -> None:
    row = row_named(index, "clips/2.mp4")
    lies: list[dict[str, object]] = [
        {"bit_offset": row.point.bit_offset + 1},
        {"bit_offset": len(PACKED) * 16},
        {"output_offset": row.point.output_offset + 7},
        {"stored_left_bytes": 65535},
        {"stored_left_bytes": 3, "stored_is_last": True},
    ]
    for lie in lies:
        point = dataclasses.replace(row.point, **lie)  # type: ignore[arg-type]
        with pytest.raises(ArchiveError):
            b"".join(read_member(BytesSource(PACKED), dataclasses.replace(row, point=point)))


def test_a_bomb_is_read_in_bounded_memory() -> None:
    bomb = gzip.compress(bytes(200_000_000), 9)
    point = SeekPoint(
        bit_offset=80,
        output_offset=0,
        stored_left_bytes=0,
        stored_is_last=False,
        places=np.zeros(0, np.uint16),
        values=b"",
    )
    row = dataclasses.replace(
        next(iter(index_pass(PACKED).index())),
        data_offset=100_000_000,
        size_bytes=90_000_000,
        compressed_end=len(bomb),
        digest=hashlib.sha256(bytes(90_000_000)).digest()[:16],
        point=point,
    )
    tracemalloc.start()
    assert sum(map(len, read_member(BytesSource(bomb), row))) == 90_000_000
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 3_000_000


def wanted(*ranges: tuple[int, int]) -> list[WantedRange]:
    return [WantedRange(number=number, first_byte=a, end_byte=b) for number, (a, b) in enumerate(ranges)]


def test_a_gap_is_read_through_where_that_takes_no_longer_than_asking_anew() -> None:
    costs = RequestCosts(latency_s=0.05, bandwidth_bytes_per_s=2000, most_request_bytes=10_000)
    assert costs.largest_gap_bytes == 100
    assert plan_requests(wanted((0, 10), (110, 120), (221, 230)), costs) == [
        PlannedRequest(first_byte=0, end_byte=120, numbers=(0, 1)),
        PlannedRequest(first_byte=221, end_byte=230, numbers=(2,)),
    ]


def test_a_request_ends_before_it_grows_too_large_unless_one_member_is() -> None:
    costs = RequestCosts(most_request_bytes=100)
    planned = plan_requests(wanted((0, 60), (50, 90), (90, 130), (130, 700), (200, 300)), costs)
    assert [(each.first_byte, each.end_byte, each.numbers) for each in planned] == [
        (0, 90, (0, 1)),
        (90, 130, (2,)),
        (130, 700, (3, 4)),
    ]
    assert [each.size_bytes for each in planned] == [90, 40, 570]


def test_costs_that_make_no_sense_are_refused() -> None:
    for wrong in ({"latency_s": -1.0}, {"bandwidth_bytes_per_s": 0.0}, {"most_request_bytes": 0}):
        with pytest.raises(ValueError, match="above 0"):
            RequestCosts(**wrong)


def test_wanted_rows_are_planned_once_each_and_read_by_the_plan(index: ArchiveIndex) -> None:
    numbers = [5, 3, 5, 20, len(index) - 1, 1, 0]
    plan = plan_rows(index, numbers, RequestCosts(latency_s=0.01, bandwidth_bytes_per_s=1e6))
    assert len(plan) > 1
    read = {}
    for request in plan:
        for member in read_rows(BytesSource(PACKED), [index.row(number) for number in request.numbers]):
            read[member.row.name] = b"".join(member.chunks())
    assert read == {index.name(number): FILES[index.name(number)] for number in numbers}


def test_the_digest_of_the_row_is_what_is_compared(index: ArchiveIndex) -> None:
    row = dataclasses.replace(row_named(index, "one"), digest=hashlib.sha256(b"y").digest()[:16])
    with pytest.raises(ArchiveChecksumError, match="not those that its index was learned from"):
        b"".join(read_member(BytesSource(PACKED), row))


def test_an_empty_member_needs_no_bytes() -> None:
    packed = gzip.compress(pack_tar({"empty": b"", "b": media(1, 100)}))
    row = next(iter(index_pass(packed).index()))
    assert row.range_bytes == 0
    assert b"".join(read_member(BytesSource(b""), row)) == b""
