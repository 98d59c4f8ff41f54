"""Writes `.tar.gz` archives in one stream, as GNU tar and gzip would."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, cast

from reelstream.errors import DiskError

# One moment for all, so that the same seed gives the same bytes: 2024-10-01 00:00 UTC.
_MODIFIED_S = 1_727_740_800
_LEVEL = 6  # what `tar czf` uses


class ArchiveWriter:
    """Adds members to one archive; made by `open_archive`.

    Headers are `tarfile`'s, the stream is ours: `tarfile`'s own writes end marks into a broken pipe when it is dropped.
    """

    def __init__(self, stream: IO[bytes], prefix: str) -> None:
        self._stream = stream
        self._prefix = prefix
        self._folders: set[str] = set()
        self._size_bytes = 0

    def add(self, path: str, content: bytes) -> None:
        """Append a file; folders above it that the archive has not named yet come first, as GNU tar lists them."""
        for folder in reversed(PurePosixPath(path).parents[:-1]):
            if str(folder) not in self._folders:
                self._folders.add(str(folder))
                # Its slash is what tarfile adds to a folder's name by itself.
                self._write(self._header(str(folder), kind=tarfile.DIRTYPE, mode=0o755, size_bytes=0))
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


@contextlib.contextmanager
def open_archive(path: Path, *, prefix: str = "") -> Iterator[ArchiveWriter]:
    """Open an archive for writing from its first byte to its last; it is whole once the block has ended.

    Args:
        path: The archive.
        prefix: Stands before all member names, such as `./`.

    Raises:
        DiskError: Where it cannot be written.
    """
    try:
        with _compressed(path) as stream:
            writer = ArchiveWriter(stream, prefix)
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
