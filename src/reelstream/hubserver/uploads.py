"""What clients bring, on disk: contents that wait for a commit, and commits that change a repository's folder.

```
ROOT/
├── .uploads/            contents by SHA-256, until a commit takes them; what was left is deleted at the next start
├── .models/ORG/NAME/    models
└── ORG/NAME/            datasets
```

No path leads out of its repository's folder, neither by its name nor over a symbolic link.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from reelstream.hubserver.repositories import Snapshot
from reelstream.hubserver.routes import MODELS_FOLDER

UPLOADS_FOLDER = ".uploads"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


class RefusedError(Exception):
    """A change that is not made, with the reason in plain ASCII; never leaves this package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One line of a commit, checked."""

    path: str
    content: bytes | None = None
    """The file's new content."""
    sha256: str | None = None
    """The new content's digest, where it was uploaded before."""
    size_bytes: int = 0
    """Of the content that was uploaded before."""

    @property
    def deletes(self) -> bool:
        """Whether the file, or the folder with all in it, is to go."""
        return self.content is None and self.sha256 is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A change of a repository."""

    operations: tuple[Operation, ...]
    parent: str | None
    """The commit that it was made for; None does not ask."""


def parse_commit(document: bytes) -> Commit:
    """Return the commit in lines of JSON, as the Hub takes it.

    Raises:
        RefusedError: Where it is none, or names what is no path in a repository.
    """
    operations: list[Operation] = []
    parent: str | None = None
    for line in document.splitlines():
        try:
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "header":
                parent = value.get("parentCommit")
            else:
                operations.append(_operation(key, value))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RefusedError("The commit is not in the form that is known") from error
    return Commit(operations=tuple(operations), parent=parent)


def _operation(key: str, value: dict[str, Any]) -> Operation:
    path = checked_path(value["path"].rstrip("/") if key == "deletedFolder" else value["path"])
    match key:
        case "file" if value.get("encoding", "utf-8") == "base64":
            try:
                return Operation(path=path, content=base64.b64decode(value["content"], validate=True))
            except binascii.Error as error:
                raise ValueError("not base64") from error
        case "file":
            return Operation(path=path, content=value["content"].encode())
        case "lfsFile" if _SHA256.fullmatch(value["oid"]):
            return Operation(path=path, sha256=value["oid"], size_bytes=int(value["size"]))
        case "deletedFile" | "deletedFolder":
            return Operation(path=path)
    raise ValueError(f"an operation {key!r} is not known")


def checked_path(path: object) -> str:
    """Return a path in a repository.

    Raises:
        RefusedError: Where it is none, or leads out.
    """
    parts = path.split("/") if isinstance(path, str) else []
    bad = {"", ".", "..", ".git"}
    if not isinstance(path, str) or not parts or bad & {*parts} or "\0" in path or path.startswith(".cache/"):
        raise RefusedError("A path is none of a repository")
    if any(len(part.encode("utf-8", "surrogatepass")) > 255 for part in parts) or len(path) > 1024:
        raise RefusedError("A path is too long")
    return path


def checked_repo_id(organization: object, name: object, kind: object) -> str:
    """Return the id of a repository that may be made.

    Raises:
        RefusedError: Where it has no owner, a name of other letters, or another kind than `model` and `dataset`.
    """
    for part in (organization, name):
        if not isinstance(part, str) or not _NAME.fullmatch(part) or ".." in part or part.endswith((".git", ".gated")):
            raise RefusedError("The name of a repository is owner/name, of letters, digits, '-', '_' and '.'")
    if kind not in {None, "model", "dataset"}:
        raise RefusedError("Only models and datasets are served here")
    return f"{organization}/{name}" if kind == "dataset" else f"{MODELS_FOLDER}/{organization}/{name}"


class Reception:
    """One content on its way in. It is opened by the first `write` or by `finish`."""

    def __init__(self, folder: Path, sha256: str) -> None:
        self._target = folder / sha256
        self._partial = folder / f"{sha256}.{secrets.token_hex(4)}.part"
        self._sha256 = hashlib.sha256()
        self._file: IO[bytes] | None = None

    def write(self, block: bytes) -> None:
        """Take the next bytes.

        Raises:
            OSError: Where the disk refuses.
        """
        if self._file is None:
            self._partial.parent.mkdir(exist_ok=True)
            self._file = self._partial.open("xb")
        self._sha256.update(block)
        self._file.write(block)

    def finish(self) -> None:
        """Let the content wait for its commit.

        Raises:
            RefusedError: Where what was written has another digest.
            OSError: Where the disk refuses.
        """
        self.write(b"")
        if self._sha256.hexdigest() != self._target.name:
            raise RefusedError("What came has another SHA-256")
        assert self._file is not None, "written to above"
        self._file.close()
        self._partial.replace(self._target)

    def close(self) -> None:
        """Forget what is not finished."""
        if self._file is not None:
            self._file.close()
            self._partial.unlink(missing_ok=True)


class UploadShelf:
    """Takes contents and carries out commits. Blocks while it writes; thread-safe where repositories differ.

    Args:
        root: The served folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._waiting = self._root / UPLOADS_FOLDER

    def sweep(self) -> None:
        """Delete what no commit took."""
        shutil.rmtree(self._waiting, ignore_errors=True)

    def create(self, repo_id: str) -> bool:
        """Make a repository's folder; return False where it is there already.

        Raises:
            RefusedError: Where a link on the way leads elsewhere, or the disk refuses.
        """
        folder = self._root / repo_id
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._refuse_links(folder.parent, self._root)
            folder.mkdir()
        except FileExistsError:
            return False
        except OSError as error:
            raise RefusedError("The disk refuses") from error
        return True

    def has(self, sha256: str, snapshot: Snapshot) -> bool:
        """Return whether a content is here already: waiting, or in that repository."""
        return (self._waiting / sha256).is_file() or _holder(sha256, snapshot) is not None

    def receive(self, sha256: str) -> Reception:
        """Return where a content with this digest is written to; close it in the end."""
        return Reception(self._waiting, sha256)

    def apply(self, repo_id: str, commit: Commit, snapshot: Snapshot) -> None:
        """Carry out a commit: all of it is written beside first, then moved into place.

        Raises:
            RefusedError: Where a content is missing, a path leads elsewhere, or the disk refuses; in the first two
                cases nothing has changed.
        """
        folder = self._root / repo_id
        staged = self._waiting / f"commit-{secrets.token_hex(8)}"
        try:
            staged.mkdir(parents=True)
            changes = [each for each in commit.operations if not each.deletes]
            files = [self._stage(staged / f"{number}", each, snapshot) for number, each in enumerate(changes)]
            for operation in commit.operations:
                self._refuse_links((folder / operation.path).parent, folder)
            for operation in commit.operations:
                if operation.deletes:
                    _delete(folder, operation.path)
            for operation, file in zip(changes, files, strict=True):
                target = folder / operation.path
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)
        except OSError as error:
            raise RefusedError(f"The disk refuses: {error.strerror or 'no reason given'}") from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        for digest in {each.sha256 for each in changes if each.sha256 is not None}:
            (self._waiting / digest).unlink(missing_ok=True)

    def _stage(self, target: Path, operation: Operation, snapshot: Snapshot) -> Path:
        if operation.content is not None:
            target.write_bytes(operation.content)
            return target
        assert operation.sha256 is not None, "an operation that deletes is not staged"
        waiting = self._waiting / operation.sha256
        source = waiting if waiting.is_file() else _holder(operation.sha256, snapshot)
        if source is None or source.stat().st_size != operation.size_bytes:
            raise RefusedError(f"The content of a file was not uploaded: {operation.sha256}")
        if source is waiting:
            # The same content may go to several paths.
            os.link(source, target)
        else:
            shutil.copyfile(source, target)
        return target

    @staticmethod
    def _refuse_links(folder: Path, top: Path) -> None:
        """Refuse a folder that a symbolic link moves out of `top`."""
        if not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(top)):
            raise RefusedError("A path leads out of the repository")


def _holder(sha256: str, snapshot: Snapshot) -> Path | None:
    """Return a file of a repository that has this content."""
    return next((Path(file.file) for file in snapshot.files.values() if file.sha256 == sha256), None)


def _delete(folder: Path, path: str) -> None:
    target = folder / path
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    for parent in _parents_below(target, folder):
        # As in git, a folder is there as long as a file is in it.
        with contextlib.suppress(OSError):
            parent.rmdir()


def _parents_below(target: Path, folder: Path) -> Iterable[Path]:
    return (parent for parent in target.parents if parent != folder and parent.is_relative_to(folder))
