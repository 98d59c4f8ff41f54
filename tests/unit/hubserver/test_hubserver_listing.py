from __future__ import annotations

from typing import Any

import pytest

from reelstream.hubserver.git_objects import blob_oid, lfs_pointer, tree_oids
from reelstream.hubserver.listing import dataset_info, paths_info, tree_page
from reelstream.hubserver.repositories import Gate, HubFile, Snapshot

SHA256 = "ab" * 32


def make_file(path: str) -> HubFile:
    large = path.endswith(".gz")
    return HubFile(
        path=path,
        file=f"/{path}",
        size_bytes=3,
        mtime_ns=0,
        sha256=SHA256,
        oid=blob_oid(path.encode()),
        pointer_size_bytes=len(lfs_pointer(SHA256, 3)) if large else None,
    )


def make_snapshot(*paths: str, gate: Gate | None = None) -> Snapshot:
    files = {path: make_file(path) for path in sorted(paths)}
    return Snapshot(
        repo_id="org/name",
        commit="c" * 40,
        files=files,
        folders=tree_oids({path: file.oid for path, file in files.items()}),
        left_out=(),
        modified_s=0.0,
        gate=gate,
    )


SNAPSHOT = make_snapshot("README.md", "a/b/1.json", "a/x.tar.gz", "a.json", "é/2.json")


def list_tree(
    snapshot: Snapshot, folder: str, *, recursive: bool, expand: bool = False, limit: int | None = None
) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = tree_page(snapshot, folder, recursive=recursive, expand=expand, cursor=cursor, limit=limit)
        assert page is not None
        entries += page.entries
        if page.cursor is None:
            return entries
        cursor = page.cursor


@pytest.mark.parametrize("limit", [None, 1, 2, 3, 100])
def test_pages_together_are_the_whole_tree(limit: int | None) -> None:
    entries = list_tree(SNAPSHOT, "", recursive=True, limit=limit)
    assert [(entry["type"], entry["path"]) for entry in entries] == [
        ("file", "README.md"),
        ("directory", "a"),
        ("file", "a.json"),
        ("directory", "a/b"),
        ("file", "a/b/1.json"),
        ("file", "a/x.tar.gz"),
        ("directory", "é"),
        ("file", "é/2.json"),
    ]


def test_a_folder_lists_its_own_entries_unless_told() -> None:
    assert [entry["path"] for entry in list_tree(SNAPSHOT, "a", recursive=False)] == ["a/b", "a/x.tar.gz"]
    assert [entry["path"] for entry in list_tree(SNAPSHOT, "a", recursive=True)] == ["a/b", "a/b/1.json", "a/x.tar.gz"]


@pytest.mark.parametrize("folder", ["none", "a.json", "..", "/a"])
def test_what_is_no_folder_has_no_tree(folder: str) -> None:
    assert tree_page(SNAPSHOT, folder, recursive=True, expand=False, cursor=None, limit=None) is None


def test_pages_are_as_long_as_those_of_the_hub() -> None:
    snapshot = make_snapshot(*(f"{number:04}.json" for number in range(1001)))
    sizes = []
    for expand in (False, True):
        page = tree_page(snapshot, "", recursive=False, expand=expand, cursor=None, limit=None)
        assert page is not None
        sizes.append(len(page.entries))
    assert sizes == [1000, 50]


def test_a_cursor_that_is_none_of_ours_is_refused() -> None:
    for cursor in ("é", "a", "_w=="):
        with pytest.raises(ValueError, match="cursor"):
            tree_page(SNAPSHOT, "", recursive=True, expand=False, cursor=cursor, limit=None)


def test_paths_that_do_not_exist_are_left_out() -> None:
    entries = paths_info(SNAPSHOT, ["a/x.tar.gz", "none", "", "a/b/", "a/x.tar.gz"], expand=False)
    assert [entry["path"] for entry in entries] == ["a/x.tar.gz", "a/b"]
    assert entries[0]["lfs"] == {"oid": SHA256, "size": 3, "pointerSize": 126}


def test_expanded_entries_name_their_commit() -> None:
    [entry] = paths_info(SNAPSHOT, ["a.json"], expand=True)
    assert entry["lastCommit"]["id"] == SNAPSHOT.commit
    assert "lfs" not in entry


def test_siblings_name_sizes_on_request_only() -> None:
    plain = dataset_info(SNAPSHOT, blobs=False, private=False)
    assert plain["siblings"][0] == {"rfilename": "README.md"}
    detailed = dataset_info(SNAPSHOT, blobs=True, private=True)
    assert detailed["private"]
    assert detailed["siblings"][0]["size"] == 3


def test_only_the_properties_that_are_asked_for_are_named() -> None:
    assert set(dataset_info(SNAPSHOT, blobs=False, private=False, expand=["gated"])) == {"_id", "id", "gated"}


@pytest.mark.parametrize(("gate", "expected"), [(None, False), (Gate(kind="manual", tokens=frozenset()), "manual")])
def test_a_gate_is_named(gate: Gate | None, expected: object) -> None:
    assert dataset_info(make_snapshot("a", gate=gate), blobs=False, private=False)["gated"] == expected
