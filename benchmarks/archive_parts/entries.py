"""Entering an archive with nothing known: right or wrong, bytes searched, CPU time; and what cuts cost.

An entry is right where a reader that comes from the archive's beginning sees the same 32 KiB there, and a header where
the entry's border is; and where the first two members from the border on are neighbours in the archive, by name and
SHA-256. Entries behind which no member begins have the first check only.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from archive_parts.clips import Digests
from archive_parts.counted import CountedFile
from archive_parts.passes import take
from reelstream.archive.cuts.cut import CutReader
from reelstream.archive.cuts.entry import Entry, find_entry
from reelstream.archive.cuts.piece import pieces_are_true
from reelstream.archive.cuts.report import settled
from reelstream.archive.inflation import frame_header_bytes
from reelstream.archive.seek.inflate import BlockInflater, block_inflation

# A trial needs bytes: that near the end there is no entry, and the reader from before goes on.
_NEAR_END_BYTES = 200_000
_CHUNK_BYTES = 1 << 18
_TRAILER_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class EntryResult:
    """What was measured of an archive's entries and cuts."""

    tried: int
    entered: int
    right: int
    without_member: int
    """Entries behind which no member begins, so that only their bytes could be checked."""
    searched_mean_bytes: float
    searched_max_bytes: int
    to_block_mean_bytes: float
    """From the places tried to where a block or a gzip member begins at all: no search can do better."""
    to_block_max_bytes: int
    read_mean_bytes: float
    """Fetched for an entry; the reader that goes on from there uses them."""
    ranges_mean: float
    cpu_mean_s: float
    cpu_max_s: float
    num_cuts: int
    cuts_right: bool
    """Whether each member came from exactly one cut, with its bytes, and all checksums agree with gzip's."""
    border_mean_bytes: float
    """Fetched twice a border."""


def measure_entries(archive: Path, digests: Digests, *, num_entries: int, num_cuts: int) -> EntryResult:
    """Enter an archive at random places, and read it in cuts of random sizes, the last one first."""
    source = CountedFile(archive)
    draw = random.Random(0)
    size_bytes = source.size_bytes
    places = [draw.randrange(max(1, size_bytes - _NEAR_END_BYTES)) for _ in range(num_entries)]
    found, times_s = [], []
    for place in places:
        started_s = time.process_time()
        found.append(find_entry(source, place))
        times_s.append(time.process_time() - started_s)
    read_bytes, num_ranges = source.read_bytes, source.num_ranges
    astray = _astray(source, places)
    entered = [(place, entry) for place, entry in zip(places, found, strict=True) if isinstance(entry, Entry)]
    firsts = [_first_two(source, place) for place, _ in entered]
    right = [
        place not in astray and (not first or first == _neighbours(first[0], digests))
        for (place, _), first in zip(entered, firsts, strict=True)
    ]
    searched = [entry.searched_bytes for _, entry in entered] or [0]
    begins = _block_begins(archive)
    to_block = [begins[min(bisect.bisect_left(begins, place), len(begins) - 1)] - place for place, _ in entered] or [0]
    cuts = [0, *sorted(draw.sample(range(1, size_bytes), num_cuts - 1))]
    cuts_right, cut_bytes = _read_cuts(source, cuts, digests)
    return EntryResult(
        tried=num_entries,
        entered=len(entered),
        right=sum(right),
        without_member=sum(not first for first in firsts),
        searched_mean_bytes=statistics.mean(searched),
        searched_max_bytes=max(searched),
        to_block_mean_bytes=statistics.mean(to_block),
        to_block_max_bytes=max(to_block),
        read_mean_bytes=read_bytes / num_entries,
        ranges_mean=num_ranges / num_entries,
        cpu_mean_s=statistics.mean(times_s),
        cpu_max_s=max(times_s),
        num_cuts=num_cuts,
        cuts_right=cuts_right,
        border_mean_bytes=(cut_bytes - size_bytes) / (num_cuts - 1),
    )


def _astray(source: CountedFile, places: list[int]) -> set[int]:
    """Return the places at which a reader would begin wrongly, by one who reads the archive from its beginning."""
    with CutReader(source, 0, sorted(set(places))) as reader:
        while not reader.finished:
            for _ in reader.members():
                pass
        return {byte for report in reader.reports for byte in report.false_borders}


def _first_two(source: CountedFile, place: int) -> Digests:
    """Return the first two members that a reader delivers who begins at a place."""
    with CutReader(source, place) as reader:
        return take(itertools.islice(reader.members(), 2))


def _neighbours(member: tuple[str, str], digests: Digests) -> Digests:
    start = digests.index(member) if member in digests else len(digests)
    return digests[start : start + 2]


def _read_cuts(source: CountedFile, cuts: list[int], digests: Digests) -> tuple[bool, int]:
    source.reset()
    reports, delivered = [], {}
    for number, first_byte in reversed(list(enumerate(cuts))):
        with CutReader(source, first_byte, cuts[number + 1 :]) as reader:
            delivered[first_byte] = take(reader.members())
            reports += reader.reports
    chain = settled(reports)
    joined = [member for report in chain for member in delivered[report.first_byte]]
    return joined == digests and pieces_are_true(report.piece for report in chain), source.read_bytes


def _block_begins(archive: Path) -> list[int]:
    """Return the bytes in which blocks and gzip members begin, ascending."""
    library = block_inflation().library
    assert library is not None, block_inflation().problem
    content = archive.read_bytes()
    begins, at = [], 0
    while at < len(content):
        begins.append(at)
        header_bytes = frame_header_bytes(content[at : at + _CHUNK_BYTES])
        assert header_bytes is not None
        data_at = fed_to = at + header_bytes
        with contextlib.closing(BlockInflater(library)) as inflater:
            while not inflater.stream_ended:
                if not inflater.left_bytes:
                    inflater.feed(content[fed_to : fed_to + _CHUNK_BYTES])
                    fed_to = min(fed_to + _CHUNK_BYTES, len(content))
                inflater.step(_CHUNK_BYTES, stop_at_block=True)
                if inflater.boundary_bit is not None:
                    begins.append(data_at + (inflater.boundary_bit >> 3))
            at = fed_to - len(inflater.take_rest()) + _TRAILER_BYTES
        while content[at : at + 1] == b"\0":
            at += 1
    return begins
