"""An archive's bytes as a lane may have them: in ranged reads, each of which waits for its turn and for room."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from reelstream.cancel import Cancellation
from reelstream.prefetch.lanes.host import ArchiveSource, RangeHost
from reelstream.types import Archive


class PacedSource:
    """A `ByteSource` for one lane's thread.

    Args:
        archive: What is read.
        source: Where the bytes come from.
        host: Says when a read may begin, and how large it may be.
        lane: Whose reads they are.
        window: Tells the window that the lane's next clip falls in.
        most_bytes: Tells the most bytes that a read shall ask for, where the lane will not want all there is.
        cancellation: Calls the reading off.
    """

    def __init__(
        self,
        archive: Archive,
        source: ArchiveSource,
        *,
        host: RangeHost,
        lane: int,
        window: Callable[[], int],
        most_bytes: Callable[[], int | None] = lambda: None,
        cancellation: Cancellation,
    ) -> None:
        self._archive = archive
        self._source = source
        self._host = host
        self._lane = lane
        self._window = window
        self._most_bytes = most_bytes
        self._cancellation = cancellation
        self._num_open = 0

    @property
    def path(self) -> str:
        """The archive's path in the repository."""
        return self._archive.path

    @property
    def size_bytes(self) -> int:
        """The archive's size."""
        return self._archive.size_bytes

    def read(self, first_byte: int, end_byte: int) -> Iterator[bytes]:
        """Yield a range of the archive, in as many ranged reads as room and turns make of it."""
        if self._num_open:
            # A small read in the midst of a large one, whose turn it shares.
            yield from self._source.read(self._archive, first_byte, end_byte, self._cancellation)
            return
        position = first_byte
        while position < end_byte:
            granted_bytes = self._host.begin_range(self._lane, self._window())
            self._num_open += 1
            most_bytes = self._most_bytes()
            if most_bytes is not None:
                granted_bytes = min(granted_bytes, max(1, most_bytes))
            end = min(position + granted_bytes, end_byte)
            try:
                yield from self._source.read(self._archive, position, end, self._cancellation)
            finally:
                self._num_open -= 1
                self._host.end_range(self._lane)
            position = end
