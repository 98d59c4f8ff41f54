"""Cuts that are learned while they are read, and gone on with from bookmarks."""

from __future__ import annotations

import gzip
import io
import json
import random
import sys
import tarfile
import tracemalloc
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from archive_entry_kit import WRITERS, CountingSource, Files, digest, media, named, take, tar_of
from archive_index_kit import LIBRARIES, index_pass, inflation
from reelstream.archive import GunzipReader, checksum, read_members
from reelstream.archive.cuts.assemble import assemble_index
from reelstream.archive.cuts.bookmark import Bookmark, LearnedRow
from reelstream.archive.cuts.cut import CutReader
from reelstream.archive.cuts.piece import pieces_are_true
from reelstream.archive.cuts.report import CutReport, settled
from reelstream.archive.seek.index import ArchiveIdentity, MemberKind, Verification
from reelstream.archive.seek.inflate import BlockInflation
from reelstream.archive.seek.member_range import read_member, read_rows
from reelstream.archive.source import BytesSource
from reelstream.errors import ArchiveChecksumError, ArchiveError

CLIP_BYTES = 300_000
CLIPS: Files = [(f"clip_{number}.mp4", media(number, CLIP_BYTES)) for number in range(12)]
PACKED = WRITERS["gzip -6"](tar_of(CLIPS))
THIRDS = [len(PACKED) // 3, 2 * len(PACKED) // 3]


def learned(content: bytes, first_byte: int, later: Sequence[int] = ()) -> tuple[CutReport, list[LearnedRow]]:
    with CutReader(BytesSource(content), first_byte, later, learn=True) as reader:
        for _ in reader.members():
            pass
        return reader.reports[0], reader.take_rows()


def saved(bookmark: Bookmark) -> Bookmark:
    return Bookmark.from_json(json.loads(json.dumps(bookmark.to_json())))


def identity(content: bytes) -> ArchiveIdentity:
    return ArchiveIdentity(size_bytes=len(content), etag="x")


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("writer", list(WRITERS))
def test_the_index_of_cuts_reads_what_the_index_of_one_pass_does(writer: str, library: str) -> None:
    content = WRITERS[writer](tar_of(CLIPS))
    cuts = [0, len(content) // 3, 2 * len(content) // 3]
    found = []
    for number in (2, 0, 1):
        with CutReader(
            BytesSource(content), cuts[number], cuts[number + 1 :], learn=True, inflation=inflation(library)
        ) as reader:
            assert [name for name, _ in take(reader.members())]
            found.append((reader.reports[0], [each.row for each in reader.take_rows()]))
    index = assemble_index(identity(content), found)
    index.columns.check(len(content))
    assert (index.verification, index.complete) == (Verification.CHECKSUM, True)
    read = [(each.row.name, digest(b"".join(each.chunks()))) for each in read_rows(BytesSource(content), list(index))]
    assert read == named(CLIPS)
    for row, one_pass in zip(index, index_pass(content, library).index(), strict=True):
        assert (row.header_offset, row.data_offset, row.digest) == (
            *(one_pass.header_offset, one_pass.data_offset, one_pass.digest),
        )
        assert abs(row.range_bytes - one_pass.range_bytes) < 70_000


def test_rows_come_while_a_cut_is_read_and_all_of_them_when_asked_for_now() -> None:
    with CutReader(BytesSource(PACKED), 0, learn=True) as reader:
        counts = []
        for number, member in enumerate(reader.members()):
            b"".join(member.chunks())
            counts.append(len(reader.take_rows(now=number == 5)))
        counts.append(len(reader.take_rows()))
    assert counts[:8] == [0, 1, 1, 1, 1, 1, 1, 1]
    assert sum(counts) == len(CLIPS)


def test_what_is_asked_for_now_is_known_from_the_point_before_where_that_is_near() -> None:
    files = [(f"{number}.jpg", media(number, 9_000)) for number in range(100)]
    content = WRITERS["gzip -6"](tar_of(files))
    rows: list[LearnedRow] = []
    with CutReader(BytesSource(content), 0, learn=True) as reader:
        for number, _ in enumerate(reader.members()):
            now = reader.take_rows(now=True)
            assert len(rows) + len(now) == number
            rows += now
        rows += reader.take_rows()
    assert [digest(b"".join(read_member(BytesSource(content), each.row))) for each in rows] == [
        true for _, true in named(files)
    ]
    # Of the first one nothing was known: its whole window is kept. All others share points as ever.
    points = {each.row.point.bit_offset: len(each.row.point.places) for each in rows}
    assert len(points) < 6
    assert sum(points.values()) - len(rows[0].row.point.places) < 2000


def test_a_bookmark_is_small_and_says_all_that_another_machine_needs() -> None:
    report, rows = learned(PACKED, THIRDS[0], THIRDS[1:])
    members = [member for member in named(CLIPS) if member[0] in {each.row.name for each in rows}]
    for number, each in enumerate(rows):
        assert len(json.dumps(each.bookmark.to_json())) < 1000
        source = CountingSource(PACKED)
        with CutReader(source, THIRDS[0], THIRDS[1:], learn=True, resume=saved(each.bookmark)) as reader:
            assert take(reader.members()) == members[number:]
            again = reader.take_rows()
        assert reader.reports == [report]
        assert [row.row.name for row in again] == [name for name, _ in members[number:]]
        assert [(row.row.header_offset, row.row.digest) for row in again] == [
            (row.row.header_offset, row.row.digest) for row in rows[number:]
        ]
        # From the row's point on: no search for an entry of its own, and half a clip beyond the next cut's first byte.
        assert source.read_bytes < THIRDS[1] - each.bookmark.point.first_byte + 2 * CLIP_BYTES + (1 << 17)


def test_a_reader_gone_on_with_finds_the_next_border_although_that_cut_began_before() -> None:
    # The clip that straddles the next cut's first byte is passed, the one at its border is not.
    report, rows = learned(PACKED, 0, THIRDS)
    between = [each for each in rows if each.row.point.first_byte > THIRDS[0]]
    assert between
    for each in between:
        assert each.bookmark.watch_from == THIRDS[0]
        assert THIRDS[0] - CLIP_BYTES < each.bookmark.point.first_byte <= THIRDS[0]
        with CutReader(BytesSource(PACKED), 0, THIRDS, resume=saved(each.bookmark)) as reader:
            assert take(reader.members())[0][0] == each.row.name
        assert reader.reports == [report]


def test_a_reader_gone_on_with_knows_which_borders_were_false_before() -> None:
    inner = tar_of([(f"inner_{number}.mp4", media(900 + number, 50_000)) for number in range(20)])
    files = [*CLIPS[:3], ("holding.tar", inner), *CLIPS[3:]]
    content = WRITERS["stored"](tar_of(files))
    begin = 3 * (CLIP_BYTES + 600)
    later = [begin + len(inner) // 4, begin + len(inner) // 2, len(content) - 700_000]
    report, rows = learned(content, 0, later)
    assert report.false_borders
    behind = [each for each in rows if each.row.name in {name for name, _ in CLIPS[4:]}]
    assert behind
    for each in behind:
        with CutReader(BytesSource(content), 0, later, resume=saved(each.bookmark)) as reader:
            for _ in reader.members():
                pass
        assert reader.reports == [report]


@pytest.mark.parametrize("times", [1, 3])
def test_rows_of_a_reader_that_goes_on_into_its_neighbours_belong_to_each_cut(times: int) -> None:
    with CutReader(BytesSource(PACKED), 0, THIRDS, learn=True) as reader:
        for _ in range(times):
            take(reader.members())
        rows = reader.take_rows()
    assert [each.row.name for each in rows] == [name for name, _ in CLIPS[: len(rows)]]
    cuts = [(report, [each.row for each in rows if each.cut == report.first_byte]) for report in reader.reports]
    if times == 1:
        with pytest.raises(ArchiveError, match=f"ends at byte {THIRDS[0]:,}"):
            assemble_index(identity(PACKED), cuts)
        return
    index = assemble_index(identity(PACKED), cuts)
    assert [digest(b"".join(read_member(BytesSource(PACKED), row))) for row in index] == [d for _, d in named(CLIPS)]
    for each in rows:
        with CutReader(
            BytesSource(PACKED), each.cut, [byte for byte in THIRDS if byte > each.cut], resume=saved(each.bookmark)
        ) as again:
            assert take(again.members())[0][0] == each.row.name
        assert again.reports[0] in reader.reports


def test_bytes_that_changed_fail_the_index_of_cuts() -> None:
    at = PACKED.index(CLIPS[8][1][200_000:200_050]) + 10
    damaged = PACKED[:at] + bytes([PACKED[at] ^ 1]) + PACKED[at + 1 :]
    found = [learned(damaged, cut, THIRDS[number:]) for number, cut in enumerate([0, *THIRDS])]
    index = assemble_index(identity(PACKED), [(report, [each.row for each in rows]) for report, rows in found])
    assert index.verification is Verification.FAILED
    assert len(index) == len(CLIPS)


def test_the_piece_of_a_reader_gone_on_with_tells_what_was_wrong_before() -> None:
    at = PACKED.index(CLIPS[1][1][200_000:200_050]) + 10
    damaged = PACKED[:at] + bytes([PACKED[at] ^ 1]) + PACKED[at + 1 :]
    report, rows = learned(damaged, 0)
    with CutReader(BytesSource(PACKED), 0, resume=saved(rows[6].bookmark)) as reader:
        assert take(reader.members()) == named(CLIPS)[6:]
    assert reader.reports == [report]
    assert not pieces_are_true([reader.reports[0].piece])


def test_the_checksum_is_zlibs_whatever_library_counts_it() -> None:
    data = media(3, 100_000)
    running = 0
    for start in range(0, len(data), 777):
        running = checksum.crc32(memoryview(data)[start : start + 777], running)
    assert running == checksum.crc32(data) == zlib.crc32(data)


def test_without_the_faster_library_the_checksum_is_the_standard_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zlib_ng.zlib_ng", None)
    assert checksum.fastest_crc32() is zlib.crc32


def test_hard_links_name_their_target_and_other_links_do_not() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo("first.mp4")
        info.size = 5_000
        tar.addfile(info, io.BytesIO(media(1, 5_000)))
        for name, kind in (("hard.mp4", tarfile.LNKTYPE), ("soft.mp4", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "first.mp4"
            tar.addfile(info)
    content = packed.getvalue()
    served = []
    with CutReader(BytesSource(content), 0, learn=True) as reader:
        rows: list[LearnedRow] = []
        for member in reader.members():
            rows += reader.take_rows(now=member.link_target is not None)
            target = next((each.row for each in rows if each.row.name == member.link_target), None)
            served.append(
                (member.name, member.link_target, target and b"".join(read_member(BytesSource(content), target)))
            )
        rows += reader.take_rows()
    assert served == [
        ("first.mp4", None, None),
        ("hard.mp4", "first.mp4", media(1, 5_000)),
        ("soft.mp4", None, None),
    ]
    assert [(each.row.name, each.row.kind) for each in rows] == [
        ("first.mp4", MemberKind.REGULAR),
        ("hard.mp4", MemberKind.HARD_LINK),
    ]


def test_members_say_where_their_headers_lie_as_their_rows_do() -> None:
    with CutReader(BytesSource(PACKED), THIRDS[0], learn=True) as reader:
        offsets = [member.header_offset for member in reader.members()]
        assert offsets == [each.row.header_offset for each in reader.take_rows()]
    plain = [member.header_offset for member in read_members(GunzipReader(iter([PACKED]), "a"), "a")]
    assert plain == [row.header_offset for row in index_pass(PACKED).index()]


def test_without_a_library_cuts_are_read_and_gone_on_with_all_the_same() -> None:
    nothing = BlockInflation(library=None, problem="zlib: no zlib can be called here")
    _, rows = learned(PACKED, 0)
    with CutReader(BytesSource(PACKED), 0, learn=True, resume=rows[7].bookmark, inflation=nothing) as reader:
        assert reader.problem == "zlib: no zlib can be called here"
        assert take(reader.members()) == named(CLIPS)[7:]
        assert reader.take_rows(now=True) == []


def test_what_is_given_up_leaves_the_rows_so_far() -> None:
    with CutReader(BytesSource(PACKED), 0, learn=True) as reader:
        members = reader.members()
        for _ in range(5):
            next(members)
    assert [each.row.name for each in reader.take_rows()] == [name for name, _ in CLIPS[:4]]
    assert reader.reports == []


def test_damage_leaves_the_rows_before_it() -> None:
    damaged = bytearray(PACKED)
    damaged[len(PACKED) // 2 :] = random.Random(1).randbytes(len(PACKED) - len(PACKED) // 2)
    with CutReader(BytesSource(bytes(damaged)), 0, learn=True) as reader:
        with pytest.raises(ArchiveError):
            take(reader.members())
        rows = reader.take_rows()
    assert len(rows) > 3
    # What was damaged may pass for data until a checksum tells.
    assert [digest(b"".join(read_member(BytesSource(PACKED), each.row))) for each in rows[:-1]] == [
        true for _, true in named(CLIPS)[: len(rows) - 1]
    ]


def test_a_damaged_tar_ends_its_cut_only_and_is_no_reason_to_read_the_others() -> None:
    tar = bytearray(tar_of(CLIPS))
    at = tar.index(b"clip_2.mp4")
    tar[at : at + 512] = random.Random(1).randbytes(512)
    content = WRITERS["gzip -6"](bytes(tar))
    source = CountingSource(content)
    with CutReader(source, 0, [len(content) // 2], learn=True) as reader:
        with pytest.raises(ArchiveError, match="the tar is damaged at byte"):
            take(reader.members())
        assert [each.row.name for each in reader.take_rows()] == ["clip_0.mp4", "clip_1.mp4"]
    assert source.read_bytes < 1_500_000
    with CutReader(BytesSource(content), len(content) // 2) as reader:
        assert take(reader.members())


def test_a_wrong_checksum_in_the_middle_ends_no_pass_that_learns() -> None:
    tar = tar_of(CLIPS)
    first = bytearray(gzip.compress(tar[:1_000_000]))
    first[-8] ^= 1
    content = bytes(first) + gzip.compress(tar[1_000_000:])
    with pytest.raises(ArchiveChecksumError):
        index_pass(content)
    _, rows = learned(content, 0)
    assert len(rows) == len(CLIPS)


def test_gzip_members_that_are_false_by_the_thousand_take_no_memory() -> None:
    tar = tar_of([(f"{number}.jpg", b"x" * 3000) for number in range(1500)])
    parts = []
    for start in range(0, len(tar), 4096):
        part = bytearray(gzip.compress(tar[start : start + 4096], 1))
        part[-8] ^= 1
        parts.append(bytes(part))
    content = b"".join(parts)
    report, rows = learned(content, 0)
    assert len(rows) == 1500
    assert max(len(each.bookmark.segments) for each in rows) <= 3
    assert not pieces_are_true([report.piece])


def test_a_bomb_is_learned_in_bounded_memory() -> None:
    content = gzip.compress(tar_of([("zeros", bytes(40_000_000)), *CLIPS[:1]]), 9)
    learned(content, 0)  # what is loaded once
    tracemalloc.start()
    _, rows = learned(content, 0)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(rows) == 2
    assert peak_bytes < 9_000_000


def test_a_settled_chain_ends_at_a_report_that_leads_nowhere() -> None:
    report, _ = learned(PACKED, 0)
    assert settled([replace(report, served_until=0)]) == [replace(report, served_until=0)]


WRONG: dict[str, Any] = {
    "no object": lambda data: [],
    "nothing": lambda data: {},
    "a negative place": lambda data: data | {"header_offset": -1},
    "a place before its point": lambda data: data | {"header_offset": data["point"]["output_offset"] - 1},
    "a number that is none": lambda data: data | {"border_offset": "12"},
    "a truth value for a number": lambda data: data | {"watch_from": True},
    "no checksums": lambda data: data | {"segments": []},
    "too many checksums": lambda data: data | {"segments": data["segments"] * 9},
    "a checksum of more than has passed": lambda data: (
        data | {"segments": [data["segments"][0] | {"size_bytes": 1 << 50}]}
    ),
    "a point that is none": lambda data: data | {"point": 7},
    "a window that is no text": lambda data: data | {"point": data["point"] | {"values": 7}},
    "a window that is not packed": lambda data: data | {"point": data["point"] | {"values": "AAAA"}},
    "a window without values": lambda data: data | {"point": data["point"] | {"values": "eJwDAAAAAAE="}},
    "half a byte of a stored block": lambda data: (
        data | {"point": data["point"] | {"stored_left_bytes": 5, "bit_offset": 9}}
    ),
    "cuts that are no numbers": lambda data: data | {"false_borders": [None]},
}


@pytest.mark.parametrize("lie", list(WRONG))
def test_a_bookmark_that_is_none_is_refused(lie: str) -> None:
    _, rows = learned(PACKED, 0)
    data = next(each.bookmark for each in rows if each.bookmark.point.values).to_json()
    with pytest.raises(ArchiveError, match="cannot be used"):
        Bookmark.from_json(json.loads(json.dumps(WRONG[lie](data))))


@pytest.mark.parametrize(
    "change", [{"first_byte": -1}, {"served_until": 0}, {"owns_none": "it rains"}, {"piece": {}}, {"false_borders": 1}]
)
def test_a_report_that_is_none_is_refused(change: dict[str, Any]) -> None:
    report, _ = learned(PACKED, THIRDS[0])
    assert CutReport.from_json(report.to_json()) == report
    with pytest.raises(ArchiveError, match="cannot be used"):
        CutReport.from_json(report.to_json() | change)


def test_a_bookmark_of_a_longer_archive_is_refused() -> None:
    _, rows = learned(PACKED, 0)
    for content in (PACKED[: rows[9].bookmark.point.first_byte], PACKED[:-400_000]):
        with CutReader(BytesSource(content), 0, resume=rows[11].bookmark) as reader, pytest.raises(ArchiveError):
            take(reader.members())
    beyond = replace(rows[9].bookmark, header_offset=1 << 40)
    with (
        CutReader(BytesSource(PACKED), 0, resume=beyond) as reader,
        pytest.raises(ArchiveError, match="ends before the place"),
    ):
        take(reader.members())
