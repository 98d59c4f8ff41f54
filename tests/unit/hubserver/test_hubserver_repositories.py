from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from reelstream.cancel import Cancelled
from reelstream.clock import SystemClock
from reelstream.hubserver.digests import MEMORY_NAME
from reelstream.hubserver.repositories import RepositoryShelf, Snapshot


def write(root: Path, **contents: str) -> Path:
    for path, text in contents.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "served", **{"org/name/a.json": "[]", "org/name/sub/vidéo .tar.gz": "x" * 10})


@pytest.fixture
def shelf(root: Path) -> Iterator[RepositoryShelf]:
    with RepositoryShelf(root, clock=SystemClock()) as opened:
        yield opened


def read(shelf: RepositoryShelf, repo_id: str = "org/name") -> Snapshot:
    snapshot = shelf.snapshot(repo_id)
    assert snapshot is not None
    return snapshot


def test_repositories_are_folders_two_levels_down(shelf: RepositoryShelf, root: Path) -> None:
    write(root, **{"org/other/x": "", "org/file": "", ".hidden/name/x": "", "org/.hidden/x": ""})
    assert shelf.repo_ids() == ["org/name", "org/other"]


@pytest.mark.parametrize("repo_id", ["org/none", "org", "org/", "../served/org", "org/..", "org/.", "a/b/c", "org/\0"])
def test_what_is_no_repository_is_none(shelf: RepositoryShelf, repo_id: str) -> None:
    assert shelf.snapshot(repo_id) is None


def test_names_of_any_kind_are_listed(shelf: RepositoryShelf, root: Path) -> None:
    names = [".dot", "__x", "a b", "日本/語.json", "q?#%25&.json", "new\nline", "back\\slash"]
    write(root / "org/name", **dict.fromkeys(names, "x"))
    assert set(names) < set(read(shelf).files)


def test_what_tools_keep_for_themselves_is_no_part(shelf: RepositoryShelf, root: Path) -> None:
    before = read(shelf).commit
    write(root / "org/name", **{".git/config": "", ".cache/huggingface/x": ""})
    assert read(shelf).commit == before


def test_links_inside_are_followed_and_links_out_are_left_out(shelf: RepositoryShelf, root: Path) -> None:
    secret = write(root.parent, **{"secret/key.json": "secret"})
    repository = root / "org/name"
    (repository / "inside.json").symlink_to(repository / "a.json")
    (repository / "out.json").symlink_to(secret / "secret/key.json")
    (repository / "out").symlink_to(secret / "secret")
    (repository / "circle").symlink_to(repository)
    (repository / "nowhere").symlink_to("missing")
    (root / "org/outside").symlink_to(secret / "secret")
    snapshot = read(shelf)
    assert set(snapshot.files) == {"a.json", "inside.json", "sub/vidéo .tar.gz"}
    assert len(snapshot.left_out) == 4
    assert shelf.snapshot("org/outside") is None
    assert "org/outside" not in shelf.repo_ids()


def test_what_is_neither_file_nor_folder_is_left_out(shelf: RepositoryShelf, root: Path) -> None:
    os.mkfifo(root / "org/name/pipe")
    assert read(shelf).left_out == ("'pipe' is neither a file nor a folder",)


def test_a_name_that_is_not_utf8_is_left_out(shelf: RepositoryShelf, root: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(root / "org/name") + b"/\xff.json")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert len(read(shelf).left_out) == 1


def test_the_same_files_elsewhere_are_the_same_commit(shelf: RepositoryShelf, root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(root / "org/name", elsewhere / "me/copy", copy_function=shutil.copyfile)
    with RepositoryShelf(elsewhere, clock=SystemClock()) as other:
        assert read(other, "me/copy").commit == read(shelf).commit


def test_the_commit_is_pinned(shelf: RepositoryShelf) -> None:
    assert read(shelf).commit == "2ac495067eca4cd6da07939cabf482c0fba4d92e"


def test_a_change_makes_a_new_commit_and_undoing_it_the_old_one(shelf: RepositoryShelf, root: Path) -> None:
    first = read(shelf).commit
    write(root, **{"org/name/a.json": "[1]"})
    second = read(shelf).commit
    write(root, **{"org/name/a.json": "[]"})
    assert read(shelf).commit == first != second


def test_a_renamed_file_makes_a_new_commit(shelf: RepositoryShelf, root: Path) -> None:
    first = read(shelf).commit
    (root / "org/name/a.json").rename(root / "org/name/b.json")
    assert read(shelf).commit != first


def test_an_empty_folder_is_an_empty_repository(shelf: RepositoryShelf, root: Path) -> None:
    (root / "org/empty").mkdir()
    assert read(shelf, "org/empty").files == {}


def test_digests_are_remembered_outside_of_the_repository(shelf: RepositoryShelf, root: Path) -> None:
    snapshot = read(shelf)
    memory = json.loads((root / MEMORY_NAME).read_text())
    assert memory["digests"]["org/name/a.json"][2] == snapshot.files["a.json"].sha256
    # A digest that is remembered is not computed again: a false one shows that.
    memory["digests"]["org/name/a.json"][2] = "0" * 64
    (root / MEMORY_NAME).write_text(json.dumps(memory))
    with RepositoryShelf(root, clock=SystemClock()) as later:
        assert read(later).files["a.json"].sha256 == "0" * 64


@pytest.mark.parametrize(
    "text", ["", "[]", '{"version": 1}', '{"version": 2, "digests": {}}', '{"version": 1, "digests": {"a": [1]}}']
)
def test_a_memory_that_cannot_be_read_counts_as_none(root: Path, text: str) -> None:
    (root / MEMORY_NAME).write_text(text)
    with RepositoryShelf(root, clock=SystemClock()) as shelf:
        assert set(read(shelf).files) == {"a.json", "sub/vidéo .tar.gz"}


def test_a_folder_that_cannot_be_written_to_is_served(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with RepositoryShelf(root, clock=SystemClock()) as shelf:
        assert read(shelf).commit
    assert [entry.name for entry in root.iterdir()] == ["org"]


def test_digests_of_deleted_files_are_forgotten(shelf: RepositoryShelf, root: Path) -> None:
    read(shelf)
    (root / "org/name/a.json").unlink()
    read(shelf)
    assert list(json.loads((root / MEMORY_NAME).read_text())["digests"]) == ["org/name/sub/vidéo .tar.gz"]


def test_a_file_that_has_changed_is_not_opened(shelf: RepositoryShelf, root: Path) -> None:
    file = read(shelf).files["a.json"]
    descriptor = shelf.open(file)
    assert descriptor is not None
    os.close(descriptor)
    (root / "org/name/a.json").write_text("[1, 2]")
    assert shelf.open(file) is None


def test_a_file_whose_folder_became_a_link_is_not_opened(shelf: RepositoryShelf, root: Path) -> None:
    file = read(shelf).files["sub/vidéo .tar.gz"]
    (root / "org/name/sub").rename(root / "elsewhere")
    (root / "org/name/sub").symlink_to(root / "elsewhere")
    assert shelf.open(file) is None


@pytest.mark.parametrize(
    ("text", "kind", "tokens"),
    [("", "auto", set()), ("manual\n", "manual", set()), ("auto\nhf_a\nhf_b\n", "auto", {"hf_a", "hf_b"})],
)
def test_a_gate_is_a_file_beside_the_repository(
    shelf: RepositoryShelf, root: Path, text: str, kind: str, tokens: set[str]
) -> None:
    assert read(shelf).gate is None
    write(root, **{"org/name.gated": text})
    gate = read(shelf).gate
    assert gate is not None
    assert (gate.kind, set(gate.tokens)) == (kind, tokens)
    assert shelf.repo_ids() == ["org/name"]


def test_a_cancelled_shelf_reads_no_more(shelf: RepositoryShelf) -> None:
    shelf.cancel()
    with pytest.raises(Cancelled):
        shelf.snapshot("org/name")
