"""The spans of one epoch: what each lane reads, and what its readers must know of the archives."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from reelstream.archive import IndexRow
from reelstream.archive.cuts.bookmark import Bookmark
from reelstream.archive.cuts.report import CutReport
from reelstream.prefetch.lanes.host import SpanResult
from reelstream.prefetch.lanes.known_part import KnownPart
from reelstream.prefetch.state import Mark
from reelstream.types import Archive, Span


class KnownArchive(Protocol):
    """What is known of an archive's members."""

    def row(self, number: int) -> IndexRow:
        """Return a row by its number."""
        ...

    def holding(self, number: int) -> int | None:
        """Return the number of the row that holds a member's bytes: of a hard link, the one that it links to."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochPlan:
    """What the lanes read: a pure function of an epoch's settings, the repository and, for blocks, the indexes."""

    lanes: Sequence[Sequence[Span]]
    cuts: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """By archive, where all its cuts begin, ascending; those that are read in other epochs included."""
    known: Mapping[str, KnownArchive] = field(default_factory=dict)
    """By archive, what the blocks' rows are numbers of."""
    mean_clip_bytes: Mapping[str, float] = field(default_factory=dict)
    """By subset, the compressed bytes of its archives for each of its clips."""

    def later_cuts(self, span: Span) -> Sequence[int]:
        """Return where the cuts of a span's archive begin that come after it."""
        cuts = self.cuts.get(span.archive.path, ())
        return cuts[bisect.bisect_right(cuts, span.first_byte) :]

    def row_of(self, archive: Archive, number: int) -> IndexRow:
        """Return the row that holds the bytes of a block's member."""
        known = self.known[archive.path]
        holding = known.holding(number)
        assert holding is not None, "a block has a member whose bytes are nowhere"
        return known.row(holding)

    def mean_bytes_of(self, span: Span) -> float:
        """Return the mean size of a clip in a span."""
        return self.mean_clip_bytes.get(span.archive.subset, 1.0)


class Learned(Protocol):
    """Keeps what readers learn of archives."""

    def known_part(self, span: Span, mark: Mark | None) -> KnownPart | None:
        """Return what an earlier run has learned of a span; None where its rows before the mark are not whole."""
        ...

    def learned(self, span: Span, rows: Sequence[IndexRow], bookmark: Bookmark | None) -> None:
        """Take all rows of a span that are known so far; the span is still being read.

        Args:
            span: The span.
            rows: Of its members so far.
            bookmark: At the last of them; None where some clip among them has no row.
        """
        ...

    def finished(self, result: SpanResult) -> None:
        """Take what came of a span that was read to its end."""
        ...

    def verified(self, archive: Archive, reports: Sequence[CutReport], sha256: str | None) -> None:
        """All pieces of an archive were read, and are what was packed: its index can be put together."""
        ...
