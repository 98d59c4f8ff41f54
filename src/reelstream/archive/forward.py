"""Decompressed bytes that come only once."""

from __future__ import annotations

import abc

# The most that is passed over in one step.
_STEP_BYTES = 1 << 18


class ForwardReader(abc.ABC):
    """An archive's decompressed bytes, from front to back; each reader says how the next of them come."""

    position: int = 0
    """Decompressed bytes handed out so far."""

    @abc.abstractmethod
    def read_some(self, most_bytes: int) -> memoryview:
        """Return at least one and at most `most_bytes` bytes, without a copy; none at the end."""

    def read(self, size_bytes: int) -> bytes:
        """Return exactly `size_bytes` bytes, fewer only at the end."""
        pieces = []
        while size_bytes and (some := self.read_some(size_bytes)):
            pieces.append(some)
            size_bytes -= len(some)
        return b"".join(pieces)

    def skip(self, size_bytes: int) -> int:
        """Pass over `size_bytes` bytes, fewer only at the end; return how many."""
        left = size_bytes
        while left and (some := self.read_some(left)):
            left -= len(some)
        return size_bytes - left

    def drain(self) -> int:
        """Read to the end, so that the last checksum is checked; return the bytes passed over."""
        start = self.position
        while self.read_some(_STEP_BYTES):
            pass
        return self.position - start
