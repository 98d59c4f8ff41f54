"""What one store takes over from another, and what is left of one that is cleared."""

from __future__ import annotations

import os
from pathlib import Path

from indexes_kit import Told, account_of, archive_of, clips, index_of, names_in, tar_gz
from reelstream.archive import index_file_name
from reelstream.cache.budget import BLOCK_BYTES
from reelstream.indexes import IndexStore, LearnedCut, identity_of

CONTENTS = [tar_gz(clips(2, seed=seed, size_bytes=20_000)) for seed in range(2)]
ARCHIVES = [archive_of(content, f"shorts/videos_{number}.tar.gz") for number, content in enumerate(CONTENTS)]


def _cut(number: int, num_rows: int) -> LearnedCut:
    return LearnedCut(first_byte=0, report=None, rows=list(index_of(CONTENTS[number]))[:num_rows])


def _index_name(number: int) -> str:
    identity = identity_of(ARCHIVES[number])
    assert identity is not None
    return index_file_name(identity)


def test_indexes_and_cuts_of_the_archives_asked_for_are_copied(tmp_path: Path) -> None:
    other, store = IndexStore(tmp_path / "other"), IndexStore(tmp_path / "here")
    for number in range(2):
        other.save(index_of(CONTENTS[number]))
        other.save_cut(ARCHIVES[number], _cut(number, 1))
    assert store.take_from(other, ARCHIVES[:1], mirror=False)
    assert len(names_in(tmp_path / "here")) == 2
    found, cut = store.find(ARCHIVES[0]), store.find_cut(ARCHIVES[0], 0)
    assert found is not None
    assert cut is not None
    assert (len(found), len(cut.rows)) == (2, 1)
    assert store.find(ARCHIVES[1]) is None


def test_what_is_here_stays_unless_the_other_is_mirrored(tmp_path: Path) -> None:
    other, store = IndexStore(tmp_path / "other"), IndexStore(tmp_path / "here")
    store.save_cut(ARCHIVES[0], _cut(0, 1))
    other.save_cut(ARCHIVES[0], _cut(0, 2))
    os.utime(next((tmp_path / "other").iterdir()), ns=(1_000, 1_000))
    for mirror, num_rows in ((False, 1), (True, 2)):
        assert store.take_from(other, ARCHIVES, mirror=mirror)
        cut = store.find_cut(ARCHIVES[0], 0)
        assert cut is not None
        assert len(cut.rows) == num_rows
    other.drop_cuts(ARCHIVES[0])
    assert store.take_from(other, ARCHIVES, mirror=False)
    assert len(names_in(tmp_path / "here")) == 1
    assert store.take_from(other, ARCHIVES, mirror=True)
    assert names_in(tmp_path / "here") == set()


def test_a_mirror_that_is_up_to_date_writes_nothing(tmp_path: Path) -> None:
    other, store = IndexStore(tmp_path / "other"), IndexStore(tmp_path / "here")
    other.save_cut(ARCHIVES[0], _cut(0, 1))
    store.take_from(other, ARCHIVES, mirror=True)
    before = next((tmp_path / "here").iterdir()).stat().st_ino
    store.take_from(other, ARCHIVES, mirror=True)
    assert next((tmp_path / "here").iterdir()).stat().st_ino == before


def test_what_there_is_no_room_for_is_told(tmp_path: Path) -> None:
    other = IndexStore(tmp_path / "other")
    other.save(index_of(CONTENTS[0]))
    told = Told()
    store = IndexStore(tmp_path / "here", account_of(BLOCK_BYTES), telemetry=told.telemetry)
    assert not store.take_from(other, ARCHIVES, mirror=True)
    assert names_in(tmp_path / "here") == set()
    assert len(told.messages) == 1


def test_damage_is_found_when_what_was_taken_is_used(tmp_path: Path) -> None:
    other = IndexStore(tmp_path / "other")
    other.save(index_of(CONTENTS[0]))
    path = tmp_path / "other" / _index_name(0)
    path.write_bytes(path.read_bytes()[:-9])
    told = Told()
    store = IndexStore(tmp_path / "here", telemetry=told.telemetry)
    assert store.take_from(other, ARCHIVES, mirror=False)
    assert store.find(ARCHIVES[0]) is None
    assert len(told.messages) == 1
    assert names_in(tmp_path / "here") == set()


def test_clearing_leaves_what_is_not_ours(tmp_path: Path) -> None:
    store = IndexStore(tmp_path / "here")
    store.clear()
    store.save(index_of(CONTENTS[0]))
    store.save_cut(ARCHIVES[0], _cut(0, 1))
    (tmp_path / "here" / ".a.0123456789abcdef.partial").write_bytes(b"torn")
    (tmp_path / "here" / "notes.txt").write_text("mine")
    store.clear()
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["notes.txt"]
    (tmp_path / "here" / "notes.txt").unlink()
    store.clear()
    assert not (tmp_path / "here").exists()
