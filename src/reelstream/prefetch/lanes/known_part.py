"""What a lane that goes on with a span need not find out again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reelstream.archive import IndexRow
from reelstream.archive.cuts.bookmark import Bookmark
from reelstream.archive.cuts.report import CutReport


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPart:
    """What a run before this one has learned of a span that is gone on with at a mark."""

    before: Sequence[IndexRow]
    """The rows before the mark."""
    ahead: Sequence[IndexRow]
    """Those from the mark on, up to where reading goes on; none where not all their members have rows."""
    bookmark: Bookmark | None
    """Where reading goes on; None where nothing is left to be read."""
    report: CutReport | None
    """What was found of the span, where nothing is left to be read."""
