"""Archives of a Hub as byte sources, and sources that tell what is read of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from reelstream.archive import ByteSource
from reelstream.cancel import Cancellation
from reelstream.types import Archive

OpenSource = Callable[[Archive], ByteSource]
"""Gives an archive's bytes; what reading raises (`HubError`, `Cancelled`) passes through."""


class RangedFile(Protocol):
    """What is needed of a file of the Hub (`transport.RemoteFile`); a protocol, so that tests need no network."""

    @property
    def path(self) -> str:
        """Path in the repository."""
        ...

    @property
    def size_bytes(self) -> int:
        """Size of the whole file."""
        ...

    def read(self, first_byte: int, end_byte: int, cancellation: Cancellation) -> Iterator[bytes]:
        """Yield a range."""
        ...


class CancellableSource:
    """A file of the Hub whose reads are called off together.

    Args:
        file: The file.
        cancellation: Ends each read with `Cancelled`.
    """

    def __init__(self, file: RangedFile, cancellation: Cancellation) -> None:
        self._file = file
        self._cancellation = cancellation
        self.path = file.path
        self.size_bytes = file.size_bytes

    def read(self, first_byte: int, end_byte: int) -> Iterator[bytes]:
        """Yield the bytes [first_byte, end_byte)."""
        return self._file.read(first_byte, end_byte, self._cancellation)


class CountedSource:
    """A source that tells of the bytes that come.

    Args:
        source: Where they come from.
        on_bytes: Called with the size of each chunk.
    """

    def __init__(self, source: ByteSource, on_bytes: Callable[[int], None]) -> None:
        self._source = source
        self._on_bytes = on_bytes
        self.path = source.path
        self.size_bytes = source.size_bytes

    def read(self, first_byte: int, end_byte: int) -> Iterator[bytes]:
        """Yield the bytes [first_byte, end_byte)."""
        chunks = self._source.read(first_byte, end_byte)
        try:
            for chunk in chunks:
                self._on_bytes(len(chunk))
                yield chunk
        finally:
            # Hangs up where the reader stops in the middle.
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
