"""What holds for every `ByteSource`."""

from __future__ import annotations

import concurrent.futures
import random

import pytest

from reelstream.archive import ByteSource
from reelstream.testing.packing import media_bytes

_CONTENT = media_bytes(1, 700_001)


class ByteSourceContract:
    """A file of known size, any range of which can be read, by several threads at once."""

    def make_source(self, content: bytes) -> ByteSource:
        """Return a source of these bytes."""
        raise NotImplementedError

    def test_it_knows_its_size_and_has_a_name(self) -> None:
        """Both are there before anything is read."""
        source = self.make_source(_CONTENT)
        assert source.size_bytes == len(_CONTENT)
        assert source.path

    @pytest.mark.parametrize("seed", range(8))
    def test_any_range_gives_its_bytes(self, seed: int) -> None:
        """First, last, single bytes and all among them; no chunk is empty."""
        draw = random.Random(seed)
        source = self.make_source(_CONTENT)
        first = draw.choice([0, draw.randrange(len(_CONTENT))])
        end = draw.choice([first + 1, draw.randrange(first, len(_CONTENT)) + 1, len(_CONTENT)])
        chunks = list(source.read(first, end))
        assert b"".join(chunks) == _CONTENT[first:end]
        assert all(chunks)

    def test_a_range_can_be_given_up_in_the_middle_and_others_are_read_after_it(self) -> None:
        """Closing the iterator is how readers stop."""
        source = self.make_source(_CONTENT)
        chunks = source.read(0, len(_CONTENT))
        assert _CONTENT.startswith(next(chunks))
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
        assert b"".join(source.read(1000, 3000)) == _CONTENT[1000:3000]

    def test_ranges_are_read_side_by_side(self) -> None:
        """In turns by one thread, and by several threads."""
        source = self.make_source(_CONTENT)
        one, other = source.read(0, 500_000), source.read(200_000, 700_001)
        begun = [next(one), next(other)]
        assert begun[0] + b"".join(one) == _CONTENT[:500_000]
        assert begun[1] + b"".join(other) == _CONTENT[200_000:]
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            starts = [number * 100_000 for number in range(7)]
            found = list(threads.map(lambda first: b"".join(source.read(first, first + 90_000)), starts))
        assert found == [_CONTENT[first : first + 90_000] for first in starts]
