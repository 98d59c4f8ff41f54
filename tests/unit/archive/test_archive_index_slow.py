"""What takes longer: a member behind more than 4 GiB of output, and clips that a codec made."""

from __future__ import annotations

import io
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive_index_kit import LIBRARIES, index_pass, inflation, media, unpacked_by_gnu_tar, writers
from reelstream.archive.seek.index_format import decode_index, encode_index
from reelstream.archive.seek.indexing import IndexingPass
from reelstream.archive.seek.member_range import read_member
from reelstream.archive.source import BytesSource
from reelstream.sampledata import SampleOptions, make_sample

FAR_BYTES = (1 << 32) + (1 << 20)


def packed_behind_zeros(content: bytes) -> bytes:
    """Return a tar.gz of more than 4 GiB of zeros and then a member; 4 MB in all."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
    packed = bytearray()
    zeros = tarfile.TarInfo("zeros.bin")
    zeros.size = FAR_BYTES
    packed += compressor.compress(zeros.tobuf(tarfile.GNU_FORMAT))
    for _ in range(FAR_BYTES >> 20):
        packed += compressor.compress(bytes(1 << 20))
    behind = io.BytesIO()
    with tarfile.open(fileobj=behind, mode="w") as tar:
        info = tarfile.TarInfo("behind.mp4")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return bytes(packed + compressor.compress(behind.getvalue()) + compressor.flush())


@pytest.mark.slow
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_member_behind_4_gib_is_read_by_one_range(library: str) -> None:
    content = media(1, 1_500_000)
    packed = packed_behind_zeros(content)

    def chunks() -> Iterator[bytes]:
        return BytesSource(packed).read(0, len(packed))

    one_pass = IndexingPass(chunks(), "far.tar.gz", inflation=inflation(library))
    for member in one_pass.members():
        if member.size_bytes == len(content):
            assert b"".join(member.chunks()) == content
    index = decode_index(encode_index(one_pass.index(etag="x")))
    row = index.row(1)
    assert row.data_offset > 1 << 32
    assert row.range_bytes < len(content) + 400_000
    assert b"".join(read_member(BytesSource(packed), row)) == content


@pytest.mark.slow
@pytest.mark.parametrize("clip_bytes", [200_000, 1_500_000])
def test_clips_of_a_codec_are_read_from_little_more_than_their_own_bytes(clip_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        options = SampleOptions(
            num_clips=16,
            num_archives=2,
            num_heldout=0,
            clip_bytes=clip_bytes,
            min_duration_s=2,
            max_duration_s=4,
        )
        make_sample(Path(name), options)
        tar = zlib.decompress(next(Path(name).rglob("*.tar.gz")).read_bytes(), 31)
    for writer, write in writers().items():
        packed = write(tar)
        index = index_pass(packed).index(etag="x")
        expected = unpacked_by_gnu_tar(packed)
        assert len(index) == len(expected)
        own_bytes = before = 0
        for row in index:
            assert b"".join(read_member(BytesSource(packed), row)) == expected[row.name]
            own_bytes += row.compressed_end - before
            before = row.compressed_end
        if clip_bytes > 1_000_000 and writer != "fixed":
            # bgzip's blocks are the largest of these: 64 KiB, of which half is read in vain.
            most = 1.03 if writer == "bgzip" else 1.02
            assert sum(row.range_bytes for row in index) < most * own_bytes, writer
            assert len(encode_index(index)) < 700 + 0.0003 * len(packed), writer
