"""What the readers of cuts report, and which of them count."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from reelstream.archive.cuts.bookmark import Fields, segments_from_json, segments_to_json
from reelstream.archive.cuts.entry import NoEntryReason
from reelstream.archive.cuts.piece import Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class CutReport:
    """What the reader of a cut found."""

    first_byte: int
    """The cut's first compressed byte."""
    served_until: int
    """The first byte of the cut whose members come next; the archive's size where none do."""
    owns_none: str | None
    """Why no member is the cut's; None where some may be."""
    false_borders: tuple[int, ...]
    """The first bytes of cuts whose readers begin at no header: what they deliver is void."""
    piece: tuple[Segment, ...]
    """Checksums from the cut's border to where the reader stopped."""
    piece_bytes: int
    """Output from the cut's border to where the reader stopped."""
    border_offset: int
    """The decompressed offset of the cut's border, counted as in its rows and bookmarks: from where the decompression
    of the one who read it began. Of what is reported it alone depends on who read it."""

    def to_json(self) -> dict[str, Any]:
        """Return it as what JSON holds."""
        return {
            "first_byte": self.first_byte,
            "served_until": self.served_until,
            "owns_none": self.owns_none and str(self.owns_none),
            "false_borders": list(self.false_borders),
            "piece": segments_to_json(self.piece),
            "piece_bytes": self.piece_bytes,
            "border_offset": self.border_offset,
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Return the report that `to_json` was called for.

        Raises:
            ArchiveError: Where it is none.
        """
        fields = Fields(data, "the report of a cut")
        owns_none = fields.value("owns_none")
        if owns_none is not None and owns_none not in set(NoEntryReason):
            raise fields.refusal(f"`owns_none` is {owns_none!r:.40}, no reason that is known")
        first_byte = fields.integer("first_byte")
        return cls(
            first_byte=first_byte,
            served_until=fields.integer("served_until", least=first_byte),
            owns_none=owns_none,
            false_borders=fields.integers("false_borders"),
            piece=segments_from_json(fields.value("piece")),
            piece_bytes=fields.integer("piece_bytes"),
            border_offset=fields.integer("border_offset"),
        )


def settled(reports: Iterable[CutReport]) -> list[CutReport]:
    """Return the reports of the readers whose members count, from the archive's beginning on.

    The first cut's reader knows what it reads; it says at which cut's border it stopped, having checked it; and so on.
    The other readers' members are void: they began astray, or the one before went on past their border. Where a report
    is missing, the list ends there.
    """
    by_first_byte = {report.first_byte: report for report in reports}
    chain: list[CutReport] = []
    first_byte = 0
    while (report := by_first_byte.get(first_byte)) is not None and report.owns_none is None:
        chain.append(report)
        if report.served_until <= first_byte:
            break  # reports are kept in states, which are not trusted
        first_byte = report.served_until
    return chain
