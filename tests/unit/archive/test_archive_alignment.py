import random
import zlib
from pathlib import Path

import pytest

from reelstream.archive.alignment import (
    HIGH_MARKS,
    INVERSE_MARKS,
    LOW_MARKS,
    WINDOW_BYTES,
    aligned_byte,
    raw_inflater,
)
from reelstream.archive.source import BytesSource, FileSource, read_range

TEXT = b"the quick brown fox jumps over the lazy dog. " * 40


def raw_deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(content) + compressor.flush()


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("garbage", [0, 0x55, 0xFF])
def test_an_inflater_begins_at_any_bit(bit: int, garbage: int) -> None:
    raw = raw_deflate(TEXT)
    shifted = (int.from_bytes(raw, "little") << bit | garbage & (1 << bit) - 1).to_bytes(len(raw) + 1, "little")
    inflater = raw_inflater()
    assert inflater.decompress(aligned_byte(shifted[0], bit) + shifted[1:]) == TEXT
    assert inflater.eof


def test_a_byte_that_begins_at_bit_0_stays_as_it_is() -> None:
    assert [aligned_byte(value, 0) for value in (0, 200)] == [b"\0", b"\xc8"]


def test_the_marks_tell_every_place_of_the_window_and_opposite_ones_differ_everywhere() -> None:
    assert [low | high << 8 for low, high in zip(LOW_MARKS, HIGH_MARKS, strict=True)] == list(range(WINDOW_BYTES))
    assert all(low != inverse for low, inverse in zip(LOW_MARKS, INVERSE_MARKS, strict=True))


def test_an_inflater_takes_references_into_the_window_it_was_given() -> None:
    window = random.Random(1).randbytes(WINDOW_BYTES)
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=window)
    raw = compressor.compress(window[1000:1300]) + compressor.flush()
    assert len(raw) < 50
    assert raw_inflater(window).decompress(raw) == window[1000:1300]


def test_sources_yield_any_range_in_bounded_chunks(tmp_path: Path) -> None:
    content = random.Random(2).randbytes(600_000)
    path = tmp_path / "file"
    path.write_bytes(content)
    for source in (FileSource(path), BytesSource(content, chunk_bytes=7777)):
        assert source.size_bytes == len(content)
        assert read_range(source, 5, 599_999) == content[5:599_999]
        assert read_range(source, 600_000, 600_000) == b""
        assert max(map(len, source.read(0, 600_000))) <= 1 << 18
