from __future__ import annotations

from pathlib import Path

import pytest

from indexes_kit import Shelf, archive_of, begin_cut, clips, index_of, read_cuts, tar_gz, zipped
from reelstream.archive import RequestCosts
from reelstream.cancel import Cancellation, Cancelled
from reelstream.errors import ArchiveChecksumError, ArchiveError, ConfigError
from reelstream.indexes import IndexStore
from reelstream.indexes.clips import Resolution, WantedMember, plan_reads, resolve
from reelstream.indexes.fetch import Fetched, fetch_members, look_through, plan_fetch
from reelstream.indexes.known import KnownArchive, NamePattern, chained, known_archive, known_archives, search
from reelstream.indexes.learn import learn
from reelstream.indexes.output import OutputFolder

VIDEOS = clips(4, seed=30, size_bytes=200_000)
NAMES = list(VIDEOS)
OTHERS = {"./more//walk.mp4": b"w" * 9000, "other/walk.mp4": b"v" * 900, "clips/30-1.mp4": b"another of that name"}
CONTENTS = {
    "s/1.tar.gz": tar_gz(VIDEOS),
    "s/2.zip": zipped(OTHERS),
    "s/deep/3.mp4": b"by itself" * 1000,
}


def _shelf_and_store(folder: Path) -> tuple[Shelf, IndexStore]:
    shelf, store = Shelf(CONTENTS), IndexStore(folder / "indexes")
    learn(shelf.archives, shelf.open, store)
    shelf.forget()
    return shelf, store


def _known(folder: Path) -> list[KnownArchive]:
    shelf, store = _shelf_and_store(folder)
    return known_archives(shelf.archives, store, shelf.open)


def _names(resolution: Resolution) -> list[str]:
    return [found.name for found in resolution.found]


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("pattern", "name", "means"),
    [
        ("a/b.mp4", "a/b.mp4", True),
        ("b.mp4", "a/b.mp4", True),
        ("a/b.mp4", "./a//b.mp4", True),
        ("./a/b.mp4", "a/b.mp4", True),
        (".mp4", "a/b.mp4", False),
        ("xb.mp4", "a/b.mp4", False),
        ("b*", "a/b.mp4", True),
        ("*", "a/b.mp4", True),
        ("a*4", "a/b/c.mp4", True),
        ("?.mp4", "a/b.mp4", True),
        ("[ab].mp4", "a/b.mp4", True),
        ("c[1].mp4", "a/c[1].mp4", True),
        ("B.mp4", "a/b.mp4", False),
        ("a.b", "a/b", False),
    ],
)
def test_a_pattern_means_a_name_or_its_end_from_a_folder_on(pattern: str, name: str, means: bool) -> None:
    assert NamePattern(pattern).matches(name) is means


def test_members_are_found_over_archives_of_all_kinds(tmp_path: Path) -> None:
    known = _known(tmp_path)
    assert all(each.complete for each in known)
    found = [(each.archive.path, each.name, each.size_bytes) for each in search(known, NamePattern("*walk*"))]
    assert found == [("s/2.zip", "./more//walk.mp4", 9000), ("s/2.zip", "other/walk.mp4", 900)]
    assert [each.archive.path for each in search(known, NamePattern("deep/3.mp4"))] == ["s/deep/3.mp4"]


def test_nothing_is_read_to_know_what_is_known(tmp_path: Path) -> None:
    shelf, _ = _shelf_and_store(tmp_path)
    known_archives(shelf.archives, IndexStore(tmp_path / "indexes"), shelf.open)
    assert all(shelf.taken_bytes(path) == 0 for path in CONTENTS)


def test_the_directory_of_a_zip_is_fetched_once_and_kept(tmp_path: Path) -> None:
    shelf, store = Shelf(CONTENTS), IndexStore(tmp_path)
    assert [each.complete for each in known_archives(shelf.archives, store, shelf.open)] == [False, True, True]
    assert shelf.taken_bytes("s/2.zip") > 0
    shelf.forget()
    known_archive(shelf.archives[1], IndexStore(tmp_path), shelf.open)
    assert shelf.taken_bytes("s/2.zip") == 0


def test_a_zip_that_is_none_is_a_problem_of_its_own(tmp_path: Path) -> None:
    shelf = Shelf({"s/1.zip": b"none" * 50, "s/2.zip": CONTENTS["s/2.zip"]})
    first, second = known_archives(shelf.archives, IndexStore(tmp_path), shelf.open)
    assert first.problem is not None
    assert not first.complete
    assert second.complete


def test_what_an_unfinished_pass_has_learned_can_be_found(tmp_path: Path) -> None:
    shelf, store = Shelf(CONTENTS), IndexStore(tmp_path)
    store.save_cut(shelf.archives[0], begin_cut(CONTENTS["s/1.tar.gz"], 2))
    known = known_archive(shelf.archives[0], store, shelf.open)
    assert not known.complete
    assert [found.name for found in search([known], NamePattern("*"))] == NAMES[:2]


def test_cuts_count_as_far_as_they_hang_together() -> None:
    content = tar_gz(clips(9, seed=31, size_bytes=150_000))
    cuts = read_cuts(content, (0, len(content) // 3))
    assert chained(cuts) == cuts
    assert chained(cuts[::-1]) == cuts
    assert chained(cuts[1:]) == []
    begun = begin_cut(content, 2)
    assert chained([begun, cuts[1]]) == [begun]


# ---------------------------------------------------------------------- from words to members


def test_a_name_stands_for_the_member_of_that_name_or_the_one_that_ends_so(tmp_path: Path) -> None:
    known = _known(tmp_path)
    resolution = resolve([NamePattern("more/walk.mp4"), NamePattern("3.mp4"), NamePattern("30-2.mp4")], known)
    assert _names(resolution) == ["./more//walk.mp4", "deep/3.mp4", NAMES[2]]
    assert not resolution.missing
    assert not resolution.elsewhere


def test_a_whole_name_is_taken_before_one_that_only_ends_so(tmp_path: Path) -> None:
    content = zipped({"a/b.mp4": b"long", "b.mp4": b"short"})
    known = [KnownArchive(archive=archive_of(content, "s/1.zip"), indexes=(_zip_index(content),), complete=True)]
    assert _names(resolve([NamePattern("b.mp4")], known)) == ["b.mp4"]


def _zip_index(content: bytes):  # type: ignore[no-untyped-def]
    from reelstream.archive.containers import Container, read_directory

    shelf = Shelf({"s/1.zip": content})
    directory = read_directory(Container.of(shelf.archives[0]), shelf.open(shelf.archives[0]))
    assert directory is not None
    return directory.index


def test_an_end_that_several_names_have_is_refused_with_the_names(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"walk\.mp4 fits members of 2 names: more/walk\.mp4, other/walk\.mp4"
    ) as caught:
        resolve([NamePattern("walk.mp4")], _known(tmp_path))
    assert "*/walk.mp4" in caught.value.hint


def test_a_pattern_stands_for_all_that_fit_it_each_name_once(tmp_path: Path) -> None:
    known = _known(tmp_path)
    resolution = resolve([NamePattern("*30-1*"), NamePattern("30-1.mp4"), NamePattern("clips/*")], known)
    assert _names(resolution) == [NAMES[1], NAMES[0], NAMES[2], NAMES[3]]
    assert resolution.found[0].archive.path == "s/1.tar.gz"
    assert {each.archive.path for each in resolution.elsewhere} == {"s/2.zip"}


def test_what_is_not_there_is_missing(tmp_path: Path) -> None:
    resolution = resolve([NamePattern("nothing.mp4"), NamePattern("*none*"), NamePattern("30-0.mp4")], _known(tmp_path))
    assert [pattern.text for pattern in resolution.missing] == ["nothing.mp4", "*none*"]
    assert _names(resolution) == [NAMES[0]]


# ---------------------------------------------------------------------- fetching


def _fetch(shelf: Shelf, store: IndexStore, output: OutputFolder, *texts: str) -> list[Fetched]:
    known = known_archives(shelf.archives, store, shelf.open)
    wanted = plan_fetch(resolve([NamePattern(text) for text in texts], known).found, output).wanted
    return list(fetch_members(plan_reads(wanted, RequestCosts()), shelf.open, output))


def _below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_clips_are_fetched_by_one_range_each_archive_where_they_are_neighbours(tmp_path: Path) -> None:
    shelf, store = _shelf_and_store(tmp_path)
    results = _fetch(shelf, store, OutputFolder(tmp_path / "out"), "30-1.mp4", "30-2.mp4", "more/walk.mp4", "3.mp4")
    assert all(result.error is None for result in results)
    assert _below(tmp_path / "out") == {
        NAMES[1]: VIDEOS[NAMES[1]],
        NAMES[2]: VIDEOS[NAMES[2]],
        "more/walk.mp4": OTHERS["./more//walk.mp4"],
        "deep/3.mp4": CONTENTS["s/deep/3.mp4"],
    }
    assert [shelf.num_ranges(path) for path in CONTENTS] == [1, 1, 1]


def test_far_clips_are_fetched_by_a_range_each() -> None:
    content = tar_gz(clips(6, seed=32, size_bytes=400_000))
    index = index_of(content)
    known = [KnownArchive(archive=archive_of(content), indexes=(index,), complete=True)]
    found = resolve([NamePattern("32-0.mp4"), NamePattern("32-5.mp4")], known).found
    reads = plan_reads([WantedMember(found=each, path=Path(each.name)) for each in found], RequestCosts())
    assert [len(read.rows) for read in reads] == [1, 1]
    assert sum(read.size_bytes for read in reads) <= 1.02 * 800_000


def test_a_clip_that_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    shelf, store = _shelf_and_store(tmp_path)
    output = OutputFolder(tmp_path / "out")
    _fetch(shelf, store, output, "30-1.mp4", "3.mp4")
    shelf.forget()
    assert _fetch(shelf, store, output, "30-1.mp4", "3.mp4") == []
    assert all(shelf.taken_bytes(path) == 0 for path in CONTENTS)


@pytest.mark.parametrize("content", [b"mine", bytes(len(VIDEOS[NAMES[1]]))])
def test_another_file_in_the_way_is_left_alone_unless_forced(tmp_path: Path, content: bytes) -> None:
    shelf, store = _shelf_and_store(tmp_path)
    path = tmp_path / "out" / NAMES[1]
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="exists and is not the clip") as caught:
        _fetch(shelf, store, OutputFolder(tmp_path / "out"), "30-1.mp4")
    assert "--force" in caught.value.hint
    assert path.read_bytes() == content
    assert shelf.taken_bytes("s/1.tar.gz") == 0
    _fetch(shelf, store, OutputFolder(tmp_path / "out", force=True), "30-1.mp4")
    assert path.read_bytes() == VIDEOS[NAMES[1]]


def test_bytes_that_are_not_those_of_the_index_leave_no_file_and_stop_no_other(tmp_path: Path) -> None:
    shelf, store = _shelf_and_store(tmp_path)
    damaged = bytearray(CONTENTS["s/1.tar.gz"])
    damaged[len(damaged) // 2] ^= 16
    shelf.contents["s/1.tar.gz"] = bytes(damaged)
    results = _fetch(shelf, store, OutputFolder(tmp_path / "out"), *NAMES, "3.mp4")
    errors = [result.error for result in results if result.error is not None]
    assert len(errors) == 1
    assert isinstance(errors[0], ArchiveError)
    written = _below(tmp_path / "out")
    assert "deep/3.mp4" in written
    assert NAMES[2] not in written
    assert all(VIDEOS[name] == content for name, content in written.items() if name in VIDEOS)
    assert {str(tmp_path / "out" / name) for name in written} == {
        str(path) for result in results for path in result.paths
    }


def test_a_loose_video_that_is_not_the_published_one_is_not_written(tmp_path: Path) -> None:
    shelf, store = _shelf_and_store(tmp_path)
    shelf.contents["s/deep/3.mp4"] = b"an other" * 1125
    (result,) = _fetch(shelf, store, OutputFolder(tmp_path / "out"), "3.mp4")
    assert isinstance(result.error, ArchiveChecksumError)
    assert _below(tmp_path / "out") == {}


def test_fetching_that_is_called_off_leaves_whole_files_only(tmp_path: Path) -> None:
    shelf, store = _shelf_and_store(tmp_path)
    shelf.stop_at["s/1.tar.gz"] = (250_000, Cancelled())
    with pytest.raises(Cancelled):
        _fetch(shelf, store, OutputFolder(tmp_path / "out"), *NAMES[1:])
    written = _below(tmp_path / "out")
    assert all(VIDEOS[name] == content for name, content in written.items())


def test_leaving_early_calls_the_other_reads_off(tmp_path: Path) -> None:
    shelf, store = _shelf_and_store(tmp_path)
    output = OutputFolder(tmp_path / "out")
    known = known_archives(shelf.archives, store, shelf.open)
    wanted = plan_fetch(resolve([NamePattern("30-1.mp4"), NamePattern("3.mp4")], known).found, output).wanted
    cancellation = Cancellation()
    results = fetch_members(plan_reads(wanted, RequestCosts()), shelf.open, output, cancellation=cancellation)
    next(results)
    results.close()
    assert cancellation.cancelled


# ---------------------------------------------------------------------- looking through archives


def test_an_unknown_archive_is_read_until_the_clip_turns_up_and_what_was_read_is_known_then(tmp_path: Path) -> None:
    shelf, store = Shelf(CONTENTS), IndexStore(tmp_path / "indexes")
    archive = shelf.archives[0]
    output = OutputFolder(tmp_path / "out")
    sought = NamePattern("30-1.mp4")
    turned_up = look_through(archive, [sought, NamePattern("30-0.mp4")], shelf.open(archive), store, output)
    assert [(pattern.text, path) for pattern, path in turned_up] == [
        ("30-0.mp4", tmp_path / "out" / NAMES[0]),
        ("30-1.mp4", tmp_path / "out" / NAMES[1]),
    ]
    assert _below(tmp_path / "out") == {name: VIDEOS[name] for name in NAMES[:2]}
    assert shelf.taken_bytes(archive.path) < 0.8 * archive.size_bytes
    known = known_archive(archive, store, shelf.open)
    assert [found.name for found in search([known], NamePattern("*"))] == NAMES[:2]


def test_an_archive_that_does_not_hold_the_clip_is_known_wholly_afterwards(tmp_path: Path) -> None:
    shelf, store = Shelf(CONTENTS), IndexStore(tmp_path / "indexes")
    archive = shelf.archives[0]
    output = OutputFolder(tmp_path / "out")
    assert look_through(archive, [NamePattern("nothing.mp4")], shelf.open(archive), store, output) == []
    assert store.find(archive) is not None
    assert not (tmp_path / "out").exists()


def test_an_archive_that_cannot_be_learned_is_looked_through_all_the_same(tmp_path: Path) -> None:
    shelf, store = Shelf(CONTENTS), IndexStore(tmp_path / "indexes")
    archive = archive_of(CONTENTS["s/1.tar.gz"], "s/1.tar.gz", with_sha256=False)
    sought = [NamePattern("30-3.mp4")]
    ((_, path),) = look_through(archive, sought, shelf.open(archive), store, OutputFolder(tmp_path / "out"))
    assert path is not None
    assert path.read_bytes() == VIDEOS[NAMES[3]]
