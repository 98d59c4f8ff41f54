"""The Hub's JSON about a repository, from a snapshot: values in, values out."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from reelstream.hubserver.repositories import HubFile, Snapshot
from reelstream.hubserver.routes import MODELS_FOLDER

Json = dict[str, Any]

PAGE_ENTRIES = 1000
"""Entries of a tree in one answer, as on the Hub."""

EXPANDED_PAGE_ENTRIES = 50


class TreePage(NamedTuple):
    """Some entries of a tree."""

    entries: list[Json]
    cursor: str | None
    """Where the next page begins; None on the last one."""


def dataset_info(snapshot: Snapshot, *, blobs: bool, private: bool, expand: Collection[str] = ()) -> Json:
    """Return what `GET /api/datasets/<repo>` says, and likewise of a model.

    Args:
        snapshot: The repository.
        blobs: Whether each sibling names its size and digests (`files_metadata`).
        private: Whether the hub asks for a token.
        expand: The only properties to name, beside `id`; all where empty.
    """
    when = _when(snapshot.modified_s)
    repo_id = snapshot.repo_id.removeprefix(f"{MODELS_FOLDER}/")
    used_bytes = sum(file.size_bytes for file in snapshot.files.values())
    info: Json = {
        "_id": snapshot.commit[:24],
        "id": repo_id,
        "author": repo_id.partition("/")[0],
        "sha": snapshot.commit,
        "lastModified": when,
        "createdAt": when,
        "private": private,
        "gated": snapshot.gate.kind if snapshot.gate is not None else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [_sibling(file, blobs=blobs) for file in snapshot.files.values()],
        "usedStorage": used_bytes,
    }
    return {name: value for name, value in info.items() if not expand or name in {"_id", "id", *expand}}


def refs(snapshot: Snapshot) -> Json:
    """Return what `GET /api/datasets/<repo>/refs` says: one branch."""
    main = {"name": "main", "ref": "refs/heads/main", "targetCommit": snapshot.commit}
    return {"branches": [main], "converts": [], "tags": []}


def tree_page(
    snapshot: Snapshot, folder: str, *, recursive: bool, expand: bool, cursor: str | None, limit: int | None
) -> TreePage | None:
    """Return one page of what a folder holds, sorted by path; None where there is no such folder.

    Raises:
        ValueError: Where the cursor is none of ours.
    """
    if folder not in snapshot.folders:
        return None
    after = "" if cursor is None else _decode_cursor(cursor)
    largest = EXPANDED_PAGE_ENTRIES if expand else PAGE_ENTRIES
    size = largest if limit is None else max(1, min(limit, largest))
    prefix = f"{folder}/" if folder else ""
    paths = sorted(
        path
        for path in (*snapshot.files, *snapshot.folders)
        if path > after and path.startswith(prefix) and path and (recursive or "/" not in path[len(prefix) :])
    )
    entries = [_entry(snapshot, path, expand=expand) for path in paths[:size]]
    return TreePage(entries, _encode_cursor(paths[size - 1]) if len(paths) > size else None)


def paths_info(snapshot: Snapshot, paths: Iterable[str], *, expand: bool) -> list[Json]:
    """Return what is known of each path that exists; the others are left out, as on the Hub."""
    wanted = dict.fromkeys(path.strip("/") for path in paths)
    return [
        _entry(snapshot, path, expand=expand)
        for path in wanted
        if path and (path in snapshot.files or path in snapshot.folders)
    ]


def _entry(snapshot: Snapshot, path: str, *, expand: bool) -> Json:
    file = snapshot.files.get(path)
    if file is None:
        entry: Json = {"type": "directory", "oid": snapshot.folders[path], "size": 0, "path": path}
        modified_s = snapshot.modified_s
    else:
        entry = {"type": "file", "oid": file.oid, "size": file.size_bytes, "path": path}
        modified_s = file.mtime_ns / 1e9
        if file.large:
            entry["lfs"] = {"oid": file.sha256, "size": file.size_bytes, "pointerSize": file.pointer_size_bytes}
    if expand:
        entry["lastCommit"] = {"id": snapshot.commit, "title": "Served from a folder", "date": _when(modified_s)}
    return entry


def _sibling(file: HubFile, *, blobs: bool) -> Json:
    sibling: Json = {"rfilename": file.path}
    if blobs:
        sibling |= {"blobId": file.oid, "size": file.size_bytes}
        if file.large:
            sibling["lfs"] = {
                "sha256": file.sha256,
                "size": file.size_bytes,
                "pointerSize": file.pointer_size_bytes,
            }
    return sibling


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _encode_cursor(path: str) -> str:
    return base64.urlsafe_b64encode(path.encode()).decode()


def _decode_cursor(cursor: str) -> str:
    try:
        return base64.urlsafe_b64decode(cursor.encode("ascii")).decode()
    except (binascii.Error, UnicodeError) as error:
        raise ValueError("the cursor is none that this server gave") from error
