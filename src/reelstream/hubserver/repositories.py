"""The repositories in the served folder, each as one commit."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from reelstream.cancel import Cancellation
from reelstream.clock import Clock
from reelstream.hubserver.digests import Digest, DigestMemory, compute_digest
from reelstream.hubserver.git_objects import blob_oid, commit_id, lfs_pointer, tree_oids
from reelstream.hubserver.large_files import is_large
from reelstream.hubserver.routes import MODELS_FOLDER
from reelstream.hubserver.scanning import Scan, ScannedFile, is_below, scan_folder
from reelstream.units import count, format_bytes

ALWAYS_SCANNED_FILES = 1000
"""A repository of at most so many files is looked through at each request; that takes some milliseconds."""

SCAN_PAUSE_S = 2.0
"""The shortest time between two looks through a larger one."""

_WORTH_A_LINE_BYTES = 200_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """One file of a commit."""

    path: str
    file: str
    """Where its bytes lie: absolute, no links on the way."""
    size_bytes: int
    mtime_ns: int
    sha256: str
    oid: str
    """Id of git's blob; that of the pointer where the file is large."""
    pointer_size_bytes: int | None
    """Size of the pointer that git keeps; None where the file is not large."""

    @property
    def large(self) -> bool:
        """Whether it is served by the CDN."""
        return self.pointer_size_bytes is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Who may download from a gated repository; everybody may list it."""

    kind: str
    """`auto` or `manual`, as the Hub says."""
    tokens: frozenset[str]
    """Tokens that have been given access."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A repository as it is now."""

    repo_id: str
    commit: str
    """40 hex digits: a function of paths and contents alone."""
    files: dict[str, HubFile]
    """By path, sorted."""
    folders: dict[str, str]
    """Id of git's tree by path, the root under the empty one; sorted."""
    left_out: tuple[str, ...]
    modified_s: float
    """When the youngest file was modified, in seconds since the epoch."""
    gate: Gate | None


class RepositoryShelf:
    """Finds repositories below a folder, and reads what is not known of them yet.

    Blocks while it reads; may be used from several threads. A context manager, since it owns the threads that compute
    digests.

    Args:
        root: The served folder: `<org>/<name>/...`.
        clock: Tells when a large repository is to be looked through again.
        report: Takes a sentence where something takes long.
    """

    def __init__(self, root: Path, *, clock: Clock, report: Callable[[str], None] = lambda _: None) -> None:
        self._root = root.resolve()
        self._clock = clock
        self._report = report
        self._memory = DigestMemory(self._root)
        self._cancellation = Cancellation()
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Scan, Snapshot, float]] = {}

    def __enter__(self) -> Self:
        self._memory.load()
        self._pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="hub-digests")
        return self

    def __exit__(self, *_: object) -> None:
        self._cancellation.cancel()
        self._pool.shutdown(cancel_futures=True)

    def cancel(self) -> None:
        """Let work that is under way end with `Cancelled`; from any thread."""
        self._cancellation.cancel()

    def repo_ids(self) -> list[str]:
        """Return the repositories that are there now, those of models last."""
        names = [
            f"{prefix}{org.name}/{repo.name}"
            for folder, prefix in ((self._root, ""), (self._root / MODELS_FOLDER, f"{MODELS_FOLDER}/"))
            for org in _folders(folder)
            for repo in _folders(org)
            if _is_utf8(repo.name)
        ]
        return sorted(
            (name for name in names if self._folder(name) is not None),
            key=lambda name: (name.startswith(MODELS_FOLDER), name),
        )

    def latest(self, repo_id: str) -> Snapshot | None:
        """Return the commit that was current when it was last asked for, without a look at the disk."""
        known = self._known.get(repo_id)
        return known[1] if known is not None else None

    def snapshot(self, repo_id: str) -> Snapshot | None:
        """Return the current commit; None where there is no such repository.

        Raises:
            Cancelled: Where the shelf is closed meanwhile.
        """
        folder = self._folder(repo_id)
        if folder is None:
            return None
        gate = _read_gate(folder)
        known = self._known.get(repo_id)
        if known is not None and known[1].gate == gate and self._is_fresh(known):
            return known[1]
        try:
            scan = scan_folder(folder, self._root)
        except OSError:
            return None
        if known is None or known[0] != scan or known[1].gate != gate:
            known = (scan, self._read(repo_id, scan, gate), 0.0)
        with self._lock:
            self._known[repo_id] = (scan, known[1], self._clock.monotonic())
        return known[1]

    def open(self, hub_file: HubFile) -> int | None:
        """Return a descriptor of the file; None where it is no longer the one that was read."""
        if os.path.realpath(hub_file.file) != hub_file.file:
            return None
        try:
            descriptor = os.open(hub_file.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        state = os.fstat(descriptor)
        if (state.st_size, state.st_mtime_ns) != (hub_file.size_bytes, hub_file.mtime_ns):
            os.close(descriptor)
            return None
        return descriptor

    def _is_fresh(self, known: tuple[Scan, Snapshot, float]) -> bool:
        scan, _, scanned_at_s = known
        return len(scan.files) > ALWAYS_SCANNED_FILES and self._clock.monotonic() < scanned_at_s + SCAN_PAUSE_S

    def look_again(self, repo_id: str) -> None:
        """Let the next `snapshot` look at the disk, however fresh the last one is."""
        with self._lock:
            known = self._known.get(repo_id)
            if known is not None:
                self._known[repo_id] = (known[0], known[1], float("-inf"))

    def _folder(self, repo_id: str) -> Path | None:
        parts = repo_id.removeprefix(f"{MODELS_FOLDER}/").split("/")
        if len(parts) != 2 or any(not part or part.startswith(".") or "\0" in part for part in parts):
            return None
        folder = self._root / repo_id
        if not folder.is_dir() or not is_below(os.path.realpath(folder), self._root):
            return None
        return folder

    def _read(self, repo_id: str, scan: Scan, gate: Gate | None) -> Snapshot:
        unknown = [file for file in scan.files if self._memory.get(f"{repo_id}/{file.path}", *_state(file)) is None]
        unknown_bytes = sum(file.size_bytes for file in unknown)
        if unknown_bytes > _WORTH_A_LINE_BYTES:
            self._report(
                f"{repo_id}: reading {count(len(unknown), 'file')} of {format_bytes(unknown_bytes)} for digests"
            )
        left_out = list(scan.left_out)
        files: dict[str, HubFile] = {}
        for file, result in zip(
            scan.files, self._pool.map(lambda each: self._digest(repo_id, each), scan.files), strict=True
        ):
            if isinstance(result, Digest):
                files[file.path] = _hub_file(file, result)
            else:
                left_out.append(f"{file.path!r} cannot be read: {result.strerror}")
        self._memory.keep_only(repo_id, files.keys())
        self._memory.save()
        folders = tree_oids({path: file.oid for path, file in files.items()})
        return Snapshot(
            repo_id=repo_id,
            commit=commit_id(folders[""]),
            files=files,
            folders=dict(sorted(folders.items())),
            left_out=tuple(left_out),
            modified_s=max((file.mtime_ns for file in files.values()), default=0) / 1e9,
            gate=gate,
        )

    def _digest(self, repo_id: str, file: ScannedFile) -> Digest | OSError:
        self._cancellation.raise_if_cancelled()
        name = f"{repo_id}/{file.path}"
        known = self._memory.get(name, *_state(file))
        if known is not None:
            return known
        try:
            digest = compute_digest(Path(file.file), file.path, self._cancellation)
        except OSError as error:
            return error
        self._memory.put(name, digest)
        return digest


def _state(file: ScannedFile) -> tuple[int, int]:
    return file.size_bytes, file.mtime_ns


def _hub_file(file: ScannedFile, digest: Digest) -> HubFile:
    pointer = lfs_pointer(digest.sha256, digest.size_bytes) if is_large(file.path, digest.size_bytes) else None
    oid = digest.git_oid if pointer is None else blob_oid(pointer)
    assert oid is not None
    return HubFile(
        path=file.path,
        file=file.file,
        size_bytes=digest.size_bytes,
        mtime_ns=digest.mtime_ns,
        sha256=digest.sha256,
        oid=oid,
        pointer_size_bytes=None if pointer is None else len(pointer),
    )


def _read_gate(folder: Path) -> Gate | None:
    """Read `<name>.gated` beside the folder: `auto` or `manual` on its first line, a token on each other."""
    try:
        lines = folder.with_name(f"{folder.name}.gated").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    words = [line.strip() for line in lines if line.strip()]
    kind = "manual" if words and words[0] == "manual" else "auto"
    tokens = words[1:] if words and words[0] in {"auto", "manual"} else words
    return Gate(kind=kind, tokens=frozenset(tokens))


def _folders(parent: Path) -> Iterator[Path]:
    try:
        entries = sorted(parent.iterdir())
    except OSError:
        return
    yield from (entry for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
