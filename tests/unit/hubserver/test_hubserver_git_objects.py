from __future__ import annotations

from reelstream.hubserver.git_objects import blob_oid, commit_id, lfs_pointer, tree_oids


def test_a_blob_has_the_id_that_git_gives_it() -> None:
    assert blob_oid(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert blob_oid(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_folders_have_the_ids_that_git_gives_them() -> None:
    # From `git add . && git write-tree` and `git ls-tree -t -r` on these files; "a.b" sorts before "a/", as in git.
    hello = blob_oid(b"hello\n")
    oids = tree_oids({"a/b/c.txt": hello, "a/é": hello, "a.b": hello, "z": blob_oid(b"")})
    assert oids == {
        "": "1bfee86d61abbc1e532d3d90fb8c18bb829b95e2",
        "a": "157d14779c6ed262eee2521ba25c2b0201aae8a9",
        "a/b": "2bcada35da78a7011b5497fcf851bb11e2353a39",
    }


def test_nothing_is_a_repository_too() -> None:
    assert tree_oids({}) == {"": "4b825dc642cb6eb9a060e54bf8d69288fbee4904"}


def test_a_pointer_is_what_git_lfs_writes() -> None:
    assert lfs_pointer("ab" * 32, 12) == (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 12\n"
    )


def test_the_commit_is_pinned() -> None:
    assert commit_id("4b825dc642cb6eb9a060e54bf8d69288fbee4904") == "c6cac7e829b901a96c7eda92bdf8e9991dd2b335"
