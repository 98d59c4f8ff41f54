"""Any cuts, any order, any readers: each member comes from exactly one of them, with its bytes."""

from __future__ import annotations

import functools
import tarfile
from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archive_entry_kit import WRITERS, Files, Taken, blocked, media, named, take_cut, tar_of, text
from reelstream.archive.cuts.cut import CutReader, settled
from reelstream.archive.cuts.entry import find_entry
from reelstream.archive.cuts.piece import pieces_are_true
from reelstream.archive.source import BytesSource


@dataclass(frozen=True)
class Packed:
    """An archive, and what is in it."""

    content: bytes
    members: list[tuple[str, str]]


def _clips() -> Files:
    sizes = [40_000, 150_000, 3_000, 260_000, 0, 90_000, 512, 120_000, 400_000, 60_000, 75_000, 200_000, 130_000]
    long = "an_academic_source/with_a_long_name/" * 4
    return [
        (f"{long if number % 3 else ''}clip_{number}.mp4", media(number, size)) for number, size in enumerate(sizes * 2)
    ]


def _unlike_video() -> Files:
    """Files that are archives, that hold headers, and text between them."""
    small = tar_of([(f"inner_{number}", media(100 + number, 5_000)) for number in range(4)])
    large = tar_of([(f"deep_{number}.mp4", media(200 + number, 70_000)) for number in range(9)])
    lone_header = tar_of([("alone", b"")])[:512]
    salted = b"".join(media(300 + number, 40_000) + lone_header for number in range(8))
    return [
        ("one.mp4", media(1, 150_000)),
        ("small.tar", small),
        ("salted.mp4", salted),
        ("two.mp4", media(2, 80_000)),
        ("large.tar", large),
        ("notes.txt", text(3, 200_000)),
        ("zeros", bytes(300_000)),
        ("packed.tar.gz", WRITERS["gzip -6"](large)),
        ("blocks.tar.gz", blocked(large)),
        ("three.mp4", media(4, 300_000)),
        ("four.mp4", media(5, 300_000)),
    ]


@functools.cache
def packed(writer: str, what: str) -> Packed:
    files = _clips() if what != "unlike video" else _unlike_video()
    tar = tar_of(files, tar_format=tarfile.PAX_FORMAT if what == "clips, pax" else tarfile.GNU_FORMAT)
    return Packed(WRITERS[writer](tar), named(files))


def read_all(archive: Packed, cuts: list[int], order: list[int], runs: list[int], chunk_bytes: int) -> list[Taken]:
    """Read all cuts in an order, each by a reader of its own that goes on for as many cuts as `runs` says."""
    source = BytesSource(archive.content, chunk_bytes=chunk_bytes)
    taken = []
    for number in order:
        with CutReader(source, cuts[number], cuts[number + 1 :]) as reader:
            for _ in range(runs[number]):
                if reader.finished:
                    break
                taken.append(take_cut(reader))
    return taken


def delivered(taken: list[Taken]) -> list[tuple[str, str]]:
    """The members of the readers that count."""
    by_report = {id(one.report): one for one in taken}
    return [member for report in settled(one.report for one in taken) for member in by_report[id(report)].members]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    writer=st.sampled_from(sorted(WRITERS)),
    what=st.sampled_from(["clips, GNU", "clips, pax", "unlike video"]),
    data=st.data(),
)
def test_any_cuts_read_in_any_order_by_any_readers_give_each_member_once(
    writer: str, what: str, data: st.DataObject
) -> None:
    archive = packed(writer, what)
    size = len(archive.content)
    cuts = [0, *sorted(data.draw(st.sets(st.integers(1, size), max_size=6)))]
    numbers = list(range(len(cuts)))
    taken = read_all(
        archive,
        cuts,
        data.draw(st.permutations(numbers)),
        data.draw(st.lists(st.integers(1, 3), min_size=len(cuts), max_size=len(cuts))),
        data.draw(st.sampled_from([1 << 12, 50_001, 1 << 20])),
    )
    assert delivered(taken) == archive.members
    assert pieces_are_true(report.piece for report in settled(one.report for one in taken))
    if what != "unlike video":
        # Of an archive of video no reader goes astray, so nothing of what was delivered is void.
        assert not any(one.report.false_borders for one in taken)
        assert sorted({member for one in taken for member in one.members}) == sorted(set(archive.members))


@settings(max_examples=40, deadline=None)
@given(
    writer=st.sampled_from(sorted(WRITERS)),
    share=st.floats(0, 1),
    chunks=st.lists(st.integers(1 << 10, 1 << 19), min_size=2, max_size=2),
)
def test_an_entry_does_not_depend_on_how_the_bytes_come(writer: str, share: float, chunks: list[int]) -> None:
    content = packed(writer, "clips, GNU").content
    byte = int(share * len(content))
    one, other = (find_entry(BytesSource(content, chunk_bytes=chunk), byte) for chunk in chunks)
    assert one == other


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=3000), st.integers(1, 300), st.integers(0, 2000))
def test_bytes_made_by_anybody_are_entered_or_refused(pattern: bytes, times: int, byte: int) -> None:
    content = pattern * times
    find_entry(BytesSource(content), min(byte, len(content)))
