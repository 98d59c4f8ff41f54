"""The members of some cuts of an archive, as the readers of these cuts have learned them, one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from reelstream.archive import IndexRow, MemberKind
from reelstream.archive.seek.index import normal_name
from reelstream.indexes import LearnedCut

# Where the first border is put: what is read ahead of it shall have no negative offset.
_FIRST_BORDER_OFFSET = 1 << 40
# Between cuts that are no neighbours: nobody takes their members for such.
_GAP_BYTES = 1 << 40


@dataclass(frozen=True, slots=True)
class LearnedRows:
    """Rows of some cuts, not all of their archive's; a `KnownArchive`.

    Each reader counts offsets from where it began to decompress. Here they are counted from the border of the first
    cut, whoever read which of them: so neighbours over a border can be read in one range, and two machines that have
    learned the same cuts agree.
    """

    rows: Sequence[IndexRow]
    _by_name: Mapping[str, Sequence[int]]

    @classmethod
    def of(cls, cuts: Sequence[LearnedCut]) -> Self:
        """Put the rows of cuts together.

        Args:
            cuts: Of one archive, read to their ends, ascending.
        """
        rows: list[IndexRow] = []
        served_until, border_offset = 0, _FIRST_BORDER_OFFSET
        for cut in cuts:
            report = cut.report
            assert report is not None, "a cut that was not read to its end"
            # Where the reader before went on past a cut's border, the members are that one's.
            if cut.first_byte < served_until or report.owns_none is not None:
                continue
            if cut.first_byte > served_until and rows:
                border_offset += _GAP_BYTES
            rows += _moved(cut.rows, border_offset - report.border_offset)
            served_until = report.served_until
            border_offset += report.piece_bytes
        by_name: dict[str, list[int]] = {}
        for number, row in enumerate(rows):
            by_name.setdefault(normal_name(row.name), []).append(number)
        return cls(rows, by_name)

    def __iter__(self) -> Iterator[IndexRow]:
        return iter(self.rows)

    def row(self, number: int) -> IndexRow:
        """Return a row by its number."""
        return self.rows[number]

    def holding(self, number: int) -> int | None:
        """Return the number of the row that holds a member's bytes, as `ArchiveIndex.holding`."""
        while (row := self.rows[number]).kind is MemberKind.HARD_LINK:
            named = self._by_name.get(normal_name(row.link_target or ""), ())
            before = [target for target in named if target < number]
            if not before:
                return None
            number = before[-1]
        return number


def _moved(rows: Sequence[IndexRow], shift_bytes: int) -> Iterator[IndexRow]:
    """Yield rows with other offsets; those that shared a point share it still."""
    old = new = None
    for row in rows:
        if new is None or row.point is not old:
            old = row.point
            new = dataclasses.replace(old, output_offset=old.output_offset + shift_bytes)
        yield dataclasses.replace(
            row,
            header_offset=row.header_offset + shift_bytes,
            data_offset=row.data_offset + shift_bytes,
            point=new,
        )
