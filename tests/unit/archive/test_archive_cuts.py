import random
import tarfile
from collections.abc import Callable
from dataclasses import replace

import pytest

from archive_entry_kit import (
    WRITERS,
    CountingSource,
    Files,
    Taken,
    digest,
    media,
    named,
    several_members,
    take,
    take_cut,
    tar_of,
    text,
)
from reelstream.archive.cuts.border import BorderScan
from reelstream.archive.cuts.cut import CutReader, read_cut, settled, whole_only
from reelstream.archive.cuts.entry import NoEntryReason
from reelstream.archive.cuts.piece import pieces_are_true
from reelstream.archive.source import BytesSource
from reelstream.errors import ArchiveError

PYTHON = WRITERS["python"]
CLIP_BYTES = 300_000


def clips(count: int, first: int = 0) -> Files:
    return [(f"clip_{number}.mp4", media(number, CLIP_BYTES)) for number in range(first, first + count)]


CLIPS = clips(12)
PACKED = PYTHON(tar_of(CLIPS))


def read_apart(content: bytes, cuts: list[int]) -> list[Taken]:
    """Read each cut by a reader of its own, the last one first."""
    taken = []
    for number in reversed(range(len(cuts))):
        with CutReader(BytesSource(content), cuts[number], cuts[number + 1 :]) as reader:
            taken.append(take_cut(reader))
    return taken[::-1]


def counted(taken: list[Taken]) -> list[tuple[str, str]]:
    """The members of the readers that count."""
    chain = {report.first_byte for report in settled(one.report for one in taken)}
    return [member for one in taken if one.report.first_byte in chain for member in one.members]


def test_the_cuts_of_an_archive_give_each_member_once() -> None:
    size = len(PACKED)
    cuts = [0, size // 3, 2 * size // 3]
    members = [take(read_cut(BytesSource(PACKED), 0, cuts[1], later_cuts=cuts[2:]))]
    members.append(take(read_cut(BytesSource(PACKED), cuts[1], cuts[2])))
    members.append(take(read_cut(BytesSource(PACKED), cuts[2], size)))
    assert [member for part in members for member in part] == named(CLIPS)
    assert all(members)


@pytest.mark.parametrize("border", [1, 100, len(PACKED) - 1, len(PACKED)])
def test_a_border_at_the_very_beginning_or_end_loses_and_doubles_nothing(border: int) -> None:
    taken = read_apart(PACKED, [0, border])
    assert [member for one in taken for member in one.members] == named(CLIPS)


def test_a_reader_that_goes_on_into_its_neighbours_reads_no_byte_twice() -> None:
    source = CountingSource(PACKED)
    cuts = [share * len(PACKED) // 5 for share in range(1, 5)]
    members = []
    with CutReader(source, 0, cuts) as reader:
        while not reader.finished:
            members.append(take(reader.members()))
    assert [member for part in members for member in part] == named(CLIPS)
    assert len(members) == 5
    assert source.read_bytes == len(PACKED)
    assert pieces_are_true(report.piece for report in reader.reports)


def test_a_reader_that_goes_on_reports_what_readers_of_their_own_do() -> None:
    cuts = [0, *(share * len(PACKED) // 5 for share in range(1, 5))]
    with CutReader(BytesSource(PACKED), 0, cuts[1:]) as reader:
        while not reader.finished:
            take(reader.members())
    apart = [one.report for one in read_apart(PACKED, cuts)]
    assert [replace(report, border_offset=0) for report in reader.reports] == [
        replace(report, border_offset=0) for report in apart
    ]


def test_a_cut_is_read_but_for_the_two_clips_around_each_border() -> None:
    content = PYTHON(tar_of(clips(24)))
    first, second = len(content) // 3, 2 * len(content) // 3
    source = CountingSource(content)
    with CutReader(source, first, [second]) as reader:
        assert len(take(reader.members())) > 6
    # Each border lies within the clip that straddles the next cut's first byte and the one after it.
    most_bytes = second - first + 2 * CLIP_BYTES
    assert second - first < source.read_bytes < most_bytes + (1 << 17)
    assert source.num_ranges < 10


def test_a_cut_inside_a_member_owns_none_and_reads_little_of_it() -> None:
    content = PYTHON(tar_of([("large.mp4", media(1, 6_000_000)), *clips(3)]))
    source = CountingSource(content)
    with CutReader(source, 1_000_000, [2_000_000, 4_000_000]) as reader:
        assert take(reader.members()) == []
        assert reader.reports[0].owns_none == NoEntryReason.NEXT_CUT
        assert reader.reports[0].served_until == 2_000_000
        assert source.read_bytes < 1_500_000
        # It may go on for the cuts that have the same border, and reads no byte twice for that.
        assert take(reader.members()) == []
        assert take(reader.members()) == named(clips(3))[1:]
    assert source.read_bytes <= len(content) - 1_000_000


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_whole_whoever_reads_them(tar_format: int) -> None:
    files = [(f"{'long/' * 60}Ä_{name}", content) for name, content in CLIPS]
    content = PYTHON(tar_of(files, tar_format=tar_format))
    draw = random.Random(4)
    for _ in range(6):
        taken = read_apart(content, [0, *sorted(draw.sample(range(len(content)), 3))])
        assert counted(taken) == named(files)
        assert not any(one.report.false_borders for one in taken)


def salted() -> tuple[str, bytes]:
    """A video in which lone tar headers lie, checksum and all."""
    header = tar_of([("alone.mp4", b"")])[:512]
    return "salted.mp4", b"".join(media(number, 60_000) + header for number in range(12))


def holding_a_tar(count: int, size_bytes: int) -> tuple[str, bytes]:
    return "holding.tar", tar_of([(f"inner_{number}.mp4", media(900 + number, size_bytes)) for number in range(count)])


@pytest.mark.parametrize(
    ("inside", "goes_astray"),
    [
        (salted(), False),  # a chain of one header leads nowhere
        (holding_a_tar(6, 4_000), False),  # a small tar ends, and is known by that
        (holding_a_tar(20, 50_000), True),  # a large one is not, but by who comes from before
    ],
)
def test_headers_inside_a_file_are_seen_through_or_what_began_at_them_is_void(
    inside: tuple[str, bytes], goes_astray: bool
) -> None:
    files = [*clips(3), inside, *clips(3, first=20)]
    content = WRITERS["stored"](tar_of(files))
    before, within = 3 * (CLIP_BYTES + 600), len(inside[1])
    cuts = [0, before + within // 4, before + within // 2, len(content) - 900_000]
    taken = read_apart(content, cuts)
    assert counted(taken) == named(files)
    assert bool(taken[0].report.false_borders) == goes_astray
    delivered = [member for one in taken for member in one.members]
    assert (sorted(delivered) == sorted(named(files))) != goes_astray
    assert pieces_are_true(report.piece for report in settled(one.report for one in taken))


def test_a_stretch_without_borders_is_read_by_the_cut_before_it() -> None:
    files = [*clips(2), ("words.txt", text(5, 30_000_000)), *clips(4, first=2)]
    content = PYTHON(tar_of(files))
    middle = len(content) // 2
    taken = read_apart(content, [0, middle, middle + 500_000, len(content) - 1_000_000])
    assert [one.report.owns_none for one in taken[1:3]] == [NoEntryReason.NOT_TRUE] * 2
    assert taken[0].report.served_until == len(content) - 1_000_000
    assert counted(taken) == named(files)


def test_a_tiny_archive_is_the_first_cuts() -> None:
    content = PYTHON(tar_of([("a", b"1"), ("b", b"2")]))
    taken = read_apart(content, [0, 10, len(content) // 2, len(content) - 1])
    assert taken[0].members == [("a", digest(b"1")), ("b", digest(b"2"))]
    assert not any(one.members for one in taken[1:])


@pytest.mark.parametrize("write", [PYTHON, several_members, WRITERS["bgzip"]])
def test_checksums_of_pieces_tell_a_byte_that_changed(write: Callable[[bytes], bytes]) -> None:
    content = write(tar_of(CLIPS))
    cuts = [0, len(content) // 3, len(content) // 2]
    assert pieces_are_true(one.report.piece for one in read_apart(content, cuts))
    # A video's payload lies there as it is: a byte of it changes, and nothing else does.
    at = content.index(CLIPS[8][1][200_000:200_050]) + 10
    damaged = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    taken = read_apart(damaged, cuts)
    assert [name for name, _ in counted(taken)] == [name for name, _ in CLIPS]
    assert not pieces_are_true(one.report.piece for one in taken)
    assert not pieces_are_true(one.report.piece for one in taken[:2])


def test_damage_ends_the_cut_it_lies_in_and_no_other() -> None:
    damaged = bytearray(PACKED)
    at = len(PACKED) // 6
    damaged[at : at + 70_000] = random.Random(1).randbytes(70_000)
    with CutReader(BytesSource(bytes(damaged)), 0, [len(PACKED) // 2]) as reader, pytest.raises(ArchiveError):
        take(reader.members())
    with CutReader(BytesSource(bytes(damaged)), len(PACKED) // 2) as reader:
        members = take(reader.members())
    assert members
    assert members == named(CLIPS)[-len(members) :]


def test_an_archive_cut_short_is_an_error_of_its_last_cut() -> None:
    short = PACKED[:-100_000]
    with CutReader(BytesSource(short), 0, [len(short) // 2]) as reader:
        assert take(reader.members())
        with pytest.raises(ArchiveError, match="cut short"):
            take(reader.members())


def test_old_headers_that_do_not_say_what_they_are_are_known_at_the_beginning() -> None:
    assert whole_only(BytesSource(PACKED)) is None
    tar = bytearray(tar_of([("old", b"")]))
    tar[257:265] = bytes(8)
    tar[148:156] = b"%06o\0 " % (sum(tar[:148]) + 8 * 32 + sum(tar[156:512]))
    assert "ustar" in (whole_only(BytesSource(PYTHON(bytes(tar)))) or "")
    assert "gzip" in (whole_only(BytesSource(b"no archive at all")) or "")


@pytest.mark.parametrize("piece_bytes", [1, 511, 512, 513, 100_000, 10_000_000])
def test_the_border_does_not_depend_on_how_the_output_comes(piece_bytes: int) -> None:
    sizes = {"a": 70_000, "b": 30_000, "c": 90_000}
    tar = tar_of([(letter * 150, media(1, size)) for letter, size in sizes.items()])
    start = 500
    scan = BorderScan(start)
    for at in range(0, len(tar), piece_bytes):
        scan.follow(tar[at : at + piece_bytes], at)
    assert scan.border == tar.index(b"b" * 150) - 512
