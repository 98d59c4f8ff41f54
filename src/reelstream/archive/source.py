"""Where an archive's bytes come from: any range of them, asked for one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

_CHUNK_BYTES = 1 << 18


class ByteSource(Protocol):
    """A file of known size, any range of which can be read.

    The one thing that this package knows of the world outside: a local file, a file on a Hub, bytes in memory. Readers
    ask for bounded ranges and may stop in the middle of one by closing the iterator; the source then fetches no more.
    """

    @property
    def path(self) -> str:
        """Names the file in errors."""
        ...

    @property
    def size_bytes(self) -> int:
        """The size of the whole file."""
        ...

    def read(self, first_byte: int, end_byte: int) -> Iterator[bytes]:
        """Yield the bytes from `first_byte` up to and without `end_byte`, in chunks of any size, none of them empty.

        Both ends lie within the file. Whatever the source raises passes through its readers.
        """
        ...


class FileSource:
    """A local file. It is opened anew for each range, so that threads can share one source."""

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)

    @property
    def path(self) -> str:
        """The file's path."""
        return str(self._path)

    @property
    def size_bytes(self) -> int:
        """The file's size now."""
        return self._path.stat().st_size

    def read(self, first_byte: int, end_byte: int) -> Iterator[bytes]:
        """Yield the range in chunks of at most 256 KiB; it ends early only where the file was cut in the meantime."""
        with self._path.open("rb") as file:
            file.seek(first_byte)
            left = end_byte - first_byte
            while left > 0 and (chunk := file.read(min(left, _CHUNK_BYTES))):
                left -= len(chunk)
                yield chunk


class BytesSource:
    """Bytes in memory.

    Args:
        content: The whole file.
        path: Names it in errors.
        chunk_bytes: The size of the chunks that it is read in.
    """

    def __init__(self, content: bytes, path: str = "bytes in memory", *, chunk_bytes: int = _CHUNK_BYTES) -> None:
        self._content = content
        self._path = path
        self._chunk_bytes = chunk_bytes

    @property
    def path(self) -> str:
        """The name that it was given."""
        return self._path

    @property
    def size_bytes(self) -> int:
        """The number of bytes."""
        return len(self._content)

    def read(self, first_byte: int, end_byte: int) -> Iterator[bytes]:
        """Yield the range in chunks of `chunk_bytes`, the last one shorter."""
        for start in range(first_byte, end_byte, self._chunk_bytes):
            yield self._content[start : min(start + self._chunk_bytes, end_byte)]


def read_range(source: ByteSource, first_byte: int, end_byte: int) -> bytes:
    """Return a range at once; shorter than asked for only where the source ends early."""
    return b"".join(source.read(first_byte, end_byte)) if end_byte > first_byte else b""
