from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelstream.hubserver.ranges import ByteRange, RangeRequest, parse_range


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-99", RangeRequest(0, 99)),
        ("bytes=100-", RangeRequest(100, None)),
        ("bytes=-5", RangeRequest(None, 5)),
        ("Bytes = 0 - 99 ", RangeRequest(0, 99)),
    ],
)
def test_one_range_is_read(header: str, expected: RangeRequest) -> None:
    assert parse_range(header) == expected


@pytest.mark.parametrize("header", [None, "", "bytes=-", "bytes=5-4", "bytes=0-1,5-6", "items=0-1", "bytes=a-b", "0-1"])
def test_what_is_not_one_range_of_bytes_is_ignored(header: str | None) -> None:
    assert parse_range(header) is None


@pytest.mark.parametrize(
    ("header", "size_bytes", "expected"),
    [
        ("bytes=0-99", 1000, ByteRange(0, 100)),
        ("bytes=0-99", 50, ByteRange(0, 50)),
        ("bytes=10-", 50, ByteRange(10, 50)),
        ("bytes=-10", 50, ByteRange(40, 50)),
        ("bytes=-100", 50, ByteRange(0, 50)),
        ("bytes=50-", 50, None),
        ("bytes=-0", 50, None),
        ("bytes=0-", 0, None),
    ],
)
def test_a_range_is_cut_to_the_file(header: str, size_bytes: int, expected: ByteRange | None) -> None:
    wanted = parse_range(header)
    assert wanted is not None
    assert wanted.within(size_bytes) == expected


@given(first=st.integers(0, 200), length=st.integers(1, 200), size_bytes=st.integers(0, 200))
def test_a_range_holds_the_bytes_that_slicing_would(first: int, length: int, size_bytes: int) -> None:
    content = bytes(range(200))[:size_bytes]
    wanted = parse_range(f"bytes={first}-{first + length - 1}")
    assert wanted is not None
    chosen = wanted.within(size_bytes)
    assert (content[chosen.first : chosen.end] if chosen else b"") == content[first : first + length]


@given(st.builds(RangeRequest, st.integers(0, 9), st.none() | st.integers(9, 99)))
def test_a_range_reads_back_what_it_writes(wanted: RangeRequest) -> None:
    assert parse_range(str(wanted)) == wanted
