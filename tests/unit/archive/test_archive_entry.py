import gzip
import random
import struct
import zlib

import numpy as np
import pytest

from archive_entry_kit import WRITERS, CountingSource, blocked, media, tar_of, text
from reelstream.archive.cuts.candidates import dynamic_blocks, gzip_members, stored_blocks
from reelstream.archive.cuts.crc import crc32_combine
from reelstream.archive.cuts.entry import ENTRY_RULE_VERSION, Entry, EntryKind, NoEntry, NoEntryReason, find_entry
from reelstream.archive.inflation import frame_header_bytes
from reelstream.archive.source import BytesSource

CLIPS = [(f"clip_{number}.mp4", media(number, size)) for number, size in enumerate([150_000, 90_000, 400_000] * 4)]
TAR = tar_of(CLIPS)


def output_from(content: bytes, entry: Entry) -> bytes:
    inflation = entry.begin()
    inflation.give(content[entry.bit >> 3 :])
    out = []
    while not inflation.hungry:
        out.append(inflation.inflate(1 << 20))
    return b"".join(out)


@pytest.mark.parametrize("writer", sorted(WRITERS))
def test_what_follows_an_entry_is_what_was_packed(writer: str) -> None:
    content = WRITERS[writer](TAR)
    draw = random.Random(7)
    for _ in range(6):
        byte = draw.randrange(len(content) - 300_000)
        entry = find_entry(BytesSource(content), byte)
        assert isinstance(entry, Entry)
        assert 0 <= entry.searched_bytes <= 65_552
        true = output_from(content, entry)[entry.true_from :]
        assert TAR.endswith(true)
        assert zlib.crc32(true[: 1 << 15]) == entry.window_crc32


def test_a_search_reads_one_range_and_little_more_than_it_looks_at() -> None:
    content = WRITERS["python"](TAR)
    source = CountingSource(content)
    assert isinstance(find_entry(source, 123_456), Entry)
    assert source.num_ranges == 1
    assert source.read_bytes < 240_000


def test_a_gzip_member_is_entered_at_its_header() -> None:
    content = blocked(TAR)
    header = content.index(b"\x1f\x8b\x08\x04", 200_000)
    entry = find_entry(BytesSource(content), header)
    assert isinstance(entry, Entry)
    assert (entry.kind, entry.bit, entry.true_from) == (EntryKind.GZIP_MEMBER, 8 * header, 0)


def test_the_beginning_is_an_entry() -> None:
    entry = find_entry(BytesSource(WRITERS["python"](TAR)), 0)
    assert isinstance(entry, Entry)
    assert (entry.kind, entry.bit, entry.true_from) == (EntryKind.GZIP_MEMBER, 0, 0)


def test_text_is_known_as_what_depends_on_all_before_it() -> None:
    content = gzip.compress(text(1, 12_000_000), 6, mtime=0)
    assert find_entry(BytesSource(content), 300_000) == NoEntry(searched_from=300_000, reason=NoEntryReason.NOT_TRUE)


@pytest.mark.parametrize("byte", [0, 1, 19, 20])
def test_a_tiny_archive_ends_too_soon_to_be_entered(byte: int) -> None:
    content = gzip.compress(b"", mtime=0)
    assert len(content) == 20
    assert find_entry(BytesSource(content), byte) == NoEntry(searched_from=byte, reason=NoEntryReason.END_TOO_NEAR)


def test_bytes_that_are_no_gzip_have_no_entry() -> None:
    content = random.Random(3).randbytes(900_000)
    assert find_entry(BytesSource(content), 0) == NoEntry(searched_from=0, reason=NoEntryReason.NO_BLOCK)


def test_empty_blocks_without_end_end_the_search() -> None:
    source = CountingSource(b"\0\0\0\xff\xff" * 4_000_000)
    assert isinstance(find_entry(source, 1000), NoEntry)
    assert source.read_bytes < 10_000_000


def test_a_bomb_does_not_swell() -> None:
    content = gzip.compress(bytes(400_000_000), 9, mtime=0)
    assert isinstance(find_entry(BytesSource(content), 100_000), NoEntry)


def stored_header(size_bytes: int) -> bytes:
    return struct.pack("<BHH", 0, size_bytes, size_bytes ^ 0xFFFF)


def bomb_block() -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(bytes(4_000_000)) + compressor.flush(zlib.Z_FULL_FLUSH)


@pytest.mark.parametrize(
    "unit",
    [
        b"".join(stored_header(5 * left) for left in reversed(range(700))) + bomb_block()[:3800] + b"\7" * 8,
        b"\x1f\x8b\x08\0\0\0\0\0\0\xff" * 300 + bomb_block()[:3800] + b"\7" * 8,
        bomb_block()[:3500] + b"\7" * 8,
    ],
    ids=["stored blocks that lead to a bomb", "gzip headers before a bomb", "bombs that break"],
)
def test_places_that_are_all_but_blocks_are_not_tried_without_end(unit: bytes) -> None:
    content = unit * (600_000 // len(unit))
    assert find_entry(BytesSource(content), 1000) == NoEntry(searched_from=1000, reason=NoEntryReason.MISLEADING)


def test_damage_before_an_entry_does_not_hide_it_and_damage_after_it_moves_it_on() -> None:
    content = bytearray(WRITERS["python"](TAR))
    entry = find_entry(BytesSource(bytes(content)), 400_000)
    assert isinstance(entry, Entry)
    content[399_000:400_000] = bytes(1000)
    assert find_entry(BytesSource(bytes(content)), 400_000) == entry
    at = entry.compressed_position
    content[at : at + 2000] = random.Random(5).randbytes(2000)
    moved = find_entry(BytesSource(bytes(content)), 400_000)
    assert isinstance(moved, NoEntry) or moved.bit > entry.bit


@pytest.mark.parametrize("outer", ["python", "gzip -6", "stored", "bgzip"])
@pytest.mark.parametrize("inner", ["python", "gzip -1", "stored", "bgzip"])
def test_an_archive_inside_the_archive_is_not_entered_for_it(outer: str, inner: str) -> None:
    nested = WRITERS[inner](tar_of(CLIPS[:6]))
    whole = tar_of([CLIPS[0], ("nested.tar.gz", nested), CLIPS[1], CLIPS[2]])
    content = WRITERS[outer](whole)
    draw = random.Random(11)
    for _ in range(6):
        entry = find_entry(BytesSource(content), draw.randrange(200_000, len(nested) - 200_000))
        assert isinstance(entry, Entry)
        assert whole.endswith(output_from(content, entry)[entry.true_from :])


def bits_of(*fields: tuple[int, int]) -> int:
    value = shift = 0
    for field, width in fields:
        value |= field << shift
        shift += width
    return value


@pytest.mark.parametrize("bit", range(8))
def test_a_block_with_codes_of_its_own_is_told_at_every_bit(bit: int) -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    raw = compressor.compress(text(2, 30_000)) + compressor.flush(zlib.Z_FULL_FLUSH)
    assert raw[0] & 7 == 4
    shifted = (int.from_bytes(raw, "little") << 8 * 50 + bit).to_bytes(len(raw) + 51, "little")
    assert 8 * 50 + bit in dynamic_blocks(memoryview(shifted), 0, 100)


def test_codes_that_are_not_complete_are_no_block() -> None:
    lengths = [(1, 3)] * 3 + [(0, 3)] * 16  # three codes of one bit
    block = bits_of((4, 3), (0, 5), (0, 5), (15, 4), *lengths).to_bytes(40, "little")
    assert dynamic_blocks(memoryview(block), 0, 1) == []
    lengths = [(1, 3)] * 2 + [(0, 3)] * 17
    block = bits_of((4, 3), (0, 5), (0, 5), (15, 4), *lengths).to_bytes(40, "little")
    assert dynamic_blocks(memoryview(block), 0, 1) == [0]


def test_a_stored_block_is_told_by_its_length_and_its_complement() -> None:
    header = b"\x1f\x34\x12\xcb\xed"
    buffer = memoryview(bytes([7]) * 10 + header + bytes([7]) * 10)
    assert stored_blocks(buffer, 0, 20) == [10 * 8 + 5]
    assert stored_blocks(buffer, 11, 20) == []
    # The last three bits of the byte are the block's own or padding, and zeros.
    assert stored_blocks(memoryview(b"\x3f" + bytes(buffer[11:])), 0, 10) == []


def test_gzip_headers_are_told_by_magic_and_flags() -> None:
    buffer = memoryview(b"..\x1f\x8b\x08\0......\x1f\x8b\x08\xff......\x1f\x8b\x08\x1f...")
    assert gzip_members(buffer, 0, len(buffer)) == [2, 22]
    assert gzip_members(buffer, 3, len(buffer)) == [22]
    assert gzip_members(buffer, 0, 2) == []


def test_a_gzip_header_is_measured_with_all_its_fields_and_as_it_comes() -> None:
    header = b"\x1f\x8b\x08\x1e\0\0\0\0\0\xff" + b"\x03\0abc" + b"name\0" + b"comment\0" + b"\x12\x34"
    assert frame_header_bytes(header + b"data") == len(header)
    assert all(frame_header_bytes(header[:size]) is None for size in range(len(header)))
    with pytest.raises(zlib.error):
        frame_header_bytes(b"\x1f\x8b\x09")


@pytest.mark.parametrize("sizes", [(0, 0), (0, 5), (5, 0), (1, 1), (1000, 70_000), (3, 1_000_003)])
def test_checksums_of_two_pieces_combine(sizes: tuple[int, int]) -> None:
    first, second = (np.random.default_rng(size).bytes(size) for size in sizes)
    combined = crc32_combine(zlib.crc32(first), zlib.crc32(second), len(second))
    assert combined == zlib.crc32(first + second)


def test_checksums_combine_behind_many_gigabytes_as_behind_few_and_few() -> None:
    first, zeros = zlib.crc32(b"first"), zlib.crc32(bytes(1 << 20))
    crc32 = zeros
    for doubling in range(14):
        crc32 = crc32_combine(crc32, crc32, (1 << 20) << doubling)
    by_steps = first
    for _ in range(1 << 4):
        by_steps = crc32_combine(by_steps, zlib.crc32(bytes(1 << 10)), 1 << 10)
    assert by_steps == zlib.crc32(bytes(1 << 14), first)
    assert crc32_combine(crc32_combine(first, zeros, 1 << 20), crc32, 1 << 34) == crc32_combine(
        crc32_combine(first, crc32, 1 << 34), zeros, 1 << 20
    )


def stored_by_hand(content: bytes, block_bytes: int = 40_000) -> bytes:
    """A gzip file of stored blocks, the same whatever zlib this machine has."""
    out = [b"\x1f\x8b\x08\0\0\0\0\0\0\xff"]
    for start in range(0, len(content), block_bytes):
        block = content[start : start + block_bytes]
        last = start + block_bytes >= len(content)
        out.append(struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block)
    return b"".join(out) + struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)


def test_the_rule_finds_what_version_2_finds() -> None:
    # Saved states hold places that follow from the rule: another answer is another version.
    content = stored_by_hand(random.Random(1).randbytes(500_000))
    assert ENTRY_RULE_VERSION == 2
    assert find_entry(BytesSource(content), 90_000) == Entry(
        searched_from=90_000,
        kind=EntryKind.BLOCK,
        bit=8 * (10 + 3 * 40_005) + 5,
        true_from=0,
        window_crc32=zlib.crc32(random.Random(1).randbytes(500_000)[120_000 : 120_000 + (1 << 15)]),
    )
