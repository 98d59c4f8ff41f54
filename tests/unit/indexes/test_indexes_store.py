from __future__ import annotations

import os
from pathlib import Path

import pytest

from indexes_kit import Told, account_of, archive_of, clips, index_of, names_in, room_for, tar_gz
from reelstream.archive import Verification, index_file_name
from reelstream.cache.budget import BLOCK_BYTES
from reelstream.errors import DiskError
from reelstream.indexes import IndexStore, identity_of, set_aside_bytes

CONTENTS = [tar_gz(clips(2, seed=seed, size_bytes=20_000)) for seed in range(4)]
ARCHIVES = [archive_of(content, f"shorts/videos_{number}.tar.gz") for number, content in enumerate(CONTENTS)]


def _name(number: int) -> str:
    identity = identity_of(ARCHIVES[number])
    assert identity is not None
    return index_file_name(identity)


def _save_all(folder: Path, numbers: range) -> None:
    """Let an earlier run have learned some indexes, the lowest number the longest ago."""
    store = IndexStore(folder)
    for number in numbers:
        assert store.save(index_of(CONTENTS[number]))
        os.utime(folder / _name(number), (1000 + number, 1000 + number))


def test_an_index_is_found_again_by_another_store(tmp_path: Path) -> None:
    assert IndexStore(tmp_path / "indexes").save(index_of(CONTENTS[0]))
    found = IndexStore(tmp_path / "indexes").find(ARCHIVES[0])
    assert found is not None
    assert [row.name for row in found] == ["clips/0-0.mp4", "clips/0-1.mp4"]
    assert found.complete
    assert IndexStore(tmp_path / "indexes").find(ARCHIVES[1]) is None


def test_an_index_is_held_in_memory_after_its_file_is_gone(tmp_path: Path) -> None:
    store = IndexStore(tmp_path)
    store.save(index_of(CONTENTS[0]))
    (tmp_path / _name(0)).unlink()
    assert store.find(ARCHIVES[0]) is not None


def test_a_bounded_number_of_rows_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reelstream.indexes.store._MOST_ROWS_HELD", 4)
    store = IndexStore(tmp_path)
    for content in CONTENTS[:3]:
        store.save(index_of(content))
    for number in range(3):
        (tmp_path / _name(number)).unlink()
    assert [store.find(ARCHIVES[number]) is None for number in range(3)] == [True, False, False]


def test_an_archive_without_sha256_has_no_index(tmp_path: Path) -> None:
    store = IndexStore(tmp_path)
    archive = archive_of(CONTENTS[0], with_sha256=False)
    assert identity_of(archive) is None
    assert store.find(archive) is None


def test_an_index_that_is_not_complete_is_not_found_and_gives_way_to_one_that_is(tmp_path: Path) -> None:
    store = IndexStore(tmp_path)
    assert store.save(index_of(CONTENTS[0], Verification.PROVISIONAL, complete=False))
    assert store.find(ARCHIVES[0]) is None
    assert store.save(index_of(CONTENTS[0]))
    assert store.find(ARCHIVES[0]) is not None


def test_a_better_verified_index_is_never_replaced_by_a_worse(tmp_path: Path) -> None:
    store = IndexStore(tmp_path)
    assert store.save(index_of(CONTENTS[0], Verification.SHA256))
    assert store.save(index_of(CONTENTS[0], Verification.CHECKSUM))
    assert store.save(index_of(CONTENTS[0], Verification.PROVISIONAL, complete=False))
    found = IndexStore(tmp_path).find(ARCHIVES[0])
    assert found is not None
    assert found.verification is Verification.SHA256


def test_a_worse_verified_index_is_replaced_by_a_better(tmp_path: Path) -> None:
    store = IndexStore(tmp_path)
    store.save(index_of(CONTENTS[0], Verification.CHECKSUM))
    store.save(index_of(CONTENTS[0], Verification.SHA256))
    for reader in (store, IndexStore(tmp_path)):
        found = reader.find(ARCHIVES[0])
        assert found is not None
        assert found.verification is Verification.SHA256


def test_the_index_of_an_archive_that_failed_is_not_kept(tmp_path: Path) -> None:
    store = IndexStore(tmp_path)
    assert not store.save(index_of(CONTENTS[0], Verification.FAILED))
    assert names_in(tmp_path) == set()


@pytest.mark.parametrize("damage", ["torn", "flipped", "foreign", "empty", "text"])
def test_a_damaged_or_foreign_file_is_deleted_with_a_notice_and_counts_as_missing(tmp_path: Path, damage: str) -> None:
    IndexStore(tmp_path).save(index_of(CONTENTS[0]))
    path = tmp_path / _name(0)
    content = bytearray(path.read_bytes())
    if damage == "torn":
        del content[-10:]
    elif damage == "flipped":
        content[len(content) // 2] ^= 4
    elif damage == "foreign":
        IndexStore(tmp_path).save(index_of(CONTENTS[1]))
        content[:] = (tmp_path / _name(1)).read_bytes()
        (tmp_path / _name(1)).unlink()
    else:
        content[:] = b"" if damage == "empty" else b"no index"
    path.write_bytes(content)
    told = Told()
    store = IndexStore(tmp_path, telemetry=told.telemetry)
    assert store.find(ARCHIVES[0]) is None
    assert names_in(tmp_path) == set()
    assert len(told.messages) == 1
    assert str(path) in told.messages[0]
    assert "deleted" in told.messages[0]
    assert store.save(index_of(CONTENTS[0]))


def test_a_file_that_cannot_be_read_counts_as_missing_and_stays(tmp_path: Path) -> None:
    (tmp_path / _name(0)).mkdir()
    told = Told()
    assert IndexStore(tmp_path, telemetry=told.telemetry).find(ARCHIVES[0]) is None
    assert len(told.messages) == 1
    assert (tmp_path / _name(0)).is_dir()


def test_a_folder_that_cannot_be_written_to_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "indexes").write_text("a file")
    with pytest.raises(DiskError) as caught:
        IndexStore(tmp_path / "indexes").save(index_of(CONTENTS[0]))
    assert caught.value.hint


# ---------------------------------------------------------------------- the room


def test_what_is_saved_is_charged_and_nothing_beyond_the_room_set_aside(tmp_path: Path) -> None:
    told = Told()
    account = account_of(room_for(2))
    store = IndexStore(tmp_path, account, telemetry=told.telemetry)
    store.open(ARCHIVES)
    assert account.used_bytes == room_for(0)
    assert store.save(index_of(CONTENTS[0]))
    assert account.used_bytes == room_for(1)
    assert store.save(index_of(CONTENTS[1]))
    assert told.messages == []
    assert not store.save(index_of(CONTENTS[2]))
    assert not store.save(index_of(CONTENTS[3]))
    assert account.used_bytes == room_for(2)
    assert names_in(tmp_path) == {_name(0), _name(1)}
    assert len(told.messages) == 1
    assert "no more are kept" in told.messages[0]


def test_room_is_reserved_before_the_first_byte_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = account_of(room_for(3))
    store = IndexStore(tmp_path, account)
    store.open(ARCHIVES)
    seen = []
    monkeypatch.setattr(
        "reelstream.indexes.store.write_file", lambda *_, **__: seen.append((account.used_bytes, names_in(tmp_path)))
    )
    store.save(index_of(CONTENTS[0]))
    assert seen == [(room_for(1), set())]
    assert account.used_bytes == room_for(0)


def test_a_replacement_needs_room_for_both(tmp_path: Path) -> None:
    IndexStore(tmp_path).save(index_of(CONTENTS[0], Verification.CHECKSUM))
    for num_blocks, fits in ((1, False), (2, True)):
        account = account_of(room_for(num_blocks))
        store = IndexStore(tmp_path, account)
        store.open(ARCHIVES)
        assert store.save(index_of(CONTENTS[0], Verification.SHA256)) is fits
        assert account.used_bytes == room_for(1)


def test_files_of_other_datasets_stay_where_the_room_holds_all(tmp_path: Path) -> None:
    _save_all(tmp_path, range(3))
    account = account_of(room_for(3))
    IndexStore(tmp_path, account).open(ARCHIVES[3:])
    assert names_in(tmp_path) == {_name(0), _name(1), _name(2)}
    assert account.used_bytes == room_for(3)


def test_files_of_other_datasets_go_the_longest_unused_first_where_it_does_not(tmp_path: Path) -> None:
    _save_all(tmp_path, range(4))
    IndexStore(tmp_path).find(ARCHIVES[1])
    account = account_of(room_for(2))
    store = IndexStore(tmp_path, account)
    store.open(ARCHIVES[:1])
    # Number 0 is this run's own, number 1 was used just now.
    assert names_in(tmp_path) == {_name(0), _name(1)}
    assert account.used_bytes == room_for(2)


def test_files_of_other_datasets_go_when_an_index_needs_their_room(tmp_path: Path) -> None:
    _save_all(tmp_path, range(2))
    account = account_of(room_for(2))
    store = IndexStore(tmp_path, account)
    store.open(ARCHIVES[2:])
    assert store.save(index_of(CONTENTS[2]))
    assert names_in(tmp_path) == {_name(1), _name(2)}
    assert account.used_bytes == room_for(2)


def test_own_files_that_the_room_cannot_hold_go_at_the_opening(tmp_path: Path) -> None:
    _save_all(tmp_path, range(4))
    account = account_of(room_for(1))
    IndexStore(tmp_path, account).open(ARCHIVES)
    assert names_in(tmp_path) == {_name(3)}
    assert account.used_bytes == room_for(1)


def test_a_run_that_sets_nothing_aside_keeps_nothing(tmp_path: Path) -> None:
    _save_all(tmp_path, range(2))
    account = account_of(0)
    store = IndexStore(tmp_path, account)
    store.open(ARCHIVES)
    assert names_in(tmp_path) == set()
    assert not store.save(index_of(CONTENTS[0]))
    assert account.used_bytes == 0


def test_files_that_are_not_ours_are_neither_counted_nor_removed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "abc.reelindex").write_text("mine")
    account = account_of(room_for(1))
    store = IndexStore(tmp_path, account)
    store.open(ARCHIVES)
    assert account.used_bytes == room_for(0)
    assert names_in(tmp_path) == {"notes.txt", "abc.reelindex"}


def test_leftovers_of_killed_runs_are_removed_but_not_what_is_being_written(tmp_path: Path) -> None:
    leftover = tmp_path / f".{_name(0)}.0123456789abcdef.partial"
    leftover.write_bytes(b"torn")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_SH)
        IndexStore(tmp_path).open(ARCHIVES)
        assert leftover.exists()
    finally:
        os.close(descriptor)
    IndexStore(tmp_path).open(ARCHIVES)
    assert not leftover.exists()


def test_what_other_runs_add_never_draws_on_the_room_of_clips(tmp_path: Path) -> None:
    account = account_of(room_for(1))
    store = IndexStore(tmp_path, account)
    store.open(ARCHIVES[:1])
    store.save(index_of(CONTENTS[0]))
    _save_all(tmp_path, range(1, 3))
    assert not store.save(index_of(CONTENTS[3], Verification.FAILED))
    store.drop_cuts(ARCHIVES[0])
    assert account.used_bytes == room_for(1)


def test_a_file_that_vanishes_while_it_is_counted_is_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save_all(tmp_path, range(2))
    stat = Path.stat

    def vanishing(path: Path, **words: bool) -> os.stat_result:
        if path.name == _name(0):
            path.unlink(missing_ok=True)
        return stat(path, **words)

    monkeypatch.setattr(Path, "stat", vanishing)
    account = account_of(room_for(3))
    store = IndexStore(tmp_path, account)
    store.open(ARCHIVES)
    assert account.used_bytes == room_for(1)


def test_set_aside_is_a_function_of_the_dataset() -> None:
    assert set_aside_bytes(0, 0, 0) == 0
    assert set_aside_bytes(1_000, 7_200_000_000, 2) == 256_000 + 2_160_000 + 32_768
    assert set_aside_bytes(1, 1, 1) % BLOCK_BYTES != 0  # no rounding: the account does what the file system does
