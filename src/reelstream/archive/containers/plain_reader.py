"""Bytes that lie as they are, from a place on; and sources that are digested as they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from reelstream.archive.cuts.feed import Feed
from reelstream.archive.forward import ForwardReader
from reelstream.archive.seek.row_kinds import Digester, DigestKind
from reelstream.archive.source import ByteSource


class PlainReader(ForwardReader):
    """A container's bytes from a place on; positions are counted from its first byte. Close it.

    Args:
        source: The container.
        first_byte: Where to begin.
    """

    def __init__(self, source: ByteSource, first_byte: int) -> None:
        self._feed = Feed(source, first_byte, expected_bytes=source.size_bytes - first_byte)
        self._digester: Digester | None = None
        self.position = first_byte
        self.only_zeros = True
        """Whether all that was drained is padding."""

    def read_some(self, most_bytes: int) -> memoryview:
        """Return at least one and at most `most_bytes` bytes; none at the end."""
        some = self._feed.take(most_bytes)
        # The next range is as large as it may be: all of it will be read.
        self._feed.expect(self._feed.left_bytes)
        if self._digester is not None:
            self._digester.update(some)
        self.position += len(some)
        return some

    def drain(self) -> int:
        """Read to the end, taking note of whether that is padding only; return the bytes passed over."""
        start = self.position
        while some := self.read_some(1 << 18):
            self.only_zeros = self.only_zeros and not any(bytes(some).strip(b"\0"))
        return self.position - start

    def begin_digest(self) -> None:
        """Digest what is read from here on."""
        self._digester = Digester(DigestKind.SHA256)

    def end_digest(self) -> bytes:
        """Return the digest of what was read since `begin_digest`."""
        assert self._digester is not None
        digest, self._digester = self._digester.digest(), None
        return digest

    def close(self) -> None:
        """Give up the range that is being read."""
        self._feed.close()


class WholeDigest:
    """A source whose SHA-256 is made as it is read, once, from its first byte to its last.

    Args:
        source: Where the bytes come from.
    """

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._sha256 = hashlib.sha256()
        self._digested_bytes = 0

    @property
    def path(self) -> str:
        """The source's."""
        return self._source.path

    @property
    def size_bytes(self) -> int:
        """The source's."""
        return self._source.size_bytes

    def read(self, first_byte: int, end_byte: int) -> Iterator[bytes]:
        """Yield the range, as the source does; what follows all that came before is digested."""
        position = first_byte
        for chunk in self._source.read(first_byte, end_byte):
            if position == self._digested_bytes:
                self._sha256.update(chunk)
                self._digested_bytes += len(chunk)
            position += len(chunk)
            yield chunk

    def digest(self) -> str | None:
        """Return the hex digest of the whole file; None where not all of it was read."""
        return self._sha256.hexdigest() if self._digested_bytes == self.size_bytes else None
