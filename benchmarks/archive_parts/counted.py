"""A local file that counts what is read of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from reelstream.archive.source import FileSource

# In small pieces, as a network's: what is not taken was not read.
_PIECE_BYTES = 1 << 14


class CountedFile(FileSource):
    """A local file that counts the bytes and the ranges that are read of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.read_bytes = 0
        self.num_ranges = 0

    def read(self, first_byte: int, end_byte: int) -> Iterator[bytes]:
        self.num_ranges += 1
        for chunk in super().read(first_byte, end_byte):
            for start in range(0, len(chunk), _PIECE_BYTES):
                piece = chunk[start : start + _PIECE_BYTES]
                self.read_bytes += len(piece)
                yield piece

    def reset(self) -> None:
        """Count from 0 again."""
        self.read_bytes = self.num_ranges = 0
