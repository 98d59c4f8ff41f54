"""Object ids as git computes them, so that a folder has the same ids on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def blob_oid(content: bytes) -> str:
    """Return the id of a file with this content (hex SHA-1)."""
    return _oid("blob", content)


def lfs_pointer(sha256: str, size_bytes: int) -> bytes:
    """Return the text that git keeps in place of a file in LFS."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size_bytes}\n".encode()


def tree_oids(blobs: Mapping[str, str]) -> dict[str, str]:
    """Return the ids of all folders, the root under the empty path.

    Args:
        blobs: Id of each file by its path in the repository.
    """
    children: dict[str, dict[str, str | None]] = {"": {}}
    for path, oid in blobs.items():
        folder, _, name = path.rpartition("/")
        children.setdefault(folder, {})[name] = oid
        while folder:
            parent, _, name = folder.rpartition("/")
            children.setdefault(parent, {})[name] = None
            folder = parent
    oids: dict[str, str] = {}
    # The longest paths first, so that a folder's own folders are known.
    for folder in sorted(children, key=lambda path: path.count("/") + bool(path), reverse=True):
        oids[folder] = _tree_oid(folder, children[folder], oids)
    return oids


def commit_id(root_tree: str) -> str:
    """Return the 40 hex digits that stand for the commit: a function of paths and contents alone."""
    return hashlib.sha1(b"reelstream commit of tree " + root_tree.encode(), usedforsecurity=False).hexdigest()


def _tree_oid(folder: str, children: Mapping[str, str | None], folder_oids: Mapping[str, str]) -> str:
    records: list[tuple[bytes, bytes]] = []
    for name, file_oid in children.items():
        encoded = name.encode()
        if file_oid is None:
            oid = folder_oids[f"{folder}/{name}" if folder else name]
            # Git sorts a folder as if its name ended in a slash.
            records.append((encoded + b"/", b"40000 " + encoded + b"\0" + bytes.fromhex(oid)))
        else:
            records.append((encoded, b"100644 " + encoded + b"\0" + bytes.fromhex(file_oid)))
    return _oid("tree", b"".join(record for _, record in sorted(records)))


def _oid(kind: str, content: bytes) -> str:
    digest = hashlib.sha1(f"{kind} {len(content)}\0".encode(), usedforsecurity=False)
    digest.update(content)
    return digest.hexdigest()
