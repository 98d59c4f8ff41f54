"""A pass over a whole archive: its speed without the index and with it, the index, and members read by range."""

from __future__ import annotations

import contextlib
import hashlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from archive_parts.clips import Digests
from archive_parts.counted import CountedFile
from reelstream.archive.cuts.assemble import assemble_index
from reelstream.archive.cuts.cut import CutReader
from reelstream.archive.gunzip import GunzipReader
from reelstream.archive.inflation import Inflation
from reelstream.archive.seek.index import ArchiveIdentity, ArchiveIndex
from reelstream.archive.seek.index_format import encode_index
from reelstream.archive.seek.inflate import BlockInflater, InflateLibrary, block_inflation
from reelstream.archive.seek.member_range import read_member
from reelstream.archive.source import FileSource
from reelstream.archive.tar import Member, read_members


@dataclass(frozen=True, kw_only=True)
class PassResult:
    """What a pass costs, and what its index is good for."""

    without_mb_s: float
    """The pass without an index, as runs make it: the standard library's zlib."""
    same_zlib_mb_s: float
    """A pass without an index, by the zlib that the index is learned with."""
    with_mb_s: float
    index_bytes: int
    num_points: int
    range_ratio_mean: float
    """Bytes of a member's range over the member's own compressed bytes."""
    range_ratio_max: float
    requests_mean: float
    """Requests a member."""
    num_wrong: int
    """Members whose SHA-256, read by range or in the pass, is not that of what GNU tar unpacks."""

    @property
    def ratio(self) -> float:
        """Speed with the index over speed without."""
        return self.with_mb_s / self.without_mb_s

    @property
    def same_zlib_ratio(self) -> float:
        """Speed with the index over the same zlib's without."""
        return self.with_mb_s / self.same_zlib_mb_s


class DirectInflation(Inflation):
    """The zlib that the index uses, without a thought for blocks, so that only the index makes the difference."""

    def __init__(self, library: InflateLibrary) -> None:
        super().__init__()
        self._blocks = BlockInflater(library)

    def close(self) -> None:
        self._blocks.close()

    def _begin_data(self, window: bytes = b"") -> None:
        assert not window

    def _decompress(self, most_bytes: int) -> bytes:
        blocks = self._blocks
        if self._given and not blocks.left_bytes:
            blocks.feed(self._given)
            self._given = b""
        piece = blocks.step(most_bytes, stop_at_block=False)
        self._maybe_pending = bool(blocks.left_bytes or self._given) or len(piece) == most_bytes
        if blocks.stream_ended:
            self._end_data(blocks.take_rest() + self._given)
        return piece


def measure_passes(archive: Path, digests: Digests, *, rounds: int) -> PassResult:
    """Time the passes in turn, CPU time, the best of the rounds; then read each member by range."""
    source = FileSource(archive)
    library = block_inflation().library
    assert library is not None, block_inflation().problem

    def without() -> None:
        with CutReader(source, 0) as reader:
            _pass_over(reader.members())

    def same_zlib() -> None:
        with contextlib.closing(DirectInflation(library)) as plain:
            chunks = source.read(0, source.size_bytes)
            _pass_over(read_members(GunzipReader(chunks, source.path, plain), source.path))

    def indexed() -> None:
        with CutReader(source, 0, learn=True) as reader:
            _pass_over(reader.members())
            reader.take_rows()

    works: tuple[Callable[[], None], ...] = (without, same_zlib, indexed)
    times_s = [[_cpu_seconds(work) for work in works] for _ in range(rounds)]
    speeds = [source.size_bytes / 1e6 / min(times) for times in zip(*times_s, strict=True)]
    index, streamed = _learn(source)
    ratios, requests, ranged = _read_by_range(archive, index)
    return PassResult(
        without_mb_s=speeds[0],
        same_zlib_mb_s=speeds[1],
        with_mb_s=speeds[2],
        index_bytes=len(encode_index(index)),
        num_points=index.num_points,
        range_ratio_mean=statistics.mean(ratios),
        range_ratio_max=max(ratios),
        requests_mean=statistics.mean(requests),
        num_wrong=_num_different(streamed, digests) + _num_different(ranged, digests),
    )


def _learn(source: FileSource) -> tuple[ArchiveIndex, Digests]:
    with CutReader(source, 0, learn=True) as reader:
        streamed = take(reader.members())
        rows = [learned.row for learned in reader.take_rows(now=True)]
        identity = ArchiveIdentity(size_bytes=source.size_bytes, sha256=None, etag="benchmark")
        return assemble_index(identity, [(reader.reports[0], rows)]), streamed


def _read_by_range(archive: Path, index: ArchiveIndex) -> tuple[list[float], list[int], Digests]:
    source = CountedFile(archive)
    ratios, requests, digests, end_before = [], [], [], 0
    for row in index:
        source.reset()
        digest = hashlib.sha256()
        for some in read_member(source, row):
            digest.update(some)
        digests.append((row.name, digest.hexdigest()))
        ratios.append(source.read_bytes / (row.compressed_end - end_before))
        requests.append(source.num_ranges)
        end_before = row.compressed_end
    return ratios, requests, digests


def take(members: Iterable[Member]) -> Digests:
    """Read members: their names and SHA-256."""
    taken = []
    for member in members:
        digest = hashlib.sha256()
        for some in member.chunks():
            digest.update(some)
        taken.append((member.name, digest.hexdigest()))
    return taken


def _num_different(found: Digests, wanted: Digests) -> int:
    return len(set(found) ^ set(wanted)) + abs(len(found) - len(wanted))


def _cpu_seconds(work: Callable[[], None]) -> float:
    start_s = time.process_time()
    work()
    return time.process_time() - start_s


def _pass_over(members: Iterator[Member]) -> None:
    for member in members:
        for _ in member.chunks():
            pass
