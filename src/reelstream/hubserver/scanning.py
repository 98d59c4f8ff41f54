"""Which files a repository's folder holds: names and states only, nothing is opened."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, order=True)
class ScannedFile:
    """One file as the folder lists it."""

    path: str
    """Path in the repository, with slashes."""
    file: str
    """Where its bytes lie: absolute, all symbolic links followed."""
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What a folder holds."""

    files: tuple[ScannedFile, ...]
    """Sorted by path."""
    left_out: tuple[str, ...]
    """One sentence for each entry that is not served."""


def scan_folder(folder: Path, root: Path) -> Scan:
    """List the files of the repository in `folder`.

    Symbolic links are followed as long as they stay below `root`. What the tools that fill such a folder keep for
    themselves (`.git`, `.cache/huggingface`) is no part of the repository.

    Args:
        folder: The repository's folder.
        root: The served folder, all links followed.

    Raises:
        OSError: Where the folder itself cannot be listed.
    """
    files: list[ScannedFile] = []
    left_out: list[str] = []
    start = os.path.realpath(folder)
    # Each with its path in the repository and the real folders on the way, which tell a circle of links.
    pending: list[tuple[str, str, frozenset[str]]] = [(start, "", frozenset({start}))]
    while pending:
        current, prefix, above = pending.pop()
        try:
            entries = list(os.scandir(current))
        except OSError as error:
            if not prefix:
                raise
            left_out.append(f"{prefix!r} cannot be listed: {error.strerror}")
            continue
        for entry in entries:
            path = prefix + entry.name
            if path in {".git", ".cache/huggingface"}:
                continue
            try:
                real, state = _follow(entry, root)
            except _LeftOut as reason:
                left_out.append(f"{path!r} {reason}")
                continue
            if stat.S_ISREG(state.st_mode):
                files.append(ScannedFile(path, real, state.st_size, state.st_mtime_ns))
            elif real in above:
                left_out.append(f"{path!r} links to a folder above it")
            else:
                pending.append((real, f"{path}/", above | {real}))
    return Scan(tuple(sorted(files)), tuple(sorted(left_out)))


class _LeftOut(Exception):  # noqa: N818 - a reason, not an error
    """Why an entry is not served; never leaves this module."""


def _follow(entry: os.DirEntry[str], root: Path) -> tuple[str, os.stat_result]:
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        raise _LeftOut("has a name that is not UTF-8") from None
    real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
    if not is_below(real, root):
        raise _LeftOut("links to a place outside of the served folder")
    try:
        state = entry.stat()
    except OSError as error:
        raise _LeftOut(f"cannot be read: {error.strerror}") from None
    if not (stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode)):
        raise _LeftOut("is neither a file nor a folder")
    return real, state


def is_below(real: str, root: Path) -> bool:
    """Return whether a real path lies in `root`."""
    return Path(real).is_relative_to(root)
