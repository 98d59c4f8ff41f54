from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive_entry_kit import media
from indexes_kit import Shelf, tar_gz
from reelstream.archive import ArchiveIndex, RequestCosts
from reelstream.errors import ArchiveError, ConfigError, DiskError
from reelstream.indexes import IndexStore
from reelstream.indexes.clips import plan_reads, resolve
from reelstream.indexes.fetch import fetch_members, look_through, plan_fetch
from reelstream.indexes.known import NamePattern, known_archives
from reelstream.indexes.learn import learn
from reelstream.indexes.output import OutputFolder


def _files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../up.mp4", "a/../../up.mp4", "..\\up.mp4", "C:\\x.mp4", "", "a\n.mp4"]
)
def test_a_name_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArchiveError, match="it is not written") as caught:
        OutputFolder(tmp_path).path_of(name)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["a/b.mp4", "./a//b.mp4", "a/./b.mp4"])
def test_a_name_is_written_in_one_form(tmp_path: Path, name: str) -> None:
    assert OutputFolder(tmp_path).path_of(name) == tmp_path / "a" / "b.mp4"


def test_a_link_in_the_folder_leads_nowhere(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    folder.mkdir()
    (folder / "a").symlink_to(outside)
    output = OutputFolder(folder, force=True)
    with pytest.raises(ConfigError, match="lies outside"):
        output.write(folder / "a" / "b.mp4", [b"bytes"])
    assert _files_below(outside) == {}


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_bytes(b"mine")
    path = tmp_path / "out" / "b.mp4"
    path.parent.mkdir()
    path.symlink_to(target)
    with pytest.raises(ConfigError):
        OutputFolder(path.parent).write(path, [b"bytes"])
    OutputFolder(path.parent, force=True).write(path, [b"bytes"])
    assert target.read_bytes() == b"mine"
    assert path.read_bytes() == b"bytes"
    assert not path.is_symlink()


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    OutputFolder(tmp_path / "out").write(tmp_path / "out" / "a" / "b.mp4", [b"bytes"])
    assert _files_below(tmp_path / "real") == {"a/b.mp4": b"bytes"}


def test_a_folder_in_the_place_of_a_file_is_refused_even_if_forced(tmp_path: Path) -> None:
    (tmp_path / "b.mp4").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        OutputFolder(tmp_path, force=True).write(tmp_path / "b.mp4", [b"bytes"])


def test_a_file_appears_only_once_it_is_whole(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        assert not path.exists()
        raise KeyboardInterrupt

    path = tmp_path / "a" / "b.mp4"
    with pytest.raises(KeyboardInterrupt):
        OutputFolder(tmp_path).write(path, chunks())
    assert _files_below(tmp_path) == {}


def test_a_name_as_long_as_the_system_takes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 120 + ".mp4")
    OutputFolder(tmp_path).write(path, [b"bytes"])
    assert path.read_bytes() == b"bytes"


def test_a_file_where_a_folder_must_be_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(DiskError) as caught:
        OutputFolder(tmp_path).write(tmp_path / "a" / "b.mp4", [b"bytes"])
    assert "-o" in caught.value.hint


# ---------------------------------------------------------------------- archives made to mislead


def _packed(*entries: tuple[str, bytes | str | None]) -> bytes:
    """Pack a tar.gz: bytes are files, text is what a hard link links to, None a symbolic link outside."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type = tarfile.SYMTYPE if content is None else tarfile.LNKTYPE
                info.linkname = content or "/etc/passwd"
                tar.addfile(info)
    return packed.getvalue()


CLIP = media(77, 300_000)
LINKED = _packed(("a/first.mp4", CLIP), ("a/again.mp4", "a/first.mp4"), ("a/last.mp4", media(78, 200_000)))


def _get(folder: Path, content: bytes, *texts: str) -> dict[str, bytes]:
    shelf, store, output = Shelf({"s/1.tar.gz": content}), IndexStore(folder / "indexes"), OutputFolder(folder / "out")
    learn(shelf.archives, shelf.open, store)
    known = known_archives(shelf.archives, store, shelf.open)
    plan = plan_fetch(resolve([NamePattern(text) for text in texts], known).found, output)
    for error in plan.refused:
        raise error
    reads = plan_reads(plan.wanted, RequestCosts())
    shelf.forget()
    for result in fetch_members(reads, shelf.open, output):
        assert result.error is None
    assert shelf.num_ranges("s/1.tar.gz") == sum(read.size_bytes > 0 for read in reads)
    return _files_below(folder / "out")


def test_a_hard_link_is_served_by_its_target(tmp_path: Path) -> None:
    assert _get(tmp_path, LINKED, "a/again.mp4") == {"a/again.mp4": CLIP}


def test_a_hard_link_and_its_target_are_fetched_once(tmp_path: Path) -> None:
    assert _get(tmp_path, LINKED, "a/again.mp4", "first.mp4") == {"a/again.mp4": CLIP, "a/first.mp4": CLIP}


def test_a_hard_link_that_turns_up_in_an_unknown_archive_is_known_then(tmp_path: Path) -> None:
    shelf, store, output = (
        Shelf({"s/1.tar.gz": LINKED}),
        IndexStore(tmp_path / "indexes"),
        OutputFolder(tmp_path / "out"),
    )
    archive = shelf.archives[0]
    sought = NamePattern("again.mp4")
    assert look_through(archive, [sought], shelf.open(archive), store, output) == [(sought, None)]
    found = resolve([sought], known_archives(shelf.archives, store, shelf.open)).found
    reads = plan_reads(plan_fetch(found, output).wanted, RequestCosts())
    assert [result.error for result in fetch_members(reads, shelf.open, output)] == [None]
    assert _files_below(tmp_path / "out") == {"a/again.mp4": CLIP}


def test_a_hard_link_to_nothing_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"a/again\.mp4 is a hard link"):
        _get(tmp_path, _packed(("a/again.mp4", "a/first.mp4"), ("a/first.mp4", CLIP)), "again.mp4")


def test_a_member_that_leads_outside_is_not_written(tmp_path: Path) -> None:
    content = _packed(("../../up.mp4", CLIP), ("ok.mp4", CLIP))
    with pytest.raises(ArchiveError, match="it is not written"):
        _get(tmp_path, content, "up.mp4")
    assert not (tmp_path / "out").exists()


def test_a_symbolic_link_that_turns_up_is_an_error_that_names_it(tmp_path: Path) -> None:
    shelf, store, output = Shelf({"s/1.tar.gz": _packed(("ok.mp4", CLIP), ("link.mp4", None))}), None, None
    store, output = IndexStore(tmp_path / "indexes"), OutputFolder(tmp_path / "out")
    archive = shelf.archives[0]
    with pytest.raises(ArchiveError, match=r"link\.mp4 cannot be had: it is a symbolic link"):
        look_through(archive, [NamePattern("link.mp4")], shelf.open(archive), store, output)


def test_an_empty_member_is_an_empty_file(tmp_path: Path) -> None:
    assert _get(tmp_path, _packed(("a/empty.mp4", b""), ("b.mp4", CLIP)), "empty.mp4") == {"a/empty.mp4": b""}


def test_two_members_of_one_name_give_the_first(tmp_path: Path) -> None:
    content = _packed(("a.mp4", b"first" * 100), ("./a.mp4", b"second" * 100))
    assert _get(tmp_path, content, "a.mp4") == {"a.mp4": b"first" * 100}


def test_a_member_that_cannot_be_written_stops_no_other(tmp_path: Path) -> None:
    content = _packed(("a/b.mp4", CLIP), ("/abs.mp4", CLIP), ("a\\b.mp4", b"the same when written"), ("c.mp4", b"c"))
    shelf, store = Shelf({"s/1.tar.gz": content}), IndexStore(tmp_path / "indexes")
    learn(shelf.archives, shelf.open, store)
    known = known_archives(shelf.archives, store, shelf.open)
    plan = plan_fetch(resolve([NamePattern("*")], known).found, OutputFolder(tmp_path / "out"))
    assert [each.found.name for each in plan.wanted] == ["a/b.mp4", "c.mp4"]
    assert ["abs.mp4" in error.fact or "as 'a/b.mp4' is" in error.fact for error in plan.refused] == [True, True]


def test_an_index_that_lies_about_a_name_stays_inside(tmp_path: Path) -> None:
    content = tar_gz({"aa/bb.mp4": CLIP})
    shelf, store = Shelf({"s/1.tar.gz": content}), IndexStore(tmp_path / "indexes")
    learn(shelf.archives, shelf.open, store)
    index = store.find(shelf.archives[0])
    assert index is not None
    columns = index.columns
    object.__setattr__(columns, "names", b"../../../x"[: len(columns.names)])
    lying = ArchiveIndex(identity=index.identity, verification=index.verification, complete=True, columns=columns)
    assert lying.name(0).startswith("..")
    known = known_archives(shelf.archives, store, shelf.open)
    plan = plan_fetch(resolve([NamePattern("*")], known).found, OutputFolder(tmp_path / "out"))
    assert len(plan.refused) == 1
    assert not plan.wanted


def test_files_are_made_with_the_users_own_mode(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        OutputFolder(tmp_path).write(tmp_path / "a.mp4", [b"bytes"])
    finally:
        os.umask(mask)
    assert (tmp_path / "a.mp4").stat().st_mode & 0o777 == 0o640
