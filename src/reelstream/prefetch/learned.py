"""What the readers of an epoch learn of archives, put where later epochs, runs and machines find it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reelstream.archive import ArchiveIdentity, IndexRow, Verification
from reelstream.archive.cuts.assemble import assemble_index
from reelstream.archive.cuts.bookmark import Bookmark
from reelstream.archive.cuts.report import CutReport
from reelstream.errors import DiskError
from reelstream.indexes import IndexStore, LearnedCut
from reelstream.prefetch.lanes.host import SpanResult
from reelstream.prefetch.lanes.known_part import KnownPart
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

    def known_part(self, span: Span, mark: Mark | None) -> KnownPart | None:
        """Return what an earlier run has learned of a span; None where its rows before the mark are not whole."""
        if span.archive.file.sha256 is None:
            return None
        cut = self._store.find_cut(span.archive, span.first_byte)
        if cut is None or not cut.rows:
            return None
        offset = cut.rows[0].header_offset if mark is None else mark.bookmark.header_offset
        if not any(row.header_offset == offset for row in cut.rows):
            return None
        before = [row for row in cut.rows if row.header_offset < offset]
        ahead = list(cut.rows[len(before) :])
        if cut.bookmark is None:
            return KnownPart(before=before, ahead=(), bookmark=None, report=None)
        if cut.report is not None:
            return KnownPart(before=before, ahead=ahead, bookmark=None, report=cut.report)
        # The last one is met again where reading goes on.
        return KnownPart(before=before, ahead=ahead[:-1], bookmark=cut.bookmark, report=None)

    def learned(self, span: Span, rows: Sequence[IndexRow], bookmark: Bookmark | None) -> None:
        """Keep all rows of a span that are known so far."""
        self._save_cut(span, LearnedCut(first_byte=span.first_byte, report=None, rows=rows, bookmark=bookmark))

    def finished(self, result: SpanResult) -> None:
        """Keep what was learned of a span that was read to its end."""
        try:
            if (
                result.index is not None
                and result.index.complete
                and result.span.archive.kind is not ContainerKind.FILE
            ):
                self._store.save(result.index)
        except DiskError as error:
            self._tell(error)
        if result.rows is not None and result.report is not None:
            cut = LearnedCut(
                first_byte=result.span.first_byte, report=result.report, rows=result.rows, bookmark=result.bookmark
            )
            self._save_cut(result.span, cut)

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
            self._store.save(index)
        except DiskError as error:
            self._tell(error)

    def tidy(self, archives: Iterable[Archive]) -> None:
        """Let go of what was learned of cuts whose archives' indexes are whole; not while these archives are read.

        As long as they are read, a run that is killed and goes on need not fetch again what has survived.
        """
        if self._keep_cuts:
            return
        for archive in archives:
            if archive.file.sha256 is not None and self._store.find(archive) is not None:
                self._store.drop_cuts(archive)

    def _save_cut(self, span: Span, cut: LearnedCut) -> None:
        if span.archive.file.sha256 is None or span.archive.kind is not ContainerKind.TAR_GZ:
            return
        try:
            self._store.save_cut(span.archive, cut)
        except DiskError as error:
            self._tell(error)

    def _tell(self, error: DiskError) -> None:
        if not self._told:
            self._told = True
            self._telemetry.emit(events.Notice(message=f"what is learned of archives is not kept: {error.fact}"))
