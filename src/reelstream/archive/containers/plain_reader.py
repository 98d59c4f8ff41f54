"""Bytes that lie as they are, from a place on."""

from __future__ import annotations

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

    def digest(self) -> bytes:
        """Return the digest of what was read since `begin_digest`."""
        assert self._digester is not None
        return self._digester.digest()

    def close(self) -> None:
        """Give up the range that is being read."""
        self._feed.close()
