"""Each of our byte sources keeps the contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reelstream.archive import ByteSource, BytesSource, FileSource
from reelstream.cancel import Cancellation
from reelstream.indexes.sources import CancellableSource, CountedSource
from reelstream.testing import MemorySource
from reelstream.testing.contracts import ByteSourceContract


class TestBytesSource(ByteSourceContract):
    def make_source(self, content: bytes) -> ByteSource:
        return BytesSource(content)


class TestMemorySource(ByteSourceContract):
    def make_source(self, content: bytes) -> ByteSource:
        return MemorySource(content)


class TestFileSource(ByteSourceContract):
    @pytest.fixture(autouse=True)
    def _in_a_folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "file"

    def make_source(self, content: bytes) -> ByteSource:
        self.path.write_bytes(content)
        return FileSource(self.path)


class TestCountedSource(ByteSourceContract):
    def make_source(self, content: bytes) -> ByteSource:
        return CountedSource(MemorySource(content), lambda size_bytes: None)


class _RangedFile:
    """As a file of the Hub is read."""

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self.path = source.path
        self.size_bytes = source.size_bytes

    def read(self, first_byte: int, end_byte: int, cancellation: Cancellation) -> Iterator[bytes]:
        for chunk in self.source.read(first_byte, end_byte):
            cancellation.raise_if_cancelled()
            yield chunk


class TestCancellableSource(ByteSourceContract):
    def make_source(self, content: bytes) -> ByteSource:
        return CancellableSource(_RangedFile(MemorySource(content)), Cancellation())
