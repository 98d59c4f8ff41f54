from __future__ import annotations

import io
import shutil
import struct
import subprocess
import zipfile
import zlib
from pathlib import Path

import pytest

from archive_index_kit import media
from container_kit import CountingSource, RawEntry, pack_zip, raw_zip, zip_of
from reelstream.archive import BytesSource, FileSource, read_member, read_rows
from reelstream.archive.containers import Container, ContainerKind, Directory, read_directory
from reelstream.archive.containers.zip_end import LARGEST_DIRECTORY_BYTES
from reelstream.archive.seek.index import ArchiveIdentity, Coding
from reelstream.errors import ArchiveChecksumError, ArchiveError


def directory_of(content: bytes) -> Directory:
    directory = read_directory(zip_of(content).container(), BytesSource(content))
    assert directory is not None
    return directory


def contents(content: bytes) -> dict[str, bytes]:
    source = BytesSource(content)
    return {row.name: b"".join(read_member(source, row)) for row in directory_of(content).index}


def names(content: bytes) -> list[str]:
    return [row.name for row in directory_of(content).index]


def test_a_small_directory_comes_in_one_range_and_a_large_one_in_two() -> None:
    few = pack_zip({f"clips/{number}.mp4": media(number, 5000) for number in range(40)})
    source = CountingSource(few)
    read_directory(zip_of(few).container(), source)
    assert len(source.ranges) == 1
    many = pack_zip({f"clips/{'n' * 60}/{number}.mp4": b"x" for number in range(1500)})
    source = CountingSource(many)
    directory = read_directory(zip_of(many).container(), source)
    assert directory is not None
    assert len(directory.index) == 1500
    assert len(source.ranges) == 2


def test_names_are_decoded_as_marked_or_as_what_they_can_be() -> None:
    cp437 = "Zoë.mp4".encode("cp437")
    extra_name = "東京.mp4".encode()
    unicode_extra = struct.pack("<HHBI", 0x7075, 5 + len(extra_name), 1, zlib.crc32(b"tokyo.mp4")) + extra_name
    stale_extra = struct.pack("<HHBI", 0x7075, 5 + len(extra_name), 1, 7) + extra_name
    packed = raw_zip(
        [
            RawEntry("marked_ü.mp4".encode(), b"1", flags=1 << 11),
            RawEntry("unmarked_ü.mp4".encode(), b"2"),
            RawEntry(cp437, b"3"),
            RawEntry(b"tokyo.mp4", b"4", extra=unicode_extra),
            RawEntry(b"kyoto.mp4", b"5", extra=stale_extra),
            RawEntry(b"bad_\xff.mp4", b"6", flags=1 << 11),
        ]
    )
    assert names(packed) == [
        *("marked_ü.mp4", "unmarked_ü.mp4", "Zoë.mp4", "東京.mp4", "kyoto.mp4", "bad_\ufffd.mp4"),
    ]


def test_the_local_header_may_differ_in_name_and_extra_fields() -> None:
    clips = [media(number, 30_000) for number in range(3)]
    packed = raw_zip(
        [
            RawEntry(b"a.mp4", clips[0], local_extra=bytes(700), extra=b"\1\2\0\0"),
            RawEntry(b"b.mp4", clips[1], method=8, local_name=b"quite/another/name"),
            RawEntry(b"c.mp4", clips[2], local_name=b""),
        ]
    )
    assert contents(packed) == {"a.mp4": clips[0], "b.mp4": clips[1], "c.mp4": clips[2]}


def test_members_are_in_the_order_they_lie_whatever_the_directorys_order() -> None:
    swapped = raw_zip(
        [
            RawEntry(b"a", b"1" * 500, offset=531, crc32=zlib.crc32(b"2" * 500)),
            RawEntry(b"b", b"2" * 500, offset=0, crc32=zlib.crc32(b"1" * 500)),
        ]
    )
    assert list(contents(swapped).items()) == [("b", b"1" * 500), ("a", b"2" * 500)]


def test_folders_are_no_members_however_they_are_marked() -> None:
    packed = raw_zip(
        [
            RawEntry(b"slash/"),
            RawEntry(b"unix", mode=0o040755),
            RawEntry(b"dos", system=0, mode=0, attributes=0x10),
            RawEntry(b"dos.mp4", b"x", system=0, mode=0, attributes=0x20),
        ]
    )
    directory = directory_of(packed)
    assert [row.name for row in directory.index] == ["dos.mp4"]
    assert directory.unserved == ()


def test_a_comment_that_looks_like_an_end_is_passed_over() -> None:
    files = {"a.mp4": media(1, 9000)}
    fake_end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0, 0, 0, 0, 3)
    assert contents(pack_zip(files, comment=fake_end + b"more")) == files
    assert contents(pack_zip(files, comment=b"c" * 65_535)) == files


def test_bytes_behind_the_end_are_passed_over() -> None:
    files = {"a.mp4": media(1, 9000)}
    assert contents(pack_zip(files) + b"\0" * 100) == files


def test_a_signature_behind_the_entries_is_passed_over() -> None:
    packed = raw_zip([RawEntry(b"a", b"x" * 50)], tail=b"PK\x05\x05\x02\x00ok")
    assert contents(packed) == {"a": b"x" * 50}


def test_a_zip_of_more_than_65535_members_is_read_without_zip64() -> None:
    entries = [RawEntry(b"%d" % number) for number in range(65_540)]
    assert len(directory_of(raw_zip(entries, num_entries=4)).index) == 65_540


@pytest.mark.slow
def test_a_zip_of_more_than_65535_members_is_read_with_zip64() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(65_540):
            archive.writestr(zipfile.ZipInfo(str(number)), b"")
    assert len(directory_of(packed.getvalue()).index) == 65_540


def zip64(*, behind: bytes = b"", record_extra: bytes = b"", locator_lies: bool = False) -> bytes:
    """A zip of one member whose sizes and places stand in ZIP64 fields only."""
    content, name = media(3, 5000), b"a.mp4"
    full = 0xFFFF_FFFF
    local_extra = struct.pack("<2H2Q", 1, 16, len(content), len(content))
    local = struct.pack(
        *("<4s5H3I2H", b"PK\x03\x04", 45, 0, 0, 0, 33, zlib.crc32(content), full, full, len(name), len(local_extra)),
    )
    body = local + name + local_extra + content
    extra = struct.pack("<2H3QI", 1, 28, len(content), len(content), 0, 0)
    entry = struct.pack(
        *("<4s6H3I5H2I", b"PK\x01\x02", 3 << 8, 45, 0, 0, 0, 33, zlib.crc32(content), full, full, len(name)),
        *(len(extra), 0, 0xFFFF, 0, 0, full),
    )
    directory = entry + name + extra
    record_at = len(body) + len(directory)
    record = struct.pack(
        *("<4sQ2H2I4Q", b"PK\x06\x06", 44 + len(record_extra), 45, 45, 0, 0, 1, 1, len(directory), len(body)),
    )
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, 1 << 50 if locator_lies else record_at, 1)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, full, full, 0)
    return behind + body + directory + record + record_extra + locator + end


@pytest.mark.parametrize(
    "packed", [zip64(), zip64(record_extra=b"more" * 9), zip64(behind=b"#!/bin/sh\n"), zip64(locator_lies=True)]
)
def test_zip64_fields_are_read_wherever_the_record_lies(packed: bytes) -> None:
    assert contents(packed) == {"a.mp4": media(3, 5000)}


LIES = {
    "no end": (pack_zip({"a": b"x"})[:-22], "no directory at its end"),
    "empty": (b"", "no directory at its end"),
    "a tar": (bytes(10_240), "no directory at its end"),
    "last part of several": (
        struct.pack("<4s4H2IH", b"PK\x05\x06", 2, 1, 3, 9, 400, 100, 0),
        "last part of a split zip",
    ),
    "a directory without end": (
        struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 3, 3, LARGEST_DIRECTORY_BYTES + 1, 0, 0),
        "its directory claims",
    ),
    "a directory elsewhere": (
        struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 3, 3, 400, 100, 0),
        "no directory where",
    ),
    "more members than listed": (raw_zip([RawEntry(b"a", b"x")], num_entries=2), "lists 1 members, and its end says 2"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_zip_whose_end_lies_is_refused_with_the_reason(lie: str) -> None:
    content, fact = LIES[lie]
    with pytest.raises(ArchiveError, match=fact):
        directory_of(content)


def test_an_entry_that_reaches_beyond_the_directory_is_refused() -> None:
    packed = bytearray(raw_zip([RawEntry(b"a", b"x" * 50)]))
    place = packed.index(b"PK\x01\x02")
    packed[place + 28 : place + 30] = (5000).to_bytes(2, "little")
    with pytest.raises(ArchiveError, match="ends inside an entry"):
        directory_of(bytes(packed))


def test_members_that_share_bytes_are_not_served_twice() -> None:
    kernel = media(1, 20_000)
    # Each entry's bytes hold all the later ones': the densest bombs are made so.
    packed = raw_zip(
        [
            RawEntry(b"a", kernel, packed_bytes=40_000, size_bytes=40_000),
            RawEntry(b"b", kernel),
            RawEntry(b"c", kernel, offset=0),
        ]
    )
    directory = directory_of(packed)
    # Of two at one place the second keeps its bytes, which its own digest proves.
    assert [row.name for row in directory.index] == ["c", "b"]
    assert [each.name for each in directory.unserved] == ["a"]


def test_a_local_header_that_is_none_or_another_is_refused() -> None:
    good = raw_zip([RawEntry(b"a", b"x" * 5000)])
    row = directory_of(good).index.row(0)
    for place, value in ((0, b"PK\x01\x02"), (6, b"\1\0"), (8, b"\x08\0")):
        packed = bytearray(good)
        packed[place : place + len(value)] = value
        with pytest.raises(ArchiveError, match="there is no such member"):
            b"".join(read_member(BytesSource(bytes(packed)), row))


def test_a_local_header_that_claims_a_longer_name_does_not_reach_the_next_member() -> None:
    packed = bytearray(raw_zip([RawEntry(b"a", b"x" * 5000), RawEntry(b"b", b"y" * 5000)]))
    packed[26:28] = (60_000).to_bytes(2, "little")
    directory = directory_of(bytes(packed))
    with pytest.raises(ArchiveError, match="bytes end before"):
        b"".join(read_member(BytesSource(bytes(packed)), directory.index.row(0)))


def test_deflate_data_that_end_early_or_are_none_are_told() -> None:
    short = raw_zip([RawEntry(b"a", b"x" * 5000, method=8, size_bytes=6000)])
    with pytest.raises(ArchiveError, match="1,000 bytes less"):
        contents(short)
    row = directory_of(short).index.row(0)
    broken = bytearray(short)
    broken[31:40] = b"\xff" * 9
    with pytest.raises(ArchiveError, match="deflate data of a are damaged"):
        b"".join(read_member(BytesSource(bytes(broken)), row))


def test_a_wrong_crc_is_told_at_the_members_end() -> None:
    with pytest.raises(ArchiveChecksumError, match="not those that its directory names"):
        contents(raw_zip([RawEntry(b"a", b"x" * 5000, crc32=7)]))


def test_stored_and_deflated_neighbours_come_in_one_range() -> None:
    files = {str(number): media(number, 20_000) for number in range(6)}
    packed = raw_zip(
        [
            RawEntry(name.encode(), content, method=8 * (number % 2))
            for number, (name, content) in enumerate(files.items())
        ]
    )
    index = directory_of(packed).index
    assert {row.coding for row in index} == {Coding.ZIP_STORED, Coding.ZIP_DEFLATED}
    source = CountingSource(packed, chunk_bytes=1000)
    rows = [index.row(number) for number in (0, 1, 3, 4)]
    found = {member.row.name: b"".join(member.chunks()) for member in read_rows(source, rows)}
    assert found == {name: files[name] for name in "0134"}
    assert len(source.ranges) == 1


@pytest.mark.skipif(shutil.which("zip") is None, reason="this machine has no zip program")
@pytest.mark.parametrize("options", [("-0",), ("-9",), ("-fd", "-0")])
def test_zips_of_info_zip_are_read(options: tuple[str, ...], tmp_path: Path) -> None:
    files = {"clips/a.mp4": media(1, 90_000), "clips/ü.mp4": media(2, 50_000), "notes.txt": b"a dog " * 900}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    subprocess.run(["zip", "-q", "-r", *options, "packed.zip", "clips", "notes.txt"], cwd=tmp_path, check=True)
    source = FileSource(tmp_path / "packed.zip")
    container = Container(kind=ContainerKind.ZIP, identity=ArchiveIdentity(size_bytes=source.size_bytes))
    directory = read_directory(container, source)
    assert directory is not None
    assert {row.name: b"".join(read_member(source, row)) for row in directory.index} == files
