"""The file of an archive index, and looking members up in it."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from archive_index_kit import chunked, index_pass, media, standard_files
from reelstream.archive.seek.index import ArchiveIdentity, ArchiveIndex, IndexColumns, Verification
from reelstream.archive.seek.index_format import decode_index, encode_index, index_file_name, read_index, write_index
from reelstream.archive.seek.indexing import IndexingPass
from reelstream.errors import ArchiveError, DiskError
from reelstream.testing import pack_tar

PACKED = gzip.compress(pack_tar(standard_files()))
SHA256 = hashlib.sha256(PACKED).hexdigest()


def learned(*, sha256: str | None = SHA256, etag: str | None = None) -> ArchiveIndex:
    one_pass = IndexingPass(chunked(PACKED), "a.tar.gz", sha256=sha256)
    for _ in one_pass.members():
        pass
    return one_pass.index(etag=etag)


def with_columns(index: ArchiveIndex, **changes: Any) -> ArchiveIndex:
    return ArchiveIndex(
        identity=index.identity,
        verification=index.verification,
        complete=index.complete,
        columns=dataclasses.replace(index.columns, **changes),
    )


def assert_same(columns: IndexColumns, others: IndexColumns) -> None:
    for field in dataclasses.fields(columns):
        one, other = getattr(columns, field.name), getattr(others, field.name)
        assert one == other if isinstance(one, bytes) else np.array_equal(one, other), field.name


def test_an_index_comes_back_as_it_was_written() -> None:
    index = learned(etag='"tag"')
    again = decode_index(encode_index(index))
    assert again.identity == index.identity == ArchiveIdentity(size_bytes=len(PACKED), sha256=SHA256, etag='"tag"')
    assert again.verification is Verification.SHA256
    assert again.complete
    assert_same(again.columns, index.columns)
    assert [row.name for row in again] == [row.name for row in index]


def test_an_empty_index_comes_back() -> None:
    index = index_pass(gzip.compress(pack_tar({}))).index(etag="x")
    assert len(decode_index(encode_index(index))) == 0


def test_the_layout_is_the_one_that_is_drawn() -> None:
    content = encode_index(learned())
    magic, version, flags, verification, size_bytes = struct.unpack_from("<8sHBBQ", content)
    assert (magic, version, flags, verification, size_bytes) == (b"reelindx", 2, 5, 2, len(PACKED))
    assert content[20:52].hex() == SHA256
    etag_bytes, packed_bytes, body_bytes = struct.unpack_from("<HQQ", content, 52)
    assert etag_bytes == 0
    assert len(zstandard.decompress(content[70 : 70 + packed_bytes])) == body_bytes
    assert hashlib.sha256(content[:-32]).digest() == content[-32:]


def test_every_flipped_byte_is_noticed() -> None:
    content = encode_index(learned())
    for place in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(ArchiveError):
            decode_index(bytes(damaged))


def test_every_cut_and_every_addition_is_noticed() -> None:
    content = encode_index(learned())
    for size in (*range(120), len(content) - 1):
        with pytest.raises(ArchiveError):
            decode_index(content[:size])
    with pytest.raises(ArchiveError):
        decode_index(content + b"\0")


def signed(content: bytes) -> bytes:
    return content + hashlib.sha256(content).digest()


def test_another_version_is_refused_by_name() -> None:
    content = bytearray(encode_index(learned())[:-32])
    content[8] = 1
    with pytest.raises(ArchiveError, match="version 1; this release reads version 2"):
        decode_index(signed(bytes(content)), "x.reelindex")


def test_a_body_that_grows_beyond_what_it_says_is_refused_without_being_unpacked() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(400_000_000))
    header = struct.pack("<8sHBBQ32sHQQ", b"reelindx", 2, 1, 1, 1000, bytes(32), 0, len(bomb), 5000)
    with pytest.raises(ArchiveError, match="not as long as it says"):
        decode_index(signed(header + bomb))
    header = struct.pack("<8sHBBQ32sHQQ", b"reelindx", 2, 1, 1, 1000, bytes(32), 0, len(bomb), 400_000_000)
    with pytest.raises(ArchiveError, match="out of bounds"):
        decode_index(signed(header + bomb))


def test_counts_that_do_not_fit_the_body_are_refused() -> None:
    for counts in ((1 << 60,) * 7, (0, 0, 0, 0, 0, 0, 1), (1, 0, 0, 0, 0, 0, 0)):
        body = struct.pack("<7Q", *counts)
        packed = zstandard.compress(body)
        header = struct.pack("<8sHBBQ32sHQQ", b"reelindx", 2, 1, 1, 1000, bytes(32), 0, len(packed), len(body))
        with pytest.raises(ArchiveError, match="columns"):
            decode_index(signed(header + packed))


LIES = {
    "sizes": [-1, 1 << 62, 1 << 50],
    "header_offsets": [-512, 1 << 61],
    "data_offsets": [-1, 0, 1 << 61],
    "compressed_ends": [-1, 0, len(PACKED) + 1, 1 << 62],
    "point_numbers": [-1, 1000],
    "point_bits": [-8, 1 << 62],
    "point_outputs": [-1, 1 << 61],
    "point_stored_left": [-1, 65536],
    "point_kept_ends": [-1, 1 << 40],
    "name_ends": [-1, 1 << 40],
    "kinds": [2, 255],
    "codings": [1, 2, 4, 255],
    "digest_kinds": [3, 255],
    "point_stored_is_last": [2],
}


@pytest.mark.parametrize(("column", "value"), [(column, value) for column, values in LIES.items() for value in values])
def test_a_column_that_lies_is_refused_however_well_it_is_signed(column: str, value: int) -> None:
    index = learned()
    for place in (0, 1, -1):
        lying = getattr(index.columns, column).copy()
        if column == "data_offsets" and value == 0 and place == 0:
            value = int(index.columns.header_offsets[0])
        lying[place] = value
        # A point's number is used while the file is written, too.
        changed = with_columns(index, **{column: lying})
        with pytest.raises(ArchiveError):
            changed.columns.check(len(PACKED))
        if column != "point_numbers":
            with pytest.raises(ArchiveError):
                decode_index(encode_index(changed))


def test_places_that_do_not_ascend_or_lie_outside_are_refused() -> None:
    index = learned()
    assert len(index.columns.places) > 3
    for places in (index.columns.places[::-1].copy(), index.columns.places | np.uint16(0x8000)):
        with pytest.raises(ArchiveError):
            decode_index(encode_index(with_columns(index, places=places)))


def test_the_index_of_an_archive_that_failed_is_not_kept() -> None:
    index = learned()
    failed = ArchiveIndex(
        identity=index.identity, verification=Verification.FAILED, complete=True, columns=index.columns
    )
    with pytest.raises(ArchiveError, match="failed its checksum"):
        encode_index(failed)


def test_an_index_is_found_again_by_the_digest_of_its_archive(tmp_path: Path) -> None:
    folder = tmp_path / "indexes"
    path = write_index(folder, learned())
    assert path.name == f"{SHA256}.reelindex"
    assert [each.name for each in folder.iterdir()] == [path.name]
    again = read_index(folder, ArchiveIdentity(size_bytes=len(PACKED), sha256=SHA256))
    assert again is not None
    assert_same(again.columns, learned().columns)
    assert read_index(folder, ArchiveIdentity(size_bytes=len(PACKED), sha256="0" * 64)) is None


def test_an_index_without_a_digest_is_found_by_size_and_tag(tmp_path: Path) -> None:
    write_index(tmp_path, learned(sha256=None, etag='"a/../b"'))
    same, other_tag = (ArchiveIdentity(size_bytes=len(PACKED), etag=tag) for tag in ('"a/../b"', '"c"'))
    assert read_index(tmp_path, same) is not None
    assert read_index(tmp_path, other_tag) is None
    assert read_index(tmp_path, ArchiveIdentity(size_bytes=1, etag='"a/../b"')) is None
    with pytest.raises(ArchiveError, match="cannot be told from another"):
        index_file_name(ArchiveIdentity(size_bytes=1))


def test_an_index_under_another_archives_name_is_refused(tmp_path: Path) -> None:
    path = write_index(tmp_path, learned())
    path.rename(tmp_path / f"{'0' * 64}.reelindex")
    with pytest.raises(ArchiveError, match="another archive"):
        read_index(tmp_path, ArchiveIdentity(size_bytes=len(PACKED), sha256="0" * 64))


def test_identities_are_compared_by_digest_and_else_by_size_and_tag() -> None:
    one = ArchiveIdentity(size_bytes=5, sha256="a", etag="t")
    assert one.is_same(ArchiveIdentity(size_bytes=5, sha256="a"))
    assert one.is_same(ArchiveIdentity(size_bytes=5, etag="t"))
    assert not one.is_same(ArchiveIdentity(size_bytes=5, sha256="b", etag="t"))
    assert not one.is_same(ArchiveIdentity(size_bytes=6, sha256="a"))
    assert not one.is_same(ArchiveIdentity(size_bytes=5))


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_index(tmp_path, learned())
    before = [path.read_bytes() for path in tmp_path.iterdir()]

    def no_room(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(DiskError, match="cannot be written"):
        write_index(tmp_path, learned())
    assert [path.read_bytes() for path in tmp_path.iterdir()] == before


def test_members_are_found_by_name_whatever_stands_before_it() -> None:
    files = {"./a/b.mp4": b"1", "a/b.mp4": b"2", "a//c.mp4": b"3", "../out.mp4": b"4", "/abs.mp4": b"5"}
    index = index_pass(gzip.compress(pack_tar(files))).index()
    assert index.find("a/b.mp4") == 0
    assert index.find_all("./a/b.mp4") == [0, 1]
    assert index.find("a/c.mp4") == 2
    assert index.find("b.mp4") is None
    assert index.find("out.mp4") is None
    assert index.row(3).name == "../out.mp4"  # as packed: nothing is written anywhere by it
    assert index.matching("*.mp4") == [0, 1, 2, 3, 4]
    assert index.matching("a/[bc].mp4") == [0, 1, 2]
    with pytest.raises(IndexError):
        index.row(5)


def test_an_index_of_small_media_is_small() -> None:
    files = {f"clips/{number:05d}.mp4": media(number, 300_000) for number in range(12)}
    packed = gzip.compress(pack_tar(files))
    content = encode_index(index_pass(packed).index(etag="x"))
    assert len(content) < 800 * len(files)
