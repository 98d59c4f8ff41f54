"""What becomes of a span that was read: its archive is judged, its rows are kept, and whoever listens is told."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from reelstream.archive.cuts.report import CutReport
from reelstream.catalog import Catalog
from reelstream.errors import ArchiveChecksumError, ArchiveError
from reelstream.prefetch.lanes.host import SpanResult
from reelstream.prefetch.ledger import ArchiveLedger, Finding
from reelstream.prefetch.plan import Learned
from reelstream.prefetch.state import EpochState
from reelstream.telemetry import Telemetry, events
from reelstream.types import Archive


class SpanResults:
    """Takes the results of an epoch's spans. Thread-safe.

    Args:
        state: Where the epoch begins: it may know reports already.
        catalog: Names the clips.
        learned: Keeps what the readers learn of archives.
        telemetry: Who is told.
        stop_on_bad_archive: Whether a damaged archive ends the epoch.
    """

    def __init__(
        self, state: EpochState, *, catalog: Catalog, learned: Learned, telemetry: Telemetry, stop_on_bad_archive: bool
    ) -> None:
        self._catalog = catalog
        self._learned = learned
        self._telemetry = telemetry
        self._stop_on_bad_archive = stop_on_bad_archive
        self._lock = threading.Lock()
        self._ledger = ArchiveLedger(state.reports)

    def take(self, lane: int, result: SpanResult) -> None:
        """Book what came of a span.

        Raises:
            ArchiveError: What ended the reading, where that shall end the epoch.
        """
        problem = result.problem
        if problem is not None and self._stop_on_bad_archive and not isinstance(problem, ArchiveChecksumError):
            hint = f"{problem.hint}; set on_bad_archive to skip to go on without what it does not give"
            raise ArchiveError(problem.fact, hint) from problem
        if problem is None:
            self._learned.finished(result)
        with self._lock:
            findings = self._ledger.add(result)
        for finding in findings:
            self._tell(finding)
        self._telemetry.emit(
            events.SpanFinished(
                lane=lane,
                path=result.span.archive.path,
                num_clips=len(result.clips),
                num_unreferenced=result.num_unreferenced,
            )
        )

    @property
    def judged(self) -> list[str]:
        """Paths of the archives of which it is known here whether they are true."""
        with self._lock:
            return self._ledger.judged

    def settle(self, reports: Mapping[Archive, Sequence[CutReport]]) -> None:
        """Judge archives whose pieces several ranks have read, by what all of them found."""
        for archive, of_archive in reports.items():
            with self._lock:
                findings = self._ledger.add_reports(archive, of_archive)
            for finding in findings:
                self._tell(finding)

    def _tell(self, finding: Finding) -> None:
        """Book what an archive delivered as suspect, or have its index put together."""
        if finding.problem is None:
            self._learned.verified(finding.archive, finding.reports, finding.sha256)
            return
        names = tuple(f"{record.subset}/{record.path}" for record in map(self._catalog.clip, finding.clips))
        self._telemetry.emit(events.ArchiveSuspect(path=finding.archive.path, reason=finding.problem, clips=names))
