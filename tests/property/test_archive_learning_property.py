"""Cuts that are learned, given up and gone on with anywhere: each member once, and an index that reads it right."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archive_entry_kit import WRITERS, Files, blocked, digest, media, named, tar_of, text
from archive_index_kit import LIBRARIES, index_pass, inflation
from reelstream.archive.cuts.assemble import assemble_index
from reelstream.archive.cuts.bookmark import Bookmark, LearnedRow
from reelstream.archive.cuts.cut import CutReader
from reelstream.archive.cuts.report import CutReport, settled
from reelstream.archive.seek.index import ArchiveIdentity, Verification
from reelstream.archive.seek.member_range import read_member
from reelstream.archive.source import BytesSource
from reelstream.errors import ArchiveError

SIZES = [40_000, 150_000, 3_000, 260_000, 0, 90_000, 512, 120_000, 400_000, 60_000, 75_000, 200_000, 130_000]


def clips() -> Files:
    long = "an_academic_source/with_a_long_name/" * 4
    return [
        (f"{long if number % 3 else ''}clip_{number}.mp4", media(number, size)) for number, size in enumerate(SIZES)
    ]


def small_files() -> Files:
    return [(f"image_{number}.jpg", media(number, 300 + number * 97 % 9000)) for number in range(160)]


def unlike_video() -> Files:
    """Files that are archives, that hold headers, and text between them."""
    large = tar_of([(f"deep_{number}.mp4", media(200 + number, 70_000)) for number in range(9)])
    lone_header = tar_of([("alone", b"")])[:512]
    return [
        ("one.mp4", media(1, 150_000)),
        ("small.tar", tar_of([(f"inner_{number}", media(100 + number, 5_000)) for number in range(4)])),
        ("salted.mp4", b"".join(media(300 + number, 40_000) + lone_header for number in range(8))),
        ("two.mp4", media(2, 80_000)),
        ("large.tar", large),
        ("notes.txt", text(3, 100_000)),
        ("zeros", bytes(100_000)),
        ("packed.tar.gz", WRITERS["gzip -6"](large)),
        ("blocks.tar.gz", blocked(large)),
        ("three.mp4", media(4, 300_000)),
        ("four.mp4", media(5, 300_000)),
    ]


CONTENTS = {"clips": clips, "small files": small_files, "unlike video": unlike_video}


@functools.cache
def packed(writer: str, what: str) -> tuple[bytes, list[tuple[str, str]]]:
    files = CONTENTS[what]()
    return WRITERS[writer](tar_of(files)), named(files)


def places(size_bytes: int) -> st.SearchStrategy[int]:
    """Any byte, and often one far from both ends."""
    return st.one_of(st.integers(0, size_bytes), st.integers(1, 99).map(lambda share: size_bytes * share // 100))


@dataclass
class Taken:
    """What was read and learned of a cut, by one reader or several; what was not looked at has no digest."""

    members: list[tuple[str, str | None]] = field(default_factory=list)
    rows: list[LearnedRow] = field(default_factory=list)

    def add(self, more: Taken) -> None:
        self.members += more.members
        self.rows += more.rows


def as_saved(value: Any) -> Any:
    return json.loads(json.dumps(value.to_json()))


def take_some(reader: CutReader, data: st.DataObject) -> tuple[Taken, bool]:
    """Read a cut to its end, or give up on the way; say which."""
    taken = Taken()
    give_up_after = data.draw(st.one_of(st.none(), st.integers(0, 12)))
    reads = data.draw(st.integers(0, 3))
    takes_now = data.draw(st.booleans())
    members = reader.members()
    for number, member in enumerate(members):
        if number == give_up_after:
            members.close()  # type: ignore[attr-defined]
            taken.rows += reader.take_rows(now=True)
            return taken, False
        # What is not read is digested all the same.
        content = b"".join(member.chunks()) if number % 4 <= reads else None
        taken.members.append((member.name, None if content is None else digest(content)))
        taken.rows += reader.take_rows(now=takes_now)
    taken.rows += reader.take_rows()
    return taken, True


def take_cuts(
    content: bytes, cuts: list[int], number: int, library: str, data: st.DataObject
) -> dict[int, tuple[CutReport, Taken]]:
    """Begin at a cut and go on as it comes, with one reader after the other; return what they found of which cut."""
    source = BytesSource(content, chunk_bytes=data.draw(st.sampled_from([1 << 12, 50_001, 1 << 20])))
    found = {}
    cut, bookmark, before = cuts[number], None, Taken()
    for _ in range(data.draw(st.integers(1, 4))):
        with CutReader(
            source,
            cut,
            [byte for byte in cuts if byte > cut],
            learn=True,
            resume=bookmark,
            inflation=inflation(library),
        ) as reader:
            assert not reader.problem
            while not reader.finished:
                taken, is_whole = take_some(reader, data)
                assert [each.row.name for each in taken.rows] == [name for name, _ in taken.members]
                assert all(each.cut == cut for each in taken.rows)
                if is_whole:
                    before.add(taken)
                    report = CutReport.from_json(as_saved(reader.reports[-1]))
                    found[cut] = report, before
                    cut, bookmark, before = report.served_until, None, Taken()
                    continue
                if taken.rows:
                    last = data.draw(st.integers(0, len(taken.rows) - 1))
                    bookmark = Bookmark.from_json(as_saved(taken.rows[last].bookmark))
                    before.add(Taken(taken.members[:last], taken.rows[:last]))
                break
            else:
                break
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    writer=st.sampled_from(sorted(WRITERS)),
    what=st.sampled_from(sorted(CONTENTS)),
    library=st.sampled_from(LIBRARIES),
    data=st.data(),
)
def test_cuts_gone_on_with_at_any_bookmark_give_each_member_once_and_the_whole_index(
    writer: str, what: str, library: str, data: st.DataObject
) -> None:
    content, members = packed(writer, what)
    cuts = [0, *sorted(data.draw(st.sets(places(len(content)), max_size=5)) - {0})]
    found: dict[int, tuple[CutReport, Taken]] = {}
    for number in data.draw(st.permutations(range(len(cuts)))):
        found |= take_cuts(content, cuts, number, library, data)
    for cut in cuts:
        report, taken = learned_quietly(content, cuts, cut)
        found.setdefault(cut, (report, taken))
        assert replace(found[cut][0], border_offset=0) == replace(report, border_offset=0)
    chain = settled(report for report, _ in found.values())
    delivered = [member for report in chain for member in found[report.first_byte][1].members]
    assert [name for name, _ in delivered] == [name for name, _ in members]
    assert all(got in {None, true} for (_, got), (_, true) in zip(delivered, members, strict=True))
    index = assemble_index(
        ArchiveIdentity(size_bytes=len(content)),
        [(report, [each.row for each in taken.rows]) for report, taken in found.values()],
    )
    index.columns.check(len(content))
    assert (index.verification, index.complete) == (Verification.CHECKSUM, True)
    for row, one_pass, (name, true) in zip(index, index_pass(content, library).index(), members, strict=True):
        assert (row.name, row.kind, row.size_bytes, row.digest) == (
            *(one_pass.name, one_pass.kind, one_pass.size_bytes, one_pass.digest),
        )
        assert (row.header_offset, row.data_offset) == (one_pass.header_offset, one_pass.data_offset)
        assert (name, digest(b"".join(read_member(BytesSource(content), row)))) == (row.name, true)


def learned_quietly(content: bytes, cuts: list[int], cut: int) -> tuple[CutReport, Taken]:
    """Read a cut from its border to its end, and look at none of its members."""
    with CutReader(BytesSource(content), cut, [byte for byte in cuts if byte > cut], learn=True) as reader:
        members: list[tuple[str, str | None]] = [(member.name, None) for member in reader.members()]
    return reader.reports[0], Taken(members, reader.take_rows())


@settings(max_examples=30, deadline=None)
@given(writer=st.sampled_from(sorted(WRITERS)), what=st.sampled_from(sorted(CONTENTS)), data=st.data())
def test_learning_changes_nothing_of_what_a_reader_finds(writer: str, what: str, data: st.DataObject) -> None:
    content, _ = packed(writer, what)
    first, *later = sorted(data.draw(st.sets(places(len(content) - 1), min_size=1, max_size=4)))
    found: list[object] = []
    for learn in (False, True):
        with CutReader(BytesSource(content), first, later, learn=learn) as reader:
            while not reader.finished:
                found.append([(member.name, digest(b"".join(member.chunks()))) for member in reader.members()])
        found.append(reader.reports)
    assert found[: len(found) // 2] == found[len(found) // 2 :]


LIES = st.one_of(
    st.integers(-10, 1 << 61),
    st.integers(0, 5_000_000),
    st.none(),
    st.booleans(),
    st.text(max_size=5),
    st.lists(st.integers(0, 4_000_000), max_size=3),
    st.just({}),
)


@functools.cache
def bookmarks() -> list[dict[str, Any]]:
    content, _ = packed("gzip -6", "clips")
    with CutReader(BytesSource(content), 0, [len(content) // 2], learn=True) as reader:
        for _ in reader.members():
            pass
        return [as_saved(each.bookmark) for each in reader.take_rows()]


@settings(max_examples=60, deadline=None)
@given(
    number=st.integers(0, 4),
    lies=st.lists(st.tuples(st.integers(0, 30), LIES), min_size=1, max_size=3),
    learn=st.booleans(),
)
def test_a_bookmark_that_lies_is_refused_or_leads_to_an_end(
    number: int, lies: list[tuple[int, Any]], learn: bool
) -> None:
    content, members = packed("gzip -6", "clips")
    data = json.loads(json.dumps(bookmarks()[number]))
    places: list[tuple[Any, Any]] = [(data, key) for key in data]
    places += [(data["point"], key) for key in data["point"]]
    places += [(segment, key) for segment in data["segments"] for key in segment]
    for place, lie in lies:
        holder, key = places[place % len(places)]
        holder[key] = lie
    try:
        bookmark = Bookmark.from_json(data)
        with CutReader(BytesSource(content), 0, [len(content) // 2], learn=learn, resume=bookmark) as reader:
            assert sum(1 for _ in reader.members()) <= len(members)
            reader.take_rows(now=True)
    except ArchiveError:
        pass
