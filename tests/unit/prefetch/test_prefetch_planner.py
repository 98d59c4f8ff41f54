"""Which spans an epoch has: chosen by what is known, divided into parts, dealt to lanes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes_kit import archive_of, clips, index_of, tar_gz
from reelstream.catalog import Catalog, SubsetLayout
from reelstream.errors import ConfigError, StateError
from reelstream.indexes import IndexStore
from reelstream.prefetch.options import StreamOptions
from reelstream.prefetch.parts import split_parts
from reelstream.prefetch.spans import SpanPlanner
from reelstream.prefetch.state import EpochSettings, SpanSettings
from reelstream.schedule import part_of_spans
from reelstream.types import Archive, Repository, RepositoryFile, Span, SpanKind

# Halves of the archives are not halves of the clips.
NUM_CLIPS = (2, 3, 4, 7)
CONTENTS = [tar_gz(clips(number, seed=seed)) for seed, number in enumerate(NUM_CLIPS)]
ARCHIVES = [archive_of(content, f"shorts/videos_{number}.tar.gz") for number, content in enumerate(CONTENTS)]
NAMES = [name for seed, number in enumerate(NUM_CLIPS) for name in clips(number, seed=seed)]


class MadeCatalog:
    """One sample a clip."""

    num_clips = num_samples = len(NAMES)
    subsets = ("shorts",)

    def clips_in(self, subset: str) -> int:
        return self.num_clips

    samples_in = clips_in

    def num_samples_of(self, clip: int) -> int:
        return 1

    def find(self, subset: str, name: str) -> int | None:
        return NAMES.index(name) if name in NAMES else None


def planner(
    folder: Path, *, known: bool = False, named: dict[str, tuple[int, ...]] | None = None, **options: Any
) -> SpanPlanner:
    store = IndexStore(folder)
    for content in CONTENTS if known else ():
        store.save(index_of(content))
    layout = SimpleNamespace(
        name="shorts", archives=tuple(ARCHIVES), archive_size_bytes=sum(archive.size_bytes for archive in ARCHIVES)
    )
    return SpanPlanner(
        [cast("SubsetLayout", layout)],
        cast("Catalog", MadeCatalog()),
        StreamOptions(**{"repo_id": "a/b", "subsets": ("shorts",), "lanes": 4, "block_size": 100_000, **options}),
        named_parts=named or {},
        indexes=store,
        directory=lambda _: None,
    )


def spans_of(made: SpanPlanner, spans: SpanSettings, *, epoch: int = 0, limit: int | None = None) -> list[Span]:
    settings = EpochSettings(
        catalog="c",
        seed=0,
        epoch=epoch,
        shuffle=True,
        limit=limit,
        spans=spans,
        tail="skip",
        num_lanes=made.num_lanes(spans),
        window_clips=2,
        window_bytes=1 << 20,
    )
    return [span for lane in made.plan(settings).lanes for span in lane]


def clips_in(spans: list[Span]) -> list[int]:
    return sorted(clip for span in spans for clip in span.clips)


@pytest.mark.parametrize(
    ("options", "known", "kind"),
    [
        ({}, False, SpanKind.ARCHIVE),
        ({"lanes": 5, "cut_size": 250_000}, False, SpanKind.CUT),
        ({"parts": 2, "cut_size": 250_000}, False, SpanKind.CUT),
        ({"parts": 2, "lanes": 2}, False, SpanKind.ARCHIVE),
        ({"lanes": 5, "limit": 3}, False, SpanKind.ARCHIVE),
        ({}, True, SpanKind.BLOCK),
        ({"lanes": 5}, True, SpanKind.BLOCK),
        ({"spans": "archive"}, True, SpanKind.ARCHIVE),
        ({"spans": "cut"}, True, SpanKind.CUT),
    ],
)
def test_auto_takes_blocks_where_all_is_known_then_archives_where_they_suffice_else_cuts(
    options: dict[str, Any], known: bool, kind: SpanKind, tmp_path: Path
) -> None:
    assert planner(tmp_path, known=known, **options).choose(0, None).kind is kind


def test_blocks_of_what_is_not_known_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="4 of 4 archives are not known"):
        planner(tmp_path, spans="block").choose(0, None)


@pytest.mark.parametrize("known", [True, False])
def test_parts_take_turns_and_are_all_there_is(known: bool, tmp_path: Path) -> None:
    made = planner(tmp_path, known=known, parts=3, epochs_per_part=2, cut_size=250_000)
    found: list[list[Span]] = []
    before = None
    for epoch in range(7):
        before = made.choose(epoch, before)
        found.append(spans_of(made, before, epoch=epoch))
    places = [{(span.archive.path, span.first_byte) for span in spans} for spans in found]
    assert places[0] == places[1] == places[6]
    assert places[2] == places[3]
    assert sum(len(places[epoch]) for epoch in (0, 2, 4)) == len(set.union(*places))
    if known:
        assert clips_in(found[0] + found[2] + found[4]) == list(range(len(NAMES)))


def test_parts_that_were_divided_by_bytes_stay_so_when_the_indexes_are_there(tmp_path: Path) -> None:
    before = planner(tmp_path, parts=2, cut_size=250_000).choose(0, None)
    assert before.part_rule == "bytes"
    again = planner(tmp_path, known=True, parts=2, cut_size=250_000)
    assert again.choose(1, before).part_rule == "bytes"
    assert again.choose(1, None).part_rule == "members"


def test_parts_of_whole_archives_are_the_same_whether_these_are_known_or_not(tmp_path: Path) -> None:
    unknown = planner(tmp_path, parts=2, lanes=2)
    archives = [{span.archive.path for span in spans_of(unknown, unknown.choose(epoch, None))} for epoch in range(2)]
    known = planner(tmp_path, known=True, parts=2, lanes=2)
    chosen = [known.choose(epoch, None) for epoch in range(2)]
    assert [spans.kind for spans in chosen] == [SpanKind.BLOCK] * 2
    assert [{span.archive.path for span in spans_of(known, spans)} for spans in chosen] == archives


def test_a_part_by_name_is_each_epochs(tmp_path: Path) -> None:
    made = planner(tmp_path, parts=4, named={"shorts": (1, 3)}, known=True)
    assert [made.choose(epoch, None).part_of for epoch in range(3)] == [{"shorts": (1, 3)}] * 3
    assert made.share_of("shorts") == 0.5


def test_more_parts_than_pieces_are_refused_when_an_empty_one_has_its_turn(tmp_path: Path) -> None:
    made = planner(tmp_path, parts=9, spans="archive")
    with pytest.raises(ConfigError, match="epoch 0 has nothing to read"):
        made.choose(0, None)


def test_a_limited_run_keeps_its_spans_whatever_is_learned(tmp_path: Path) -> None:
    before = planner(tmp_path, limit=3).choose(0, None)
    again = planner(tmp_path, limit=3, known=True)
    assert again.choose(1, before) == before
    assert spans_of(again, before, epoch=0, limit=3) == spans_of(again, before, epoch=5, limit=3)


@pytest.mark.parametrize("known", [True, False])
def test_a_limited_run_of_parts_goes_on_to_the_next_part_as_it_began(known: bool, tmp_path: Path) -> None:
    made = planner(tmp_path, limit=3, parts=2, cut_size=250_000, known=known)
    first = made.choose(0, None)
    second = made.choose(1, first)
    assert (second.kind, second.part_of) == (first.kind, {"shorts": (1,)})
    assert made.choose(2, second) == first
    assert second == made.choose(1, None)


def test_other_members_than_the_states_are_refused(tmp_path: Path) -> None:
    made = planner(tmp_path, known=True)
    saved = made.choose(0, None)
    assert clips_in(spans_of(made, saved)) == list(range(len(NAMES)))
    with pytest.raises(StateError, match="the indexes here name other ones"):
        spans_of(made, dataclasses.replace(saved, known="0" * 32))
    with pytest.raises(StateError, match="these indexes are not here"):
        spans_of(planner(tmp_path / "empty"), saved)


@given(num_spans=st.integers(0, 60), num_parts=st.integers(1, 12))
def test_each_span_is_in_one_part_and_no_part_is_much_larger(num_spans: int, num_parts: int) -> None:
    archive = Archive(subset="s", file=RepositoryFile(path="s/1.tar.gz", size_bytes=100, sha256=None))
    spans = [Span(kind=SpanKind.CUT, archive=archive, first_byte=byte, end_byte=byte + 1) for byte in range(num_spans)]
    parts = [part_of_spans(spans, part=part, num_parts=num_parts) for part in range(num_parts)]
    assert [span for part in parts for span in part] == spans
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def _repository(*folders: str) -> Repository:
    files = tuple(RepositoryFile(path=f"{folder}/1.tar.gz", size_bytes=1, sha256=None) for folder in folders)
    return Repository(repo_id="a/b", commit="0" * 40, files=files)


def test_names_of_parts_are_taken_apart() -> None:
    names = ["shorts_part2", "longs", "shorts_part1/", "shorts_part2"]
    assert split_parts(names, _repository("shorts", "longs"), num_parts=2) == (["shorts", "longs"], [(0, 1), ()])


def test_a_folder_that_is_called_like_a_part_is_a_subset() -> None:
    assert split_parts(["shorts_part1"], _repository("shorts_part1"), num_parts=1) == (["shorts_part1"], [()])


@pytest.mark.parametrize(("name", "num_parts"), [("shorts_part0", 2), ("shorts_part3", 2), ("shorts_part1", 1)])
def test_a_part_that_there_is_not_is_refused(name: str, num_parts: int) -> None:
    with pytest.raises(ConfigError, match=f"and parts is {num_parts}"):
        split_parts([name], _repository("shorts"), num_parts=num_parts)
