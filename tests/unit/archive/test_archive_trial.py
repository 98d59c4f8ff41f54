"""Trials: from where on two outputs agree, and which blocks are not the archive's own."""

from __future__ import annotations

import random
import zlib

import pytest

from archive_entry_kit import blocked, media, tar_of, text
from reelstream.archive.cuts.candidates import Candidate, dynamic_blocks, landmarks
from reelstream.archive.cuts.feed import Feed
from reelstream.archive.cuts.trial import Trials, _Comparison
from reelstream.archive.source import BytesSource

WINDOW_BYTES = 1 << 15


def agree_from(differ: list[int], size_bytes: int) -> int | None:
    """The same as `_Comparison.true_from`, one place after the other."""
    start = 0
    for place in [*differ, size_bytes]:
        if place - start >= WINDOW_BYTES:
            return start
        start = place + 1
    return None


@pytest.mark.parametrize("seed", range(40))
def test_outputs_agree_from_where_32_kib_agree_first(seed: int) -> None:
    draw = random.Random(seed)
    size_bytes = draw.choice([20_000, WINDOW_BYTES, WINDOW_BYTES + 1, 200_000])
    one = random.Random(1).randbytes(size_bytes)
    other = bytearray(one)
    differ = sorted(draw.sample(range(size_bytes), draw.choice([0, 1, 2, 5, 9, 40])))
    for place in differ:
        other[place] ^= 0xFF
    compare = _Comparison()
    at = 0
    while at < size_bytes:
        end = at + draw.choice([0, 1, 1000, WINDOW_BYTES, 70_000])
        compare.add(one[at:end], bytes(other[at:end]))
        at = end
    start = agree_from(differ, size_bytes)
    assert compare.true_from == start
    assert start is None or compare.window_crc32() == zlib.crc32(one[start : start + WINDOW_BYTES])


def test_stretches_of_exactly_32_kib_agree_enough() -> None:
    for gap, found in [(WINDOW_BYTES - 1, None), (WINDOW_BYTES, 11)]:
        compare = _Comparison()
        output = bytes(11 + gap + 1)
        compare.add(output, output[:10] + b"1" + output[11 : 11 + gap] + b"1")
        assert compare.true_from == found


def trials_of(content: bytes) -> Trials:
    return Trials(Feed(BytesSource(content), 0, expected_bytes=1 << 18))


def test_the_blocks_of_an_archive_explain_each_other() -> None:
    content = zlib.compress(tar_of([("notes", text(1, 900_000)), ("clip", media(1, 400_000))]), 6, 31)
    trials = trials_of(content)
    found = [Candidate(bit) for bit in dynamic_blocks(memoryview(content), 0, 150_000)]
    found += landmarks(memoryview(content), 0, len(content) - 200_000)
    proven = [candidate for candidate in found if trials.prove(candidate)]
    assert len(proven) > 4
    assert not any(trials.is_contradicted(candidate) for candidate in proven)


def test_what_is_stored_inside_a_block_is_contradicted_by_the_block_after_it() -> None:
    inner = blocked(text(2, 1_500_000))
    compressor = zlib.compressobj(0, zlib.DEFLATED, 31)
    content = compressor.compress(inner) + compressor.flush()
    trials = trials_of(content)
    inner_header = landmarks(memoryview(content), 100_000, 200_000)
    proven = [candidate for candidate in inner_header if trials.prove(candidate)]
    assert any(candidate.is_member for candidate in proven)
    assert {candidate.is_member for candidate in proven if not trials.is_contradicted(candidate)} == {False}
