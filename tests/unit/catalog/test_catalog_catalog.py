from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from catalog_kit import MadeRepository, record
from reelstream.catalog import Catalog, SampleSource, catalog_folder, open_catalog
from reelstream.errors import DiskError
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import Event, Notice
from reelstream.types import AnnotationKind


class Notices:
    def __init__(self) -> None:
        self.messages: list[str] = []

    def receive(self, wall_s: float, event: Event) -> None:
        assert isinstance(event, Notice)
        self.messages.append(event.message)


def two_subsets() -> MadeRepository:
    return MadeRepository(
        {
            "a/a_cap.json": [record("x/1.mp4", answer="cap 1"), record("x/2.mp4", answer="cap 2"), record(None)],
            "a/a_mc.json": [
                record("x/2.mp4", answer="mc 2, first"),
                record("x/3.mp4", answer="mc 3"),
                record("x/2.mp4", answer="mc 2, second"),
            ],
            "b/b_oe.json": [record("x/1.mp4", answer="another clip"), record(""), record(answer="")],
        }
    )


def answers(catalog: Catalog, clip: int) -> list[str]:
    return [catalog.annotation(row).conversations[1]["value"] for row in catalog.samples_of(clip)]


def find(catalog: Catalog, subset: str, name: str) -> int:
    clip = catalog.find(subset, name)
    assert clip is not None
    return clip


def test_clips_and_samples_are_numbered_through_all_subsets(tmp_path: Path) -> None:
    with two_subsets().prepare(tmp_path, "a", "b") as catalog:
        assert catalog.subsets == ("a", "b")
        assert (catalog.num_clips, catalog.num_samples) == (4, 6)
        assert (catalog.clips_of("a"), catalog.clips_of("b")) == (range(3), range(3, 4))
        assert (catalog.clips_in("a"), catalog.samples_in("a")) == (3, 5)
        assert (catalog.clips_in("b"), catalog.samples_in("b")) == (1, 1)
        assert dict(catalog.left_out) == {"names no video": 2, "has no answer": 1}
        assert [row for clip in range(4) for row in catalog.samples_of(clip)] == list(range(6))
        for clip in range(4):
            assert catalog.subset_of(clip) == catalog.clip(clip).subset
            assert catalog.num_samples_of(clip) == catalog.clip(clip).num_samples == len(catalog.samples_of(clip))
            assert {catalog.clip_of(row) for row in catalog.samples_of(clip)} == {clip}
            assert {catalog.annotation(row).clip for row in catalog.samples_of(clip)} == {clip}
        assert catalog.sample_counts.dtype == np.int64
        assert catalog.sample_counts.sum() == 6


def test_samples_of_a_clip_come_by_kind_as_asked_for_then_as_published(tmp_path: Path) -> None:
    repository = two_subsets()
    with repository.prepare(tmp_path, "a", kinds=["cap", "mc"]) as catalog:
        clip = find(catalog, "a", "x/2.mp4")
        assert answers(catalog, clip) == ["cap 2", "mc 2, first", "mc 2, second"]
        assert [catalog.annotation(row).kind for row in catalog.samples_of(clip)] == ["cap", "mc", "mc"]
        assert [catalog.source_of(row) for row in catalog.samples_of(clip)] == [
            SampleSource("a", "a/a_cap.json", 1),
            SampleSource("a", "a/a_mc.json", 0),
            SampleSource("a", "a/a_mc.json", 2),
        ]
    with repository.prepare(tmp_path, "a", kinds=["mc", "cap"]) as catalog:
        assert answers(catalog, find(catalog, "a", "x/2.mp4")) == ["mc 2, first", "mc 2, second", "cap 2"]


def test_the_same_path_in_two_subsets_is_two_clips(tmp_path: Path) -> None:
    with two_subsets().prepare(tmp_path, "a", "b") as catalog:
        assert answers(catalog, find(catalog, "a", "x/1.mp4")) == ["cap 1"]
        assert answers(catalog, find(catalog, "b", "x/1.mp4")) == ["another clip"]


@pytest.mark.parametrize("name", ["x/1.mp4", "./x/1.mp4", "x//1.mp4", "./x/./1.mp4"])
def test_names_agree_once_normalised(tmp_path: Path, name: str) -> None:
    notices = Notices()
    with two_subsets().prepare(tmp_path, "a", telemetry=Telemetry(notices)) as catalog:
        assert catalog.clip(find(catalog, "a", name)).path == "x/1.mp4"
    assert notices.messages == []


@pytest.mark.parametrize("name", ["1.mp4", "y/1.mp4", "xx/1.mp4", "x/1", "../x/1.mp4", "/x/1.mp4", "x\udcff/1.mp4", ""])
def test_other_names_are_nobodys(tmp_path: Path, name: str) -> None:
    with two_subsets().prepare(tmp_path, "a") as catalog:
        assert catalog.find("a", name) is None


def test_names_agree_by_their_ends_on_a_folders_border_with_one_notice_a_subset(tmp_path: Path) -> None:
    rows = [record(path) for path in ("p/q/1.mp4", "q/2.mp4", "p/q/3.mp4", "r/q/3.mp4", "4.mp4", "pp/q/5.mp4")]
    repository = MadeRepository({"s/s_cap.json": rows, "t/t_cap.json": rows})
    notices = Notices()
    with repository.prepare(tmp_path, "s", "t", telemetry=Telemetry(notices)) as catalog:

        def path(name: str, subset: str = "s") -> str | None:
            clip = catalog.find(subset, name)
            return None if clip is None else catalog.clip(clip).path

        assert path("q/1.mp4") == "p/q/1.mp4"
        assert path("o/p/q/2.mp4") == "q/2.mp4"
        assert len(notices.messages) == 1
        assert "'q/1.mp4' is taken for 'p/q/1.mp4'" in notices.messages[0]
        assert path("q/3.mp4") is None, "two clips end so"
        assert path("r/q/3.mp4") == "r/q/3.mp4", "exact comes first"
        assert path("x/4.mp4") is None, "the bare name is not enough"
        assert path("p/q/5.mp4") is None, "not a folder's border"
        assert path("x/p/q/1.mp4") == "p/q/1.mp4"
        assert path("x/1.mp4") is None, "not the end of the other"
        assert len(notices.messages) == 1
        assert path("q/1.mp4", "t") == "p/q/1.mp4"
        assert len(notices.messages) == 2


def test_paths_of_equal_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("build", "subset"):
        monkeypatch.setattr(f"reelstream.catalog.{module}.path_hash", len)
    paths = [f"d{number // 10}/{number}.mp4" for number in range(40)]
    repository = MadeRepository({"s/s_cap.json": [record(path, answer=path) for path in paths]})
    with repository.prepare(tmp_path, "s") as catalog:
        for path in paths:
            assert answers(catalog, find(catalog, "s", path)) == [path]
            assert answers(catalog, find(catalog, "s", f"x/{path}")) == [path]
        assert catalog.find("s", "d9/9.mp4") is None


def test_the_fingerprint_tells_what_the_catalog_is_made_from(tmp_path: Path) -> None:
    repository = two_subsets()
    other = MadeRepository({path: data + b" " for path, data in repository.data.items()})
    elsewhere = MadeRepository(repository.data, commit="f" * 40)
    selections: list[tuple[MadeRepository, str, Sequence[AnnotationKind]]] = [
        (repository, "ab", ("cap", "oe", "mc")),
        (repository, "ba", ("cap", "oe", "mc")),
        (repository, "ab", ("mc", "oe", "cap")),
        (repository, "a", ("cap", "mc")),
        (repository, "a", ("cap",)),
        (other, "ab", ("cap", "oe", "mc")),
        (elsewhere, "ab", ("cap", "oe", "mc")),
    ]
    fingerprints = [made.prepare(tmp_path, *names, kinds=kinds).fingerprint for made, names, kinds in selections]
    assert len(set(fingerprints)) == len(fingerprints)
    assert fingerprints[0] == two_subsets().prepare(tmp_path / "again", "a", "b").fingerprint
    # Pinned: a change makes every saved state unusable, and needs a line in the changelog.
    assert fingerprints[0] == "e96fdfdf83a95250a6287a40b999d0b573b1ba6fff524f12d096f6f078971a9f"


def test_folders_are_opened_in_the_order_given_without_a_layout(tmp_path: Path) -> None:
    repository = two_subsets()
    repository.prepare(tmp_path, "a", "b").close()
    folders = [catalog_folder(layout, tmp_path) for layout in repository.layouts("b", "a")]
    with open_catalog(folders) as catalog:
        assert catalog.subsets == ("b", "a")
        assert catalog.clips_of("b") == range(1)


def test_a_subset_of_which_all_rows_are_left_out_is_empty(tmp_path: Path) -> None:
    repository = MadeRepository({"e/e_cap.json": [record(None)], "s/s_cap.json": [record()]})
    with repository.prepare(tmp_path, "e", "s") as catalog:
        assert (catalog.num_clips, catalog.num_samples) == (1, 1)
        assert (catalog.clips_in("e"), catalog.samples_in("e")) == (0, 0)
        assert catalog.find("e", "source/a.mp4") is None
        assert catalog.find("e", "x/source/a.mp4") is None
        assert catalog.clip(0).subset == "s"
        assert catalog.annotation(0).kind == "cap"


@pytest.mark.parametrize("number", [-1, 6, 10**9])
def test_numbers_beyond_the_catalog_are_refused(tmp_path: Path, number: int) -> None:
    with two_subsets().prepare(tmp_path, "a", "b") as catalog:
        for look_up in (catalog.annotation, catalog.clip_of, catalog.source_of, catalog.clip, catalog.samples_of):
            with pytest.raises(IndexError, match="is not in 0 to"):
                look_up(number)


def test_a_damaged_text_is_told_from_a_whole_one(tmp_path: Path) -> None:
    repository = two_subsets()
    repository.prepare(tmp_path, "a").close()
    file = catalog_folder(repository.layout("a"), tmp_path) / "samples.arrow"
    data = file.read_bytes()
    at = data.index(b"cap 1")
    file.write_bytes(data[:at] + b"cat" + data[at + 3 :])
    with open_catalog([file.parent]) as catalog, pytest.raises(DiskError, match="is damaged: sample"):
        answers(catalog, find(catalog, "a", "x/1.mp4"))


def test_several_threads_may_read_at_once(tmp_path: Path) -> None:
    rows = [record(f"d/{row % 300}.mp4", answer=f"Answer {row}, {row * 7919 % 1000}.") for row in range(2000)]
    repository = MadeRepository({"s/s_cap.json": rows})
    with repository.prepare(tmp_path, "s") as catalog, ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda row: catalog.annotation(row).conversations[1]["value"], range(2000)))
        found = list(pool.map(lambda row: catalog.find("s", f"x/d/{row % 300}.mp4"), range(2000)))
        assert sorted(read) == sorted(row["conversations"][1]["value"] for row in rows)
        assert len(set(found)) == 300
