"""Writes archives, each in one stream: tar as GNU tar would, packed as gzip would or not; zips that store; files."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, cast

from reelstream.errors import DiskError
from reelstream.sampledata.options import Packing

# One moment for all, so that the same seed gives the same bytes: 2024-10-01 00:00 UTC.
_MODIFIED_S = 1_727_740_800
_MODIFIED = (2024, 10, 1, 0, 0, 0)
_LEVEL = 6  # what `tar czf` uses


class ArchiveWriter(Protocol):
    """Adds members to one archive; made by `open_archive`."""

    def add(self, path: str, content: bytes) -> None:
        """Append a file; folders above it that the archive has not named yet come first, as GNU tar lists them."""
        ...


class _Folders:
    """Which folders an archive has named."""

    def __init__(self) -> None:
        self._named: set[str] = set()

    def new_above(self, path: str) -> Iterator[str]:
        """Yield the folders above a path that were not named before, the outermost first, without a slash."""
        for folder in reversed(PurePosixPath(path).parents[:-1]):
            if str(folder) not in self._named:
                self._named.add(str(folder))
                yield str(folder)


class _TarWriter:
    """Writes a tar.

    Headers are `tarfile`'s, the stream is ours: `tarfile`'s own writes end marks into a broken pipe when it is dropped.
    """

    def __init__(self, stream: IO[bytes], prefix: str) -> None:
        self._stream = stream
        self._prefix = prefix
        self._folders = _Folders()
        self._size_bytes = 0

    def add(self, path: str, content: bytes) -> None:
        for folder in self._folders.new_above(path):
            # Its slash is what tarfile adds to a folder's name by itself.
            self._write(self._header(folder, kind=tarfile.DIRTYPE, mode=0o755, size_bytes=0))
        self._write(self._header(path, kind=tarfile.REGTYPE, mode=0o644, size_bytes=len(content)))
        self._write(content)
        self._fill_up(tarfile.BLOCKSIZE)

    def finish(self) -> None:
        """Append the end: two empty blocks, filled up to a whole record."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._fill_up(tarfile.RECORDSIZE)

    def _header(self, path: str, *, kind: bytes, mode: int, size_bytes: int) -> bytes:
        entry = tarfile.TarInfo(self._prefix + path)
        entry.type = kind
        entry.mode = mode
        entry.size = size_bytes
        entry.mtime = _MODIFIED_S
        entry.uid = entry.gid = 1000
        return entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")

    def _write(self, content: bytes) -> None:
        self._stream.write(content)
        self._size_bytes += len(content)

    def _fill_up(self, unit_bytes: int) -> None:
        self._write(bytes(-self._size_bytes % unit_bytes))


class _ZipWriter:
    """Members are stored as they are: media hardly shrink, and it is how datasets of videos are published."""

    def __init__(self, packed: zipfile.ZipFile, prefix: str) -> None:
        self._zip = packed
        self._prefix = prefix
        self._folders = _Folders()

    def add(self, path: str, content: bytes) -> None:
        for folder in self._folders.new_above(path):
            self._zip.writestr(self._entry(f"{folder}/", stat.S_IFDIR | 0o755), b"")
        self._zip.writestr(self._entry(path, stat.S_IFREG | 0o644), content)

    def _entry(self, path: str, mode: int) -> zipfile.ZipInfo:
        entry = zipfile.ZipInfo(self._prefix + path, _MODIFIED)
        entry.create_system = 3  # Unix, on each system
        entry.external_attr = mode << 16
        return entry


class _FileWriter:
    """No archive: the only member is the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, path: str, content: bytes) -> None:  # noqa: ARG002 - its name is the file's
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("xb") as file:
            file.write(content)


@contextlib.contextmanager
def open_archive(path: Path, packing: Packing = "tar.gz", *, prefix: str = "") -> Iterator[ArchiveWriter]:
    """Open an archive for writing from its first byte to its last; it is whole once the block has ended.

    Args:
        path: The archive; or, of loose files, the file, whose only member is to be added.
        packing: What is written.
        prefix: Stands before all member names, such as `./`.

    Raises:
        DiskError: Where it cannot be written.
    """
    try:
        if packing == "files":
            yield _FileWriter(path)
        elif packing == "zip":
            with zipfile.ZipFile(path, "x") as packed:
                yield _ZipWriter(packed, prefix)
        else:
            with _compressed(path) if packing == "tar.gz" else path.open("xb") as stream:
                writer = _TarWriter(stream, prefix)
                yield writer
                writer.finish()
    except OSError as error:
        if isinstance(error, DiskError):
            raise
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, reason: object) -> DiskError:
    return DiskError(f"{path} could not be written: {reason}.", "Free some space, or choose another disk.")


@contextlib.contextmanager
def _compressed(path: Path) -> Iterator[IO[bytes]]:
    program = shutil.which("gzip")
    with path.open("xb") as file:
        if program is None:
            # No name and no time in the header, as `gzip -n`.
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=_LEVEL, mtime=0) as stream:
                yield cast("IO[bytes]", stream)
        else:
            with _gzip_process(program, path, file) as stream:
                yield stream


@contextlib.contextmanager
def _gzip_process(program: str, path: Path, file: IO[bytes]) -> Iterator[IO[bytes]]:
    process = subprocess.Popen(  # noqa: S603 - fixed arguments, and the program that PATH names
        [program, "-n", f"-{_LEVEL}"],
        stdin=subprocess.PIPE,
        stdout=file,
        stderr=subprocess.PIPE,
        # Ctrl-C is for us: a compressor that dies first would look like a full disk.
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    with process.stderr:
        try:
            yield process.stdin
            process.stdin.close()
        except BrokenPipeError as error:
            raise _cannot_write(path, _last_words(process)) from error
        except BaseException:
            process.kill()
            raise
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()
        if process.returncode:
            raise _cannot_write(path, _last_words(process))


def _last_words(process: subprocess.Popen[bytes]) -> str:
    assert process.stderr is not None
    words = process.stderr.read().decode(errors="replace").strip()
    return words or f"gzip ended with code {process.wait()}"
