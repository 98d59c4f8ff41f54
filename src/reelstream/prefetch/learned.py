"""What the readers of an epoch learn of archives, put where later epochs, runs and machines find it."""

from __future__ import annotations

from collections.abc import Sequence

from reelstream.archive import ArchiveIdentity, IndexRow, Verification
from reelstream.archive.cuts.assemble import assemble_index
from reelstream.archive.cuts.report import CutReport
from reelstream.errors import DiskError
from reelstream.indexes import IndexStore, LearnedCut
from reelstream.prefetch.lanes.host import SpanResult
from reelstream.prefetch.state import Mark
from reelstream.telemetry import Telemetry, events
from reelstream.types import Archive, ContainerKind, Span


class IndexKeeper:
    """Keeps rows in an index store while spans are read, and puts indexes together; see `Learned`. Thread-safe.

    Nothing that is learned is worth ending a run for: where it cannot be kept, a notice says so once.

    Args:
        store: Where it is kept.
        keep_cuts: Whether what is learned of cuts stays beside the index: parts of archives are known by it.
        telemetry: Where notices go.
    """

    def __init__(self, store: IndexStore, *, keep_cuts: bool, telemetry: Telemetry) -> None:
        self._store = store
        self._keep_cuts = keep_cuts
        self._telemetry = telemetry
        self._told = False

    def rows_before(self, span: Span, mark: Mark) -> Sequence[IndexRow] | None:
        """Return the rows of a span before a mark, where a run before this one has learned all of them."""
        if span.archive.file.sha256 is None:
            return None
        cut = self._store.find_cut(span.archive, span.first_byte)
        offset = mark.bookmark.header_offset
        if cut is None or not any(row.header_offset == offset for row in cut.rows):
            return None
        return [row for row in cut.rows if row.header_offset < offset]

    def learned(self, span: Span, rows: Sequence[IndexRow]) -> None:
        """Keep all rows of a span that are known so far."""
        self._save_cut(span, None, rows)

    def finished(self, result: SpanResult) -> None:
        """Keep what was learned of a span that was read to its end."""
        try:
            if _can_be_kept(result.span.archive) and result.index is not None and result.index.complete:
                self._store.save(result.index)
        except DiskError as error:
            self._tell(error)
        if result.rows is not None and result.report is not None:
            self._save_cut(result.span, result.report, result.rows)

    def verified(self, archive: Archive, reports: Sequence[CutReport], sha256: str | None) -> None:
        """All pieces of an archive were read, and are what was packed: put its index together, if all was learned."""
        if archive.file.sha256 is None:
            return
        cuts = [self._store.find_cut(archive, report.first_byte) for report in reports]
        whole = [(cut.report, cut.rows) for cut in cuts if cut is not None and cut.report is not None]
        if len(whole) < len(reports):
            return
        identity = ArchiveIdentity(size_bytes=archive.size_bytes, sha256=archive.file.sha256)
        index = assemble_index(identity, whole)
        if index.verification is Verification.CHECKSUM and sha256 == archive.file.sha256:
            index.verification = Verification.SHA256
        try:
            if self._store.save(index) and not self._keep_cuts:
                self._store.drop_cuts(archive)
        except DiskError as error:
            self._tell(error)

    def _save_cut(self, span: Span, report: CutReport | None, rows: Sequence[IndexRow]) -> None:
        if not _can_be_kept(span.archive) or self._is_indexed(span.archive):
            return
        try:
            self._store.save_cut(span.archive, LearnedCut(first_byte=span.first_byte, report=report, rows=list(rows)))
        except DiskError as error:
            self._tell(error)

    def _is_indexed(self, archive: Archive) -> bool:
        return not self._keep_cuts and self._store.find(archive) is not None

    def _tell(self, error: DiskError) -> None:
        if not self._told:
            self._told = True
            self._telemetry.emit(events.Notice(message=f"what is learned of archives is not kept: {error.fact}"))


def _can_be_kept(archive: Archive) -> bool:
    """Return whether a row is worth a file: the Hub's listing says all there is to know of a loose one."""
    return archive.file.sha256 is not None and archive.kind is not ContainerKind.FILE
