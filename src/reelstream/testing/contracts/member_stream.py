"""What holds for every `MemberStream`."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from reelstream.archive import ByteSource, read_member
from reelstream.archive.containers import MemberStream
from reelstream.errors import ArchiveError
from reelstream.testing.fakes import MemorySource
from reelstream.testing.packing import media_bytes

_FILES = {
    "source/first.mp4": media_bytes(1, 400_000),
    "source/empty.mp4": b"",
    "source/Zoë.mp4": media_bytes(2, 70_001),
    **{f"notes/{number}.json": b'{"caption": "a dog", "n": %d}' % number for number in range(5)},
    "long/" + "n" * 150 + ".mp4": media_bytes(3, 300_000),
    "zeros.bin": bytes(200_000),
    "one": b"x",
}


class MemberStreamContract:
    """One pass over a container, which learns where its members lie."""

    def pack(self, files: Mapping[str, bytes]) -> bytes:
        """Return a container of files in this order."""
        raise NotImplementedError

    def open_stream(self, source: ByteSource) -> MemberStream:
        """Return a stream over a container that `pack` made, which lies in `source`."""
        raise NotImplementedError

    @pytest.mark.parametrize("chunk_bytes", [777, 1 << 20])
    def test_members_come_in_order_with_their_names_sizes_and_bytes(self, chunk_bytes: int) -> None:
        """However small the pieces that they come in."""
        found = []
        with self.open_stream(MemorySource(self.pack(_FILES), chunk_bytes=chunk_bytes)) as stream:
            for member in stream.members():
                content = b"".join(member.chunks())
                assert (member.size_bytes, member.problem) == (len(content), None)
                found.append((member.name, content))
            assert stream.complete
        assert found == list(_FILES.items())

    def test_a_member_that_is_not_read_or_not_to_its_end_is_passed_over(self) -> None:
        """The next one comes whole."""
        with self.open_stream(MemorySource(self.pack(_FILES))) as stream:
            for number, member in enumerate(stream.members()):
                if number % 3 == 0:
                    assert b"".join(member.chunks()) == _FILES[member.name]
                elif number % 3 == 1:
                    next(member.chunks(), None)
            assert stream.complete

    def test_each_row_is_learned_once_in_order_and_reads_its_member(self) -> None:
        """Where nothing is learned, the stream says why."""
        source = MemorySource(self.pack(_FILES))
        rows = []
        with self.open_stream(source) as stream:
            for _ in stream.members():
                rows += stream.take_rows()
            rows += stream.take_rows()
            problem = stream.problem
        if problem:
            assert rows == []
            return
        assert [each.row.name for each in rows] == list(_FILES)
        for each in rows:
            assert b"".join(read_member(source, each.row)) == _FILES[each.row.name]

    def test_closing_gives_up_the_range_that_is_being_read(self) -> None:
        """No range stays open."""
        source = MemorySource(self.pack(_FILES), chunk_bytes=1000)
        with self.open_stream(source) as stream:
            next(next(stream.members()).chunks())
        assert source.num_open == 0
        assert source.read_bytes < 200_000

    def test_what_the_source_raises_passes_through(self) -> None:
        """A network's error is not taken for a damaged archive."""
        source = MemorySource(self.pack(_FILES), chunk_bytes=1000, fail_after=90_000)
        with pytest.raises(TimeoutError), self.open_stream(source) as stream:  # noqa: PT012 - any of it may meet it
            for member in stream.members():
                for _ in member.chunks():
                    pass

    @pytest.mark.parametrize("share", [0, 0.3, 0.7])
    def test_a_container_that_is_cut_short_gives_an_error_and_no_wrong_member(self, share: float) -> None:
        """What came before is right."""
        packed = self.pack(_FILES)
        found = {}
        with pytest.raises(ArchiveError):  # noqa: PT012, SIM117 - any of it may, opening and closing among it
            with self.open_stream(MemorySource(packed[: int(share * len(packed))])) as stream:
                for member in stream.members():
                    found[member.name] = b"".join(member.chunks())
        assert all(_FILES[name] == content for name, content in found.items())
