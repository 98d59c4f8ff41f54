"""What is known of an epoch's archives as wholes: whether the pieces of each, put together, are what was packed.

A first pass delivers clips before anybody can know that their bytes are true: the checksum comes at the archive's end,
or at the end of a piece that another lane reads. So each reader reports the checksums of its piece; once the pieces of
an archive are complete they are combined and compared, and what was delivered of one that fails is *suspect*, by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reelstream.archive.cuts.piece import pieces_are_true
from reelstream.archive.cuts.report import CutReport, settled
from reelstream.prefetch.lanes.host import SpanResult
from reelstream.types import Archive

_ASTRAY = "it holds another archive, and some cuts were entered inside of that one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found out about an archive."""

    archive: Archive
    problem: str | None
    """Why what it delivered is suspect; None where it is true."""
    clips: tuple[int, ...]
    """The suspect clips, as far as this process has met them: all of the archive, or those of cuts that went astray."""
    reports: tuple[CutReport, ...] = ()
    """Of the pieces whose members count, from the archive's beginning to its end; none where not all are there."""
    sha256: str | None = None
    """Hex digest of the archive, where it was read whole and in one go."""


class ArchiveLedger:
    """The reports of an epoch. Not thread-safe: its owner holds a lock.

    Args:
        reports: Those of the state that the epoch goes on from, by archive.
    """

    def __init__(self, reports: Mapping[str, Sequence[CutReport]]) -> None:
        self._reports = {path: {report.first_byte: report for report in of} for path, of in reports.items()}
        self._clips: dict[str, dict[int, Sequence[int]]] = {}
        self._counted: dict[
            str, frozenset[int]
        ] = {}  # by archive, the cuts whose members are its own, once it is judged

    @property
    def judged(self) -> list[str]:
        """Paths of the archives of which it is known whether they are true."""
        return list(self._counted)

    def add(self, result: SpanResult) -> list[Finding]:
        """Take what came of a span; return what is known by that."""
        archive, first_byte = result.span.archive, result.span.first_byte
        self._clips.setdefault(archive.path, {})[first_byte] = result.clips
        if result.problem is not None:
            return [Finding(archive=archive, problem=result.problem.fact, clips=tuple(result.clips))]
        if result.report is None:
            return []
        reports = self._reports.setdefault(archive.path, {})
        reports[result.report.first_byte] = result.report
        counted = self._counted.get(archive.path)
        if counted is not None:
            late = () if first_byte in counted else tuple(result.clips)
            return [Finding(archive=archive, problem=_ASTRAY, clips=late)] if late else []
        chain = settled(reports.values())
        if not chain or chain[-1].served_until != archive.size_bytes:
            return []
        self._counted[archive.path] = frozenset(report.first_byte for report in chain)
        return self._judged(archive, chain, result.sha256)

    def add_reports(self, archive: Archive, reports: Iterable[CutReport]) -> list[Finding]:
        """Take what other ranks have found of an archive's pieces; return what is known by that."""
        known = self._reports.setdefault(archive.path, {})
        known.update((report.first_byte, report) for report in reports)
        chain = settled(known.values())
        is_whole = bool(chain) and chain[-1].served_until == archive.size_bytes
        if not is_whole or archive.path in self._counted:
            return []
        self._counted[archive.path] = frozenset(report.first_byte for report in chain)
        return self._judged(archive, chain, None)

    def _judged(self, archive: Archive, chain: list[CutReport], sha256: str | None) -> list[Finding]:
        clips = self._clips.get(archive.path, {})
        if not pieces_are_true(report.piece for report in chain):
            problem = (
                "the checksum of its bytes is not the one at its end: bytes were damaged on the way, or published so"
            )
            return [Finding(archive=archive, problem=problem, clips=_all(clips.values()))]
        if sha256 is not None and archive.file.sha256 not in {None, sha256}:
            problem = f"its SHA-256 is {sha256}, and the published one {archive.file.sha256}"
            return [Finding(archive=archive, problem=problem, clips=_all(clips.values()))]
        counted = self._counted[archive.path]
        astray = _all(of for first_byte, of in clips.items() if first_byte not in counted)
        findings = [Finding(archive=archive, problem=None, clips=(), reports=tuple(chain), sha256=sha256)]
        if astray:
            findings.append(Finding(archive=archive, problem=_ASTRAY, clips=astray))
        return findings


def _all(clips: Iterable[Sequence[int]]) -> tuple[int, ...]:
    return tuple(sorted({clip for of in clips for clip in of}))
