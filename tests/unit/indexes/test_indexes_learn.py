from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from indexes_kit import (
    CountingSource,
    Shelf,
    Told,
    archive_of,
    begin_cut,
    clips,
    names_in,
    read_cuts,
    tar,
    tar_gz,
    zipped,
)
from reelstream.archive import ArchiveIndex, BytesSource, IndexRow, Verification, read_rows
from reelstream.cancel import Cancellation, Cancelled
from reelstream.errors import ArchiveChecksumError, ArchiveError, DiskError, NetworkError
from reelstream.indexes import IndexStore
from reelstream.indexes.learn import ArchiveOutcome, LearningProgress, Outcome, learn
from reelstream.indexes.passes import ArchivePass, bytes_to_read
from reelstream.types import Archive

FILES = {path: clips(5, seed=seed, size_bytes=90_000) for seed, path in enumerate(("s/1.tar.gz", "s/2.tar", "s/3.zip"))}
CONTENTS = {
    "s/1.tar.gz": tar_gz(FILES["s/1.tar.gz"]),
    "s/2.tar": tar(FILES["s/2.tar"]),
    "s/3.zip": zipped(FILES["s/3.zip"]),
    "s/more/4.mp4": b"a video by itself" * 5000,
}

CUT_FILES = clips(12, seed=9, size_bytes=120_000)
CUT_CONTENT = tar_gz(CUT_FILES)
CUTS = read_cuts(CUT_CONTENT, (0, len(CUT_CONTENT) // 3, 2 * len(CUT_CONTENT) // 3))


def _store(folder: Path) -> IndexStore:
    return IndexStore(folder / "indexes")


def _outcomes(found: list[ArchiveOutcome]) -> list[Outcome]:
    return [each.outcome for each in found]


def _read(index: ArchiveIndex, content: bytes) -> dict[str, bytes]:
    rows: list[IndexRow] = list(index)
    return {each.row.name: b"".join(each.chunks()) for each in read_rows(BytesSource(content), rows)}


def test_archives_of_all_kinds_are_learned_and_nothing_else_is_kept(tmp_path: Path) -> None:
    shelf = Shelf(CONTENTS)
    found = learn(shelf.archives, shelf.open, _store(tmp_path))
    assert _outcomes(found) == [Outcome.LEARNED, Outcome.LEARNED, Outcome.LEARNED, Outcome.KNOWN]
    assert [each.archive for each in found] == shelf.archives
    assert {Path(name).suffix for name in names_in(tmp_path / "indexes")} == {".reelindex"}
    assert len(names_in(tmp_path / "indexes")) == 3
    for archive in shelf.archives[:3]:
        index = _store(tmp_path).find(archive)
        assert index is not None
        assert _read(index, CONTENTS[archive.path]) == FILES[archive.path]


def test_one_pass_from_the_first_byte_is_held_against_the_published_sha256(tmp_path: Path) -> None:
    shelf = Shelf(CONTENTS)
    found = learn(shelf.archives[:2], shelf.open, _store(tmp_path))
    for each in found:
        assert each.index is not None
        assert each.index.verification is Verification.SHA256


def test_each_byte_of_a_tar_is_read_once_and_of_a_zip_the_directory_only(tmp_path: Path) -> None:
    shelf = Shelf(CONTENTS)
    progress = LearningProgress()
    learn(shelf.archives, shelf.open, _store(tmp_path), progress=progress)
    tars = ("s/1.tar.gz", "s/2.tar")
    assert [shelf.taken_bytes(path) for path in tars] == [len(CONTENTS[path]) for path in tars]
    assert shelf.taken_bytes("s/3.zip") < 70_000
    assert shelf.num_ranges("s/3.zip") <= 3
    assert shelf.taken_bytes("s/more/4.mp4") == 0
    assert progress.read_bytes == progress.needed_bytes == sum(len(CONTENTS[path]) for path in tars)
    assert progress.num_done == progress.num_archives == 4


def test_nothing_is_read_of_what_is_known(tmp_path: Path) -> None:
    shelf = Shelf(CONTENTS)
    learn(shelf.archives, shelf.open, _store(tmp_path))
    shelf.forget()
    progress = LearningProgress()
    assert _outcomes(learn(shelf.archives, shelf.open, _store(tmp_path), progress=progress)) == [Outcome.KNOWN] * 4
    assert all(shelf.taken_bytes(path) == 0 for path in CONTENTS)
    assert progress.needed_bytes == 0


@pytest.mark.parametrize("path", ["s/1.tar.gz", "s/2.tar"])
@pytest.mark.parametrize("share", [0.1, 0.4, 0.6, 0.95])
def test_what_was_called_off_is_gone_on_with(tmp_path: Path, path: str, share: float) -> None:
    files = clips(10, seed=7, size_bytes=300_000)
    shelf = Shelf({path: tar_gz(files) if path.endswith("gz") else tar(files)})
    size_bytes = len(shelf.contents[path])
    shelf.stop_at[path] = (int(share * size_bytes), Cancelled())
    assert _outcomes(learn(shelf.archives, shelf.open, _store(tmp_path))) == [Outcome.UNFINISHED]
    shelf.forget()
    expected_bytes = bytes_to_read(shelf.archives[0], _store(tmp_path))
    (found,) = learn(shelf.archives, shelf.open, _store(tmp_path))
    assert found.outcome is Outcome.LEARNED
    # At most the member that it was in, the one before it (whose place shows only later), and a share of a third.
    assert shelf.taken_bytes(path) <= (1 - share) * size_bytes + 2.5 * 300_000
    assert shelf.taken_bytes(path) <= expected_bytes + 300_000
    assert found.index is not None
    assert _read(found.index, shelf.contents[path]) == files
    assert {Path(name).suffix for name in names_in(tmp_path / "indexes")} == {".reelindex"}


def test_a_pass_that_is_stopped_again_and_again_ends_with_the_right_index(tmp_path: Path) -> None:
    path = "s/1.tar.gz"
    shelf = Shelf({path: CONTENTS[path]})
    shelf.stop_at[path] = (220_000, Cancelled())
    for _ in range(20):
        (found,) = learn(shelf.archives, shelf.open, _store(tmp_path))
        if found.outcome is Outcome.LEARNED:
            break
    assert found.index is not None
    assert _read(found.index, CONTENTS[path]) == FILES[path]
    assert found.index.verification is Verification.CHECKSUM


def test_what_was_learned_so_far_is_kept_while_the_pass_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reelstream.indexes.passes._SAVE_EVERY_BYTES", 100_000)
    monkeypatch.setattr("reelstream.indexes.passes._MOST_SAVING_SHARE", 1.0)
    path = "s/1.tar.gz"
    archive = archive_of(CONTENTS[path], path)
    store = _store(tmp_path)
    num_kept = []
    for _ in ArchivePass(archive, CountingSource(CONTENTS[path]), store).members():
        cut = store.find_cut(archive, 0)
        num_kept.append(0 if cut is None else len(cut.rows))
    assert num_kept == sorted(num_kept)
    assert num_kept[-1] >= 2


def test_what_a_training_run_has_learned_of_an_archive_is_not_read_again(tmp_path: Path) -> None:
    archive, store = archive_of(CUT_CONTENT, "s/1.tar.gz"), _store(tmp_path)
    store.save_cut(archive, CUTS[0])
    store.save_cut(archive, CUTS[2])
    source = CountingSource(CUT_CONTENT)
    one_pass = ArchivePass(archive, source, store)
    missing = [row.name for row in CUTS[1].rows]
    assert [member.name for member in one_pass.members()] == missing
    assert source.taken_bytes <= len(CUT_CONTENT) // 3 + 3 * 120_000
    index = store.find(archive)
    assert index is not None
    assert index.verification is Verification.CHECKSUM
    assert _read(index, CUT_CONTENT) == CUT_FILES


@pytest.mark.parametrize("num_members", range(1, 12))
def test_a_begun_pass_and_the_cuts_of_a_training_run_are_put_together(tmp_path: Path, num_members: int) -> None:
    archive, store = archive_of(CUT_CONTENT, "s/1.tar.gz"), _store(tmp_path)
    # The pass had no way to know of the cut, which may begin before or behind its bookmark.
    store.save_cut(archive, begin_cut(CUT_CONTENT, num_members))
    store.save_cut(archive, CUTS[1])
    (found,) = learn([archive], lambda _: CountingSource(CUT_CONTENT), store)
    assert found.index is not None
    assert [row.name for row in found.index] == list(CUT_FILES)
    assert _read(found.index, CUT_CONTENT) == CUT_FILES
    assert found.index.verification is Verification.CHECKSUM


def test_two_runs_at_once_in_one_folder_both_end_well(tmp_path: Path) -> None:
    shelves = [Shelf(CONTENTS) for _ in range(2)]

    def run(shelf: Shelf) -> list[ArchiveOutcome]:
        return learn(shelf.archives, shelf.open, _store(tmp_path), connections=2)

    with ThreadPoolExecutor(2) as runs:
        for found in runs.map(run, shelves):
            assert {each.outcome for each in found} <= {Outcome.LEARNED, Outcome.KNOWN}
    assert {Path(name).suffix for name in names_in(tmp_path / "indexes")} == {".reelindex"}
    for archive in shelves[0].archives[:3]:
        index = _store(tmp_path).find(archive)
        assert index is not None
        assert _read(index, CONTENTS[archive.path]) == FILES[archive.path]


# ---------------------------------------------------------------------- what fails


def test_an_archive_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    contents = {f"s/{number}.tar.gz": tar_gz(clips(3, seed=20 + number, size_bytes=50_000)) for number in range(4)}
    shelf = Shelf(contents)
    shelf.stop_at["s/1.tar.gz"] = (60_000, NetworkError("the line is dead", "wait"))
    shelf.contents["s/2.tar.gz"] = contents["s/2.tar.gz"][:-60_000]
    found = learn(shelf.archives, shelf.open, _store(tmp_path), connections=2)
    assert _outcomes(found) == [Outcome.LEARNED, Outcome.FAILED, Outcome.FAILED, Outcome.LEARNED]
    assert isinstance(found[1].error, NetworkError)
    assert isinstance(found[2].error, ArchiveError)


@pytest.mark.parametrize("path", ["s/1.tar.gz", "s/2.tar"])
def test_bytes_that_are_not_those_published_make_no_index(tmp_path: Path, path: str) -> None:
    shelf = Shelf({path: CONTENTS[path]})
    damaged = bytearray(CONTENTS[path])
    damaged[len(damaged) // 2] ^= 1
    shelf.contents[path] = bytes(damaged)
    (found,) = learn(shelf.archives, shelf.open, _store(tmp_path))
    assert found.outcome is Outcome.FAILED
    assert found.error is not None
    assert path in found.error.fact
    assert found.error.hint
    assert _store(tmp_path).find(shelf.archives[0]) is None
    # Read anew from bytes that are sound, it is learned.
    shelf.contents[path] = CONTENTS[path]
    assert _outcomes(learn(shelf.archives, shelf.open, _store(tmp_path))) == [Outcome.LEARNED]


def test_bytes_that_are_sound_but_others_than_published_make_no_index(tmp_path: Path) -> None:
    path = "s/1.tar.gz"
    shelf = Shelf({path: CONTENTS[path]})
    other = bytearray(CONTENTS[path])
    other[4] ^= 1  # the time of packing, which no checksum of gzip's covers
    shelf.contents[path] = bytes(other)
    (found,) = learn(shelf.archives, shelf.open, _store(tmp_path))
    assert found.outcome is Outcome.FAILED
    assert isinstance(found.error, ArchiveChecksumError)
    assert names_in(tmp_path / "indexes") == set()


def test_false_rows_of_an_earlier_run_are_found_out_and_dropped(tmp_path: Path) -> None:
    path = "s/1.tar.gz"
    shelf = Shelf({path: CONTENTS[path]})
    damaged = bytearray(CONTENTS[path])
    damaged[len(damaged) // 3] ^= 1
    shelf.contents[path] = bytes(damaged)
    shelf.stop_at[path] = (len(damaged) * 3 // 4, Cancelled())
    learn(shelf.archives, shelf.open, _store(tmp_path))
    assert _store(tmp_path).cuts(shelf.archives[0])
    shelf.forget()
    shelf.contents[path] = CONTENTS[path]
    (found,) = learn(shelf.archives, shelf.open, _store(tmp_path))
    assert found.outcome is Outcome.FAILED
    assert found.error is not None
    assert "reads it anew" in found.error.hint
    assert _store(tmp_path).cuts(shelf.archives[0]) == []
    assert _outcomes(learn(shelf.archives, shelf.open, _store(tmp_path))) == [Outcome.LEARNED]


def test_an_archive_that_could_not_be_found_again_is_not_learned(tmp_path: Path) -> None:
    shelf = Shelf(CONTENTS)
    archive = archive_of(CONTENTS["s/1.tar.gz"], "s/1.tar.gz", with_sha256=False)
    (found,) = learn([archive], shelf.open, _store(tmp_path))
    assert found.outcome is Outcome.FAILED
    assert found.error is not None
    assert "SHA-256" in found.error.fact
    assert shelf.taken_bytes("s/1.tar.gz") == 0


def test_a_zip_without_a_directory_fails_by_itself(tmp_path: Path) -> None:
    shelf = Shelf({"s/1.zip": b"no zip" * 100, "s/3.zip": CONTENTS["s/3.zip"]})
    assert _outcomes(learn(shelf.archives, shelf.open, _store(tmp_path))) == [Outcome.FAILED, Outcome.LEARNED]


def test_a_disk_that_takes_nothing_ends_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "indexes").write_text("a file where the folder must be")
    shelf = Shelf(CONTENTS)
    with pytest.raises(DiskError):
        learn(shelf.archives, shelf.open, _store(tmp_path), connections=1)


def test_archives_that_were_not_begun_are_unfinished(tmp_path: Path) -> None:
    shelf = Shelf(CONTENTS)
    cancellation = Cancellation()

    def open_and_cancel(archive: Archive) -> CountingSource:
        cancellation.cancel()
        return shelf.open(archive)

    found = learn(shelf.archives, open_and_cancel, _store(tmp_path), connections=1, cancellation=cancellation)
    assert _outcomes(found) == [Outcome.UNFINISHED] * 4


def test_an_interrupt_keeps_what_was_learned(tmp_path: Path) -> None:
    path = "s/1.tar.gz"
    shelf = Shelf({path: CONTENTS[path]})
    archive = shelf.archives[0]
    members = ArchivePass(archive, shelf.open(archive), _store(tmp_path)).members()
    for _ in range(4):
        next(members)
    with pytest.raises(KeyboardInterrupt):
        members.throw(KeyboardInterrupt)
    cut = _store(tmp_path).find_cut(archive, 0)
    assert cut is not None
    assert len(cut.rows) >= 3


def test_a_run_without_room_for_it_learns_without_keeping(tmp_path: Path) -> None:
    from indexes_kit import account_of

    told = Told()
    path = "s/1.tar.gz"
    shelf = Shelf({path: CONTENTS[path]})
    store = IndexStore(tmp_path / "indexes", account_of(4096), telemetry=told.telemetry)
    store.open(shelf.archives)
    (found,) = learn(shelf.archives, shelf.open, store)
    assert found.index is not None
    assert names_in(tmp_path / "indexes") == set()
    assert len(told.messages) == 1
