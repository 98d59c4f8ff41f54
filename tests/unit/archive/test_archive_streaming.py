import gzip
import io
import os
import random
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reelstream.archive import GunzipReader, Member, read_members
from reelstream.errors import ArchiveChecksumError, ArchiveError

CLIPS = {f"academic_source/Charades/{n:03}.mp4": random.Random(n).randbytes(3000 * n + 7) for n in range(12)}


def pack(files: dict[str, bytes], **options: object) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def chunked(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def members(data: bytes, chunk: int = 7777) -> list[tuple[str, bytes]]:
    reader = GunzipReader(chunked(data, chunk), "a.tar.gz")
    return [(member.name, b"".join(member.chunks())) for member in read_members(reader, "a.tar.gz")]


@pytest.mark.parametrize("chunk", [1, 3, 511, 4096, 10**9])
def test_members_come_whole_and_in_order_whatever_the_chunks(chunk: int) -> None:
    files = dict(list(CLIPS.items())[: 3 if chunk < 9 else 12])
    assert members(gzip.compress(pack(files)), chunk) == list(files.items())


def test_gnu_tar_and_gzip_are_read(tmp_path: Path) -> None:
    for name, data in CLIPS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    long = "x" * 180 + "/" + "y" * 120 + ".mp4"
    (tmp_path / long).parent.mkdir()
    (tmp_path / long).write_bytes(b"long")
    subprocess.run(["tar", "-czf", "a.tar.gz", "academic_source", "x" * 180], cwd=tmp_path, check=True)
    assert dict(members((tmp_path / "a.tar.gz").read_bytes())) == {**CLIPS, long: b"long"}


def test_several_gzip_members_with_padding_are_one_stream() -> None:
    data = pack(CLIPS)
    packed = b"".join(gzip.compress(part) for part in chunked(data, 20_000)) + bytes(1000)
    assert members(packed) == list(CLIPS.items())


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_odd_names_are_kept(tar_format: int) -> None:
    files = {
        name: name.encode()
        for name in (".hidden.mp4", "__x.mp4", "a.b.c.mp4", "naïve 视频.mp4", "no_extension", "./dot.mp4", "z" * 300)
    }
    assert members(gzip.compress(pack(files, format=tar_format))) == list(files.items())


def test_a_member_may_be_passed_over_or_read_in_part() -> None:
    reader = GunzipReader(chunked(gzip.compress(pack(CLIPS)), 999), "a.tar.gz")
    names = []
    for number, member in enumerate(read_members(reader, "a.tar.gz")):
        names.append(member.name)
        if number % 3 == 1:
            next(member.chunks(), None)
    assert names == list(CLIPS)


def test_links_and_devices_have_a_reason_and_no_bytes() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for kind in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo(f"m{kind.decode()}")
            info.type, info.linkname = kind, "../../etc/passwd"
            tar.addfile(info)
    reader = GunzipReader(iter([gzip.compress(buffer.getvalue())]), "a.tar.gz")
    assert [(member.problem, list(member.chunks())) for member in read_members(reader, "a.tar.gz")] == [
        ("a hard link to ../../etc/passwd", []),
        ("a symbolic link to ../../etc/passwd", []),
        ("not a regular file", []),
    ]


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 0.999))
def test_an_archive_cut_anywhere_says_so_and_gives_only_whole_members(share: float) -> None:
    packed = gzip.compress(pack(CLIPS))
    reader = GunzipReader(chunked(packed[: int(len(packed) * share)], 4096), "a.tar.gz")
    seen: list[tuple[str, bytes]] = []
    with pytest.raises(ArchiveError, match="cut short"):
        for member in read_members(reader, "a.tar.gz"):
            seen.append((member.name, b"".join(member.chunks())))  # noqa: PERF401 - the loop raises
    assert seen == list(CLIPS.items())[: len(seen)]


def test_a_member_that_claims_more_than_the_archive_holds_is_an_error() -> None:
    data = pack({"a.mp4": b"x" * 5000})[:3000]
    with pytest.raises(ArchiveError, match=r"ends inside its member a.mp4, 2,512 bytes early"):
        members(gzip.compress(data))


def test_a_wrong_checksum_is_told_at_the_end() -> None:
    packed = bytearray(gzip.compress(pack(CLIPS), compresslevel=0))
    packed[len(packed) // 2] ^= 1
    reader = GunzipReader(chunked(bytes(packed), 4096), "a.tar.gz")
    names = []
    with pytest.raises(ArchiveChecksumError, match=r"a\.tar\.gz.*checksum"):
        for member in read_members(reader, "a.tar.gz"):
            names.append(member.name)  # noqa: PERF401 - the loop raises
    assert names == list(CLIPS)


def test_a_wrong_checksum_keeps_nothing_back_and_ends_nothing_early() -> None:
    tar = pack(CLIPS)
    cut = len(tar) // 2
    packed = bytearray(gzip.compress(tar[:cut]))
    packed[-8] ^= 1
    reader = GunzipReader(chunked(bytes(packed) + gzip.compress(tar[cut:]), 4096), "a.tar.gz")
    seen = []
    with pytest.raises(ArchiveChecksumError, match="checksum"):
        for member in read_members(reader, "a.tar.gz"):
            seen.append((member.name, b"".join(member.chunks())))  # noqa: PERF401 - the loop raises
    assert seen == list(CLIPS.items())
    assert not reader.at_end


def test_a_damaged_header_does_not_end_the_listing_in_silence() -> None:
    data = bytearray(pack(CLIPS))
    third = data.index(b"academic_source/Charades/003.mp4")
    data[third : third + 512] = os.urandom(512)
    with pytest.raises(ArchiveError, match=r"tar is damaged at byte .* could not be listed"):
        members(gzip.compress(bytes(data)))


@pytest.mark.parametrize("data", [b"", b"<html>404</html>", bytes(100)])
def test_what_is_no_gzip_is_refused(data: bytes) -> None:
    with pytest.raises(ArchiveError, match=r"not a gzip file|cut short"):
        members(data)


def test_a_gzip_of_something_else_is_refused() -> None:
    with pytest.raises(ArchiveError, match="tar is damaged"):
        members(gzip.compress(b"hello " * 1000))


def test_a_bomb_stays_small_in_memory() -> None:
    import tracemalloc

    packed = gzip.compress(bytes(64 << 20))
    tracemalloc.start()
    assert GunzipReader(iter([packed]), "bomb").drain() == 64 << 20
    assert tracemalloc.get_traced_memory()[1] < 2 << 20
    tracemalloc.stop()


def test_a_header_that_claims_gigabytes_of_name_is_refused() -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 32
    with pytest.raises(ArchiveError, match="claims"):
        members(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096)))


def test_closing_the_chunks_early_is_the_callers_to_do() -> None:
    closed = []

    def chunks() -> Iterator[bytes]:
        try:
            yield from chunked(gzip.compress(pack(CLIPS)), 100)
        finally:
            closed.append(True)

    source = chunks()
    first: Member = next(read_members(GunzipReader(source, "a"), "a"))
    assert first.name == next(iter(CLIPS))
    source.close()  # type: ignore[attr-defined]
    assert closed == [True]
