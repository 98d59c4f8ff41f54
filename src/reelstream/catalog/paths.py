"""One form for the paths that annotations and archives write in several."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

_DRIVE_OR_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:(?:/|$)")


def normalise_path(path: str) -> str:
    r"""Return a relative path with single slashes and no `.`: `./a//b.mp4` and `a\b.mp4` give `a/b.mp4`.

    Backslashes count as separators, so that `..\x` cannot hide on one system what it means on another.

    Raises:
        ValueError: The path is empty, absolute, an address, holds a control character, or climbs with `..`; the
            message says which.
    """
    slashed = path.replace("\\", "/")
    if slashed.startswith("/") or _DRIVE_OR_SCHEME.match(slashed):
        raise ValueError("is absolute")
    if not slashed.isprintable() and any(ord(character) < 32 or ord(character) == 127 for character in slashed):
        raise ValueError("holds a control character")
    parts = [part for part in slashed.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise ValueError("points outside with '..'")
    if not parts:
        raise ValueError("is empty")
    return "/".join(parts)


def path_hash(path: str) -> int:
    """Return 64 bits of BLAKE2b of a normalised path, unsigned: the key by which the catalog looks clips up."""
    # Names in archives need not be Unicode; such a name equals none of the catalog's, and that is all it must do.
    data = path.encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def folder_suffixes(path: str) -> Iterator[str]:
    """Yield the proper suffixes of a normalised path that keep a folder, longest first: of `a/b/c`, only `b/c`.

    The bare file name is none of them: the same name stands for different videos in different sources.
    """
    start = path.find("/") + 1
    while start and "/" in path[start:]:
        yield path[start:]
        start = path.find("/", start) + 1
