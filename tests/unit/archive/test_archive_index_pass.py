"""The pass that streams members and learns the index."""

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
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive_index_kit import (
    LIBRARIES,
    chunked,
    index_pass,
    inflation,
    media,
    standard_files,
    unpacked_by_gnu_tar,
    writers,
)
from reelstream.archive import GunzipReader, read_members
from reelstream.archive.seek.index import MemberKind, Verification
from reelstream.archive.seek.indexing import IndexingPass
from reelstream.archive.seek.inflate import BlockInflation
from reelstream.archive.seek.member_range import read_member
from reelstream.archive.source import BytesSource
from reelstream.errors import ArchiveChecksumError, ArchiveError, NetworkError
from reelstream.testing import pack_tar

STANDARD = pack_tar(standard_files())


class CountingSource(BytesSource):
    """Counts the ranges that are asked for."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.ranges: list[tuple[int, int]] = []

    def read(self, first_byte: int, end_byte: int) -> Iterator[bytes]:
        self.ranges.append((first_byte, end_byte))
        return super().read(first_byte, end_byte)


@pytest.fixture(scope="module", params=list(writers()))
def packed(request: pytest.FixtureRequest) -> bytes:
    return writers()[request.param](STANDARD)


@pytest.mark.parametrize("library", LIBRARIES)
def test_each_member_read_by_one_range_is_what_gnu_tar_unpacks(packed: bytes, library: str) -> None:
    index = index_pass(packed, library).index()
    index.columns.check(len(packed))
    expected = unpacked_by_gnu_tar(packed)
    assert {row.name for row in index} == set(expected)
    for row in index:
        source = CountingSource(packed)
        assert b"".join(read_member(source, row)) == expected[row.name], row.name
        assert source.ranges == ([(row.first_byte, row.compressed_end)] if row.size_bytes else [])


@pytest.mark.parametrize("library", LIBRARIES)
def test_members_are_streamed_as_without_an_index(packed: bytes, library: str) -> None:
    plain = [
        (member.name, member.size_bytes, member.problem, b"".join(member.chunks()))
        for member in read_members(GunzipReader(chunked(packed), "a.tar.gz"), "a.tar.gz")
    ]
    one_pass = IndexingPass(chunked(packed), "a.tar.gz", inflation=inflation(library))
    indexed = [
        (member.name, member.size_bytes, member.problem, b"".join(member.chunks())) for member in one_pass.members()
    ]
    assert indexed == plain
    assert one_pass.verification is Verification.CHECKSUM
    assert one_pass.complete


@pytest.mark.parametrize("chunk_bytes", [1, 7, 4096, 1 << 24])
def test_the_index_does_not_depend_on_how_the_bytes_arrive(chunk_bytes: int) -> None:
    packed = gzip.compress(pack_tar({"a": media(1, 20_000), "b": media(2, 30_000)}))
    index = index_pass(packed, chunk_bytes=chunk_bytes).index()
    source = BytesSource(packed, chunk_bytes=3)
    assert [b"".join(read_member(source, row)) for row in index] == [media(1, 20_000), media(2, 30_000)]


def test_the_digest_does_not_depend_on_who_reads_the_member() -> None:
    packed = gzip.compress(STANDARD)
    one_pass = IndexingPass(chunked(packed), "a.tar.gz")
    for number, member in enumerate(one_pass.members()):
        if number % 3 == 0:
            next(member.chunks(), None)
        elif number % 3 == 1:
            b"".join(member.chunks())
    assert [row.digest for row in one_pass.index()] == [row.digest for row in index_pass(packed).index()]
    for row in one_pass.index():
        assert row.digest == hashlib.sha256(standard_files()[row.name]).digest()[:16]


def test_pieces_stay_valid_when_the_next_ones_are_read() -> None:
    content = media(3, 900_000)
    one_pass = IndexingPass(chunked(gzip.compress(pack_tar({"a": content}))), "a.tar.gz")
    for member in one_pass.members():
        kept = list(member.chunks())
    assert b"".join(kept) == content


def test_rows_come_while_the_archive_streams() -> None:
    files = {f"{number}.mp4": media(number, 600_000) for number in range(4)}
    one_pass = IndexingPass(chunked(gzip.compress(pack_tar(files))), "a.tar.gz")
    counts = []
    for member in one_pass.members():
        b"".join(member.chunks())
        counts.append(len(one_pass.take_rows()))
    assert counts == [0, 1, 1, 1]
    assert one_pass.verification is Verification.CHECKSUM
    assert [row.name for row in one_pass.take_rows()] == ["3.mp4"]
    assert one_pass.take_rows() == []
    assert len(one_pass.index()) == 4


def test_a_large_member_is_read_from_the_last_block_before_it() -> None:
    files = {f"{number}.mp4": media(number, 1_200_000) for number in range(3)}
    packed = gzip.compress(pack_tar(files))
    before = 0
    for row in index_pass(packed).index():
        own_bytes = row.compressed_end - before
        before = row.compressed_end
        assert row.range_bytes - own_bytes < 35_000


def test_inside_a_stored_block_a_member_is_read_from_its_header() -> None:
    packed = gzip.compress(pack_tar({f"{number}.mp4": media(number, 700_000) for number in range(3)}), 0)
    rows = list(index_pass(packed).index())
    assert all(row.point.output_offset == row.header_offset for row in rows)
    assert any(row.point.stored_left_bytes for row in rows)


def test_small_members_share_a_point() -> None:
    files = {f"{number}.jpg": media(number, 9000) for number in range(150)}
    index = index_pass(gzip.compress(pack_tar(files))).index()
    assert 2 <= index.num_points <= 6
    outputs = index.columns.point_outputs
    assert all(after - before >= 1 << 18 for before, after in itertools.pairwise(outputs))


def test_media_keep_few_bytes_of_the_window() -> None:
    files = {f"{number}.mp4": random.Random(number).randbytes(400_000) for number in range(5)}
    index = index_pass(gzip.compress(pack_tar(files))).index()
    assert len(index.columns.values) < 100 * index.num_points


def test_hard_links_lead_to_the_member_that_has_the_bytes() -> None:
    content = media(5, 50_000)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo("./first.mp4")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
        for name, kind, target in (
            ("second.mp4", tarfile.LNKTYPE, "first.mp4"),
            ("third.mp4", tarfile.LNKTYPE, "second.mp4"),
            ("lost.mp4", tarfile.LNKTYPE, "later.mp4"),
            ("self.mp4", tarfile.LNKTYPE, "self.mp4"),
            ("symbolic.mp4", tarfile.SYMTYPE, "first.mp4"),
            ("device", tarfile.CHRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
        tar.addfile(tarfile.TarInfo("later.mp4"))
    index = index_pass(packed.getvalue()).index()
    assert [index.name(number) for number in range(len(index))] == [
        *("./first.mp4", "second.mp4", "third.mp4", "lost.mp4", "self.mp4", "later.mp4")
    ]
    assert index.row(1).kind is MemberKind.HARD_LINK
    assert index.row(1).link_target == "first.mp4"
    assert [index.holding(number) for number in range(6)] == [0, 0, 0, None, None, 5]
    holder = index.row(index.holding(2) or 0)
    assert b"".join(read_member(BytesSource(packed.getvalue()), holder)) == content


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
@pytest.mark.parametrize("tar_format", ["gnu", "posix"])
def test_what_lies_behind_a_sparse_member_is_found(tmp_path: Path, tar_format: str) -> None:
    with (tmp_path / "sparse.bin").open("wb") as sparse:
        sparse.seek(3_000_000)
        sparse.write(b"end")
    (tmp_path / "behind.mp4").write_bytes(media(6, 40_000))
    command = ["tar", f"--format={tar_format}", "-S", "-czf", "-", "-C", str(tmp_path), "sparse.bin", "behind.mp4"]
    packed = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    rows = list(index_pass(packed).index())
    assert [row.name for row in rows] == ["behind.mp4"]
    assert b"".join(read_member(BytesSource(packed), rows[0])) == media(6, 40_000)


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_kept_whole(tar_format: int) -> None:
    names = ["d/" * 200 + "ä" * 300 + f"{number}.mp4" for number in range(30)]
    packed = gzip.compress(pack_tar({name: name.encode() * 50 for name in names}, tar_format=tar_format))
    index = index_pass(packed).index()
    assert [row.name for row in index] == names
    for name in names:
        number = index.find(name)
        assert number is not None
        assert b"".join(read_member(BytesSource(packed), index.row(number))) == name.encode() * 50


def test_the_published_sha256_is_checked_at_the_end() -> None:
    packed = gzip.compress(STANDARD)
    digest = hashlib.sha256(packed).hexdigest()
    one_pass = IndexingPass(chunked(packed), "a.tar.gz", sha256=digest)
    assert len(list(one_pass.members())) == len(standard_files()) - 1
    assert one_pass.verification is Verification.SHA256
    assert one_pass.index().identity.sha256 == digest
    wrong = IndexingPass(chunked(packed), "a.tar.gz", sha256="0" * 64)
    with pytest.raises(ArchiveChecksumError, match="SHA-256"):
        list(wrong.members())
    assert wrong.verification is Verification.FAILED


def test_a_flipped_bit_is_found_at_the_end_and_fails_the_index() -> None:
    packed = bytearray(gzip.compress(STANDARD, 0))
    packed[400_000] ^= 4
    one_pass = IndexingPass(chunked(bytes(packed)), "a.tar.gz")
    at_first = one_pass.verification
    with pytest.raises(ArchiveChecksumError):
        list(one_pass.members())
    assert (at_first, one_pass.verification) == (Verification.PROVISIONAL, Verification.FAILED)
    assert len(one_pass.index()) > 0  # what to book as suspect


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.99999])
def test_an_archive_cut_short_is_refused_and_its_rows_before_are_right(kept: float) -> None:
    packed = gzip.compress(STANDARD)
    cut = packed[: int(len(packed) * kept)]
    one_pass = IndexingPass(chunked(cut), "a.tar.gz")
    with pytest.raises(ArchiveError):
        list(one_pass.members())
    assert one_pass.verification is Verification.FAILED
    assert not one_pass.complete
    for row in one_pass.take_rows():
        assert b"".join(read_member(BytesSource(packed), row)) == standard_files()[row.name]


def test_a_damaged_tar_is_read_on_to_the_trailer_which_judges() -> None:
    damaged = bytearray(pack_tar({"a": media(1, 5000), "b": media(2, 5000), "c": media(3, 500_000)}))
    start = 512 + 5120
    damaged[start : start + 512] = random.Random(1).randbytes(512)
    one_pass = IndexingPass(chunked(gzip.compress(bytes(damaged))), "a.tar.gz")
    with pytest.raises(ArchiveError, match="the tar is damaged at byte"):
        list(one_pass.members())
    assert one_pass.verification is Verification.CHECKSUM
    assert not one_pass.complete
    assert [row.name for row in one_pass.index()] == ["a"]


def test_garbage_after_the_archive_is_refused() -> None:
    one_pass = IndexingPass(chunked(gzip.compress(STANDARD) + b"garbage!"), "a.tar.gz")
    with pytest.raises(ArchiveError):
        list(one_pass.members())
    assert one_pass.verification is Verification.FAILED


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"", mtime=0), gzip.compress(b"x" * 700, mtime=0)],
    ids=["nothing", "text", "an empty file", "a file that is no tar"],
)
def test_what_is_no_archive_is_refused_or_empty(content: bytes) -> None:
    one_pass = IndexingPass(chunked(content), "a.tar.gz")
    plain = read_members(GunzipReader(chunked(content), "a.tar.gz"), "a.tar.gz")
    try:
        expected = len(list(plain))
    except ArchiveError:
        with pytest.raises(ArchiveError):
            list(one_pass.members())
    else:
        assert len(list(one_pass.members())) == expected == 0


def test_an_error_of_the_source_passes_through_and_leaves_the_rows_provisional() -> None:
    def broken() -> Iterator[bytes]:
        yield from list(chunked(gzip.compress(STANDARD)))[:20]
        raise NetworkError("the line is down")

    one_pass = IndexingPass(broken(), "a.tar.gz")
    with pytest.raises(NetworkError):
        list(one_pass.members())
    assert one_pass.verification is Verification.PROVISIONAL
    assert one_pass.take_rows()


def test_a_pass_that_is_given_up_leaves_its_rows_provisional() -> None:
    members = (one_pass := IndexingPass(chunked(gzip.compress(STANDARD)), "a.tar.gz")).members()
    for _ in range(5):
        next(members)
    members.close()  # type: ignore[attr-defined]
    assert one_pass.verification is Verification.PROVISIONAL
    assert [row.name for row in one_pass.index(size_bytes=1 << 30)] == ["clips/0.mp4", "clips/empty.mp4"] + [
        f"notes/{number}.json" for number in range(2)
    ]


def test_without_a_library_members_are_streamed_and_it_is_said_why_there_is_no_index() -> None:
    nothing = BlockInflation(library=None, problem="zlib: no zlib can be called here")
    one_pass = IndexingPass(chunked(gzip.compress(STANDARD)), "a.tar.gz", inflation=nothing)
    assert one_pass.problem == "zlib: no zlib can be called here"
    assert len([b"".join(member.chunks()) for member in one_pass.members()]) == len(standard_files()) - 1
    assert one_pass.verification is Verification.CHECKSUM
    assert len(one_pass.index()) == 0


def test_memory_stays_bounded_in_a_giant_block_and_in_a_bomb() -> None:
    giant = fixed_block(media(1, 1000) * 6000)  # 6 MB in one block
    bomb = gzip.compress(pack_tar({"zeros": bytes(30_000_000), "b": media(1, 5000)}), 9)
    for packed in (giant, bomb):
        index_pass(packed)  # what is loaded once
        tracemalloc.start()
        one_pass = index_pass(packed)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 9_000_000
        for row in one_pass.take_rows():
            assert hashlib.sha256(b"".join(read_member(BytesSource(packed), row))).digest()[:16] == row.digest


def fixed_block(content: bytes) -> bytes:
    """Return a tar.gz whose deflate stream is one stored-free block, whatever its size."""
    tar = pack_tar({"first": content, "second": b"the end"})
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_FIXED)
    body = compressor.compress(tar) + compressor.flush()
    trailer = struct.pack("<II", zlib.crc32(tar), len(tar) & 0xFFFFFFFF)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + body + trailer


def test_millions_of_empty_blocks_are_passed_over() -> None:
    tar = pack_tar({"a": media(1, 3000), "b": media(2, 3000)})
    # An empty fixed block is 10 bits; four of them are whole bytes.
    flood = sum(2 << (10 * number) for number in range(4)).to_bytes(5, "little") * 200_000
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = flood + compressor.compress(tar[:4000]) + compressor.flush(zlib.Z_FULL_FLUSH) + flood
    body += compressor.compress(tar[4000:]) + compressor.flush()
    packed = b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + body + struct.pack("<II", zlib.crc32(tar), len(tar))
    rows = index_pass(packed).take_rows()
    assert [b"".join(read_member(BytesSource(packed), row)) for row in rows] == [media(1, 3000), media(2, 3000)]
