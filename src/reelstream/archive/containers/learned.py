"""Rows as they are learned, and from where a reader can go on later."""

from __future__ import annotations

from dataclasses import dataclass

from reelstream.archive.seek.index import IndexRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Bookmark:
    """Where a reader can go on: at this member's header."""

    header_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedRow:
    """A row, and from where its member and those after it can be read."""

    row: IndexRow
    bookmark: Bookmark
