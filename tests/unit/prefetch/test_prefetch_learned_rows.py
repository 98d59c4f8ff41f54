"""Rows of cuts put together, whoever has learned which of them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence

import pytest

from reelstream.archive import BytesSource, IndexRow, read_rows
from reelstream.archive.cuts.cut import CutReader
from reelstream.indexes import LearnedCut
from reelstream.prefetch.learned_rows import LearnedRows
from unit.prefetch.pipeline_kit import MadeArchive, MadeMember

CLIPS = tuple(MadeMember("clip", number, 70_000) for number in range(20))
DATA = MadeArchive("aa", CLIPS).packed()
STARTS = [len(DATA) * cut // 5 for cut in range(5)]


def cuts_by(starts: Iterable[int]) -> list[LearnedCut]:
    """What is learned by a reader that begins at the first of these cuts and goes on through the others."""
    first, *others = starts
    learned: list[LearnedCut] = []
    with CutReader(BytesSource(DATA), first, STARTS, learn=True) as reader:
        for start in (first, *others):
            for _ in reader.members():
                pass
            rows = [row.row for row in reader.take_rows(now=True)]
            learned.append(LearnedCut(first_byte=start, report=reader.reports[-1], rows=rows))
    return learned


IN_ONE_GO = cuts_by(STARTS)
BY_THEMSELVES = [cut for start in STARTS for cut in cuts_by([start])]
SOURCE = BytesSource(DATA)


def digests(rows: Sequence[IndexRow]) -> list[bytes]:
    return [hashlib.sha256(b"".join(member.chunks())).digest()[:16] for member in read_rows(SOURCE, rows)]


@pytest.mark.parametrize("first", range(4))
def test_neighbours_over_a_border_are_read_in_one_range_whoever_has_learned_them(first: int) -> None:
    mixed = [*IN_ONE_GO[:2], *BY_THEMSELVES[2:]]
    for cuts in (IN_ONE_GO, BY_THEMSELVES, mixed):
        rows = list(LearnedRows.of(cuts[first : first + 2]))
        assert len(rows) > 3
        assert digests(rows) == [row.digest for row in rows]


def test_offsets_are_the_same_whoever_has_learned_the_cuts() -> None:
    for first in range(5):
        one, other = (LearnedRows.of(cuts[first:]) for cuts in (IN_ONE_GO, BY_THEMSELVES))
        assert [(row.name, row.header_offset, row.data_offset) for row in one] == [
            (row.name, row.header_offset, row.data_offset) for row in other
        ]


def test_cuts_that_are_no_neighbours_lie_far_apart() -> None:
    rows = LearnedRows.of([BY_THEMSELVES[0], BY_THEMSELVES[3]]).rows
    gaps = [after.header_offset - row.header_offset for row, after in itertools.pairwise(rows)]
    assert sum(gap > 1 << 30 for gap in gaps) == 1
    assert all(row.point.output_offset >= 0 for row in rows)


def test_a_link_is_to_the_last_member_of_its_name_before_it() -> None:
    members = (
        *(MadeMember("clip", 0, 60_000), MadeMember("clip", 0, 50_000), MadeMember("link", 1, 0, 0)),
        *(MadeMember("clip", 0, 40_000), MadeMember("link", 2, 0, 1), MadeMember("link", 3, 0, 9)),
    )
    data = MadeArchive("aa", members).packed()
    with CutReader(BytesSource(data), 0, learn=True) as reader:
        for _ in reader.members():
            pass
        rows = [row.row for row in reader.take_rows(now=True)]
    known = LearnedRows.of([LearnedCut(first_byte=0, report=reader.reports[-1], rows=rows)])
    assert [known.holding(number) for number in range(6)] == [0, 1, 1, 3, 1, None]
