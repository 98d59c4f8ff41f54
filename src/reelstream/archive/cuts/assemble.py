"""The index of an archive, put together from what the readers of its cuts learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from reelstream.archive.cuts.piece import pieces_are_true
from reelstream.archive.cuts.report import CutReport, settled
from reelstream.archive.seek.index import ArchiveIdentity, ArchiveIndex, IndexBuilder, IndexRow, Verification
from reelstream.archive.seek.seek_points import SeekPoint
from reelstream.errors import ArchiveError

LearnedCut = tuple[CutReport, Sequence[IndexRow]]
"""The report of a cut, and its rows in the order they lie."""


def assemble_index(identity: ArchiveIdentity, cuts: Sequence[LearnedCut]) -> ArchiveIndex:
    """Return the complete index of an archive that was read in cuts, whoever read which of them.

    Args:
        identity: The archive.
        cuts: What was learned of its cuts, in any order; those whose members don't count are left out.

    Returns:
        The index, its verification `CHECKSUM` or `FAILED`.

    Raises:
        ArchiveError: Where a cut is missing, so that the rows are not all.
    """
    by_first_byte = {report.first_byte: (report, rows) for report, rows in cuts}
    chain = [by_first_byte[report.first_byte] for report in settled(report for report, _ in cuts)]
    if not chain or chain[-1][0].served_until < identity.size_bytes:
        known_to = chain[-1][0].served_until if chain else 0
        raise ArchiveError(
            f"what was learned of an archive of {identity.size_bytes:,} bytes ends at byte {known_to:,}",
            "read the cut that begins there as well",
        )
    builder = IndexBuilder()
    for row in _absolute_rows(chain):
        builder.add(row)
    is_true = pieces_are_true(report.piece for report, _ in chain)
    return builder.build(identity, Verification.CHECKSUM if is_true else Verification.FAILED, complete=True)


def _absolute_rows(chain: Sequence[LearnedCut]) -> Iterator[IndexRow]:
    """Yield rows with offsets counted from the archive's beginning, neighbours sharing a point where they can."""
    border = compressed_end = 0
    last: SeekPoint | None = None
    for report, rows in chain:
        shift = border - report.border_offset
        for row in rows:
            point = row.point
            # What a point was kept for can be read from it, and all that follows. A later cut's reader may know of a
            # place only that lies before the last one of its neighbour.
            if last is None or point.bit_offset > last.bit_offset:
                last = dataclasses.replace(point, output_offset=point.output_offset + shift)
            # How far beyond a small member its reader had come makes a difference of some KiB.
            compressed_end = max(compressed_end, row.compressed_end)
            yield dataclasses.replace(
                row,
                header_offset=row.header_offset + shift,
                data_offset=row.data_offset + shift,
                compressed_end=compressed_end,
                point=last,
            )
        border += report.piece_bytes
