from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import pytest

from indexes_kit import Told, account_of, archive_of, begin_cut, clips, index_of, names_in, read_cuts, room_for, tar_gz
from reelstream.archive import BytesSource, read_rows
from reelstream.archive.cuts.assemble import assemble_index
from reelstream.archive.cuts.cut import CutReader
from reelstream.errors import ArchiveError
from reelstream.indexes import IndexStore, LearnedCut, identity_of
from reelstream.indexes.cut_file import decode_cut, encode_cut

FILES = clips(9, seed=3, size_bytes=150_000) | {f"notes/{number}.json": b"{}" * 90 for number in range(30)}
CONTENT = tar_gz(FILES)
ARCHIVE = archive_of(CONTENT)
OTHER = archive_of(tar_gz(clips(1, seed=4)))
FIRST_BYTES = (0, len(CONTENT) // 3, 2 * len(CONTENT) // 3)
CUTS = read_cuts(CONTENT, FIRST_BYTES)


def _bytes_by_name(cut: LearnedCut) -> dict[str, bytes]:
    source = BytesSource(CONTENT)
    return {row.name: b"".join(b"".join(each.chunks()) for each in read_rows(source, [row])) for row in cut.rows}


def test_learned_cuts_are_found_again_and_their_rows_read_the_members(tmp_path: Path) -> None:
    store = IndexStore(tmp_path)
    for cut in CUTS[::-1]:
        assert store.save_cut(ARCHIVE, cut)
    found = IndexStore(tmp_path).cuts(ARCHIVE)
    assert [cut.first_byte for cut in found] == list(FIRST_BYTES)
    assert [cut.report for cut in found] == [cut.report for cut in CUTS]
    read: dict[str, bytes] = {}
    for cut in found:
        read |= _bytes_by_name(cut)
    assert read == FILES
    assert store.find_cut(ARCHIVE, FIRST_BYTES[1]) is not None
    assert store.find_cut(ARCHIVE, 17) is None
    assert store.cuts(OTHER) == []


def test_learned_cuts_put_together_are_the_archive_whoever_read_them(tmp_path: Path) -> None:
    store = IndexStore(tmp_path)
    for cut in CUTS:
        store.save_cut(ARCHIVE, cut)
    identity = identity_of(ARCHIVE)
    assert identity is not None
    cuts = [(cut.report, cut.rows) for cut in IndexStore(tmp_path).cuts(ARCHIVE) if cut.report is not None]
    index = assemble_index(identity, cuts)
    assert [row.name for row in index] == list(FILES)


def test_a_cut_that_is_being_read_is_gone_on_with_at_its_bookmark(tmp_path: Path) -> None:
    IndexStore(tmp_path).save_cut(ARCHIVE, begin_cut(CONTENT, 4))
    found = IndexStore(tmp_path).find_cut(ARCHIVE, 0)
    assert found is not None
    assert found.report is None
    assert [row.name for row in found.rows] == list(FILES)[:4]
    with CutReader(BytesSource(CONTENT), 0, learn=True, resume=found.bookmark) as reader:
        assert [member.name for member in reader.members()] == list(FILES)[3:]


def test_a_cut_takes_the_place_of_what_was_known_of_it(tmp_path: Path) -> None:
    store = IndexStore(tmp_path)
    store.save_cut(ARCHIVE, begin_cut(CONTENT, 2))
    store.save_cut(ARCHIVE, begin_cut(CONTENT, 5))
    assert len(names_in(tmp_path)) == 1
    found = store.find_cut(ARCHIVE, 0)
    assert found is not None
    assert len(found.rows) == 5


def test_rows_that_share_a_point_are_kept_as_small_when_they_are_written_anew(tmp_path: Path) -> None:
    identity = identity_of(ARCHIVE)
    assert identity is not None
    whole = read_cuts(CONTENT, (0,))[0]
    content = encode_cut(identity, whole)
    assert encode_cut(identity, decode_cut(content, identity, 0, "a cut")) == content


def test_cuts_of_an_archive_are_dropped_and_no_others(tmp_path: Path) -> None:
    store = IndexStore(tmp_path)
    store.save_cut(ARCHIVE, CUTS[0])
    store.save_cut(ARCHIVE, CUTS[1])
    store.save_cut(OTHER, LearnedCut(first_byte=0, report=None, rows=[]))
    store.save(index_of(CONTENT))
    store.drop_cuts(ARCHIVE)
    assert store.cuts(ARCHIVE) == []
    assert len(names_in(tmp_path)) == 2
    assert store.find(ARCHIVE) is not None


def test_a_cut_of_no_rows_can_be_kept(tmp_path: Path) -> None:
    store = IndexStore(tmp_path)
    assert store.save_cut(ARCHIVE, LearnedCut(first_byte=5, report=None, rows=[]))
    found = store.find_cut(ARCHIVE, 5)
    assert found is not None
    assert found.rows == []


def test_an_archive_without_sha256_has_no_cuts(tmp_path: Path) -> None:
    store = IndexStore(tmp_path)
    archive = archive_of(CONTENT, with_sha256=False)
    assert not store.save_cut(archive, CUTS[0])
    assert store.find_cut(archive, 0) is None
    assert store.cuts(archive) == []
    store.drop_cuts(archive)


def _forged(cut: LearnedCut, change: dict[str, object]) -> bytes:
    """Return a cut's file with a well-signed lie in its JSON."""
    identity = identity_of(ARCHIVE)
    assert identity is not None
    content = encode_cut(identity, cut)[:-32]
    magic, version, zero, text_bytes, rows_bytes = struct.unpack_from("<8sHHIQ", content)
    text = json.dumps(json.loads(content[24 : 24 + text_bytes]) | change).encode()
    forged = struct.pack("<8sHHIQ", magic, version, zero, len(text), rows_bytes) + text + content[24 + text_bytes :]
    return forged + hashlib.sha256(forged).digest()


@pytest.mark.parametrize(
    "change",
    [
        {"first_byte": 7},
        {"first_byte": None},
        {"report": {"first_byte": 0}},
        {"report": 3},
        {"bookmark": []},
        {"bookmark": {"header_offset": -1}},
    ],
)
def test_a_lie_however_well_signed_is_refused(change: dict[str, object]) -> None:
    identity = identity_of(ARCHIVE)
    assert identity is not None
    with pytest.raises(ArchiveError):
        decode_cut(_forged(CUTS[0], change), identity, 0, "a cut")


@pytest.mark.parametrize("damage", ["torn", "flipped", "empty", "other archive", "other cut", "version", "longer"])
def test_a_damaged_or_foreign_cut_is_deleted_with_a_notice_and_counts_as_missing(tmp_path: Path, damage: str) -> None:
    store = IndexStore(tmp_path)
    store.save_cut(ARCHIVE, CUTS[1])
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "torn":
        del content[-7:]
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
    elif damage == "empty":
        content.clear()
    elif damage == "version":
        content[8] = 9
    elif damage == "longer":
        content += b"more"
    else:
        other, cut = (
            (OTHER, LearnedCut(first_byte=0, report=None, rows=[])) if "archive" in damage else (ARCHIVE, CUTS[0])
        )
        identity = identity_of(other)
        assert identity is not None
        content[:] = encode_cut(identity, cut)
    path.write_bytes(content)
    told = Told()
    store = IndexStore(tmp_path, telemetry=told.telemetry)
    assert store.find_cut(ARCHIVE, FIRST_BYTES[1]) is None
    assert names_in(tmp_path) == set()
    assert len(told.messages) == 1
    assert str(path) in told.messages[0]


def test_cuts_give_way_to_the_index_that_replaces_them(tmp_path: Path) -> None:
    account = account_of(room_for(3))
    store = IndexStore(tmp_path, account)
    store.open([ARCHIVE])
    for cut in CUTS:
        assert store.save_cut(ARCHIVE, cut)
    assert account.used_bytes == room_for(3)
    assert store.save(index_of(CONTENT))
    assert store.find(ARCHIVE) is not None
    assert account.used_bytes == room_for(3)
    store.drop_cuts(ARCHIVE)
    assert account.used_bytes == room_for(1)


def test_a_cut_never_takes_the_place_of_an_index_of_this_run(tmp_path: Path) -> None:
    told = Told()
    account = account_of(room_for(1))
    store = IndexStore(tmp_path, account, telemetry=told.telemetry)
    store.open([ARCHIVE, OTHER])
    assert store.save(index_of(CONTENT))
    assert not store.save_cut(OTHER, LearnedCut(first_byte=0, report=None, rows=[]))
    assert len(told.messages) == 1
    assert store.find(ARCHIVE) is not None


def test_cuts_go_before_indexes_where_the_room_does_not_hold_what_is_there(tmp_path: Path) -> None:
    store = IndexStore(tmp_path)
    store.save(index_of(CONTENT))
    store.save_cut(ARCHIVE, CUTS[0])
    account = account_of(room_for(1))
    store = IndexStore(tmp_path, account)
    store.open([ARCHIVE])
    assert store.find(ARCHIVE) is not None
    assert store.cuts(ARCHIVE) == []
