"""Compressed bytes from one place on: looked at before they are used, and none of them fetched twice."""

from __future__ import annotations

from collections.abc import Iterator

from reelstream.archive.source import ByteSource

# What one range asks for where nothing is known of what will be needed, and at most.
_LEAST_RANGE_BYTES = 1 << 16
_MOST_RANGE_BYTES = 32_000_000


class Feed:
    """The bytes of a source from `first_byte` to its end, in ranges asked for as they are needed.

    Args:
        source: Where they come from.
        first_byte: Where to begin.
        expected_bytes: The size of the first range. A reader that ends sooner closes it.
    """

    def __init__(self, source: ByteSource, first_byte: int, *, expected_bytes: int) -> None:
        self._source = source
        self._size_bytes = source.size_bytes
        self._fetched = first_byte
        self._range_end = first_byte
        self._chunks: Iterator[bytes] = iter(())
        self._buffer = memoryview(b"")
        self._expected_end = first_byte + expected_bytes
        self.position = first_byte
        """Where the next byte taken lies in the file."""
        self.num_ranges = 0
        """Ranges asked for so far."""

    @property
    def left_bytes(self) -> int:
        """Bytes from the position to the file's end."""
        return self._size_bytes - self.position

    def expect(self, size_bytes: int) -> None:
        """Say that `size_bytes` more will be taken: the size of the next range, if one has to be asked for."""
        self._expected_end = self.position + size_bytes

    def peek(self, size_bytes: int) -> memoryview:
        """Return the next bytes without taking them: `size_bytes` or more, fewer only at the end of the file."""
        if len(self._buffer) < size_bytes:
            # Who looks further than expected will look further still: as much again, so that ranges stay few.
            self._expected_end = max(self._expected_end, self._fetched + len(self._buffer))
            pieces = [self._buffer]
            missing = size_bytes - len(self._buffer)
            while missing > 0 and (chunk := self._fetch()):
                pieces.append(memoryview(chunk))
                missing -= len(chunk)
            self._buffer = memoryview(b"".join(pieces))
        return self._buffer

    def take(self, most_bytes: int) -> memoryview:
        """Return at least one and at most `most_bytes` bytes; none at the end of the file."""
        if not self._buffer:
            self._buffer = memoryview(self._fetch())
        taken, self._buffer = self._buffer[:most_bytes], self._buffer[most_bytes:]
        self.position += len(taken)
        return taken

    def move_to(self, position: int) -> None:
        """Go on at a byte further on; what lies between is not fetched, unless it was."""
        if position <= self._fetched:
            self._buffer = self._buffer[position - self.position :]
        else:
            self.close()
            self._buffer = memoryview(b"")
            self._fetched = self._range_end = position
        self.position = position

    def close(self) -> None:
        """Give up the range that is being read."""
        chunks, self._chunks = self._chunks, iter(())
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
        self._range_end = self._fetched

    def _fetch(self) -> bytes:
        while self._fetched < self._size_bytes:
            if self._fetched < self._range_end:
                chunk = next(self._chunks, b"")
                if not chunk:
                    break  # the source ended early: the reader finds the archive cut short
                self._fetched += len(chunk)
                return chunk
            wanted = min(max(self._expected_end - self._fetched, _LEAST_RANGE_BYTES), _MOST_RANGE_BYTES)
            self._range_end = min(self._fetched + wanted, self._size_bytes)
            self._chunks = self._source.read(self._fetched, self._range_end)
            self.num_ranges += 1
        return b""
