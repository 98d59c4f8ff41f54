"""Rows of containers that are not compressed as a whole: reading can go on at any header, with nothing else known."""

from __future__ import annotations

from reelstream.archive.cuts.bookmark import Bookmark, LearnedRow
from reelstream.archive.cuts.piece import Segment
from reelstream.archive.seek.index import IndexRow, plain_point

# There is no checksum of the whole to go on with.
_NO_CHECKSUM = (Segment(crc32=0, size_bytes=0, trailer=None),)


def learned_row(row: IndexRow) -> LearnedRow:
    """Return a row with the bookmark at its header."""
    bookmark = Bookmark(
        point=plain_point(row.header_offset),
        header_offset=row.header_offset,
        border_offset=0,
        segments=_NO_CHECKSUM,
        watch_from=0,
    )
    return LearnedRow(cut=0, row=row, bookmark=bookmark)
