"""What the lanes hold: windows that form as clips arrive, and windows that are being used."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from reelstream.archive import IndexRow
from reelstream.archive.cuts.report import CutReport
from reelstream.cache import ClipFile
from reelstream.prefetch.state import Mark
from reelstream.types import Archive, ClipRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPlace:
    """Where a clip lies."""

    archive: Archive
    row: IndexRow
    """Of the member that holds its bytes."""


@dataclass(eq=False, slots=True, kw_only=True)
class ResidentClip:
    """A clip in a window: one visit, from its arrival to its last use."""

    lane: int
    window: int
    """Number of the window in its lane."""
    record: ClipRecord
    rows: range
    """Its samples in the catalog."""
    size_bytes: int
    """On disk."""
    file: ClipFile | None
    """None where it has not arrived, never will, or is deleted."""
    problem: str | None = None
    """Why it is quarantined."""
    place: KnownPlace | None = None
    """Where it lies, where that is known beforehand."""
    is_kept: bool = False
    """Whether its file was on disk before, and is used where it lies."""
    left: int = 0
    """Samples that are not served yet."""
    counted: bool = False
    """Whether these are counted in what its lane has ready."""
    decoded_before: bool = False
    repeated: bool | None = None
    """Whether another visit owns its clip of the catalog; None until a sample of it is served."""
    uses: deque[int] = field(default_factory=deque)
    """Places of its coming samples in the look-ahead."""

    @property
    def name(self) -> str:
        """`subset/path`."""
        return f"{self.record.subset}/{self.record.path}"

    @property
    def arrived(self) -> bool:
        """Whether its samples can be served."""
        return self.file is not None


@dataclass(eq=False, slots=True, kw_only=True)
class Window:
    """Consecutive clips of a lane whose samples are shuffled together."""

    number: int
    span: int
    """Ordinal of the span in which it begins."""
    member: int
    """Clips of that span before it."""
    clips_before: int
    """Clips of the lane before it."""
    end_span: int = 0
    """Ordinal of the span in which its last clip lies."""
    end_member: int = 0
    """Clips of that span up to and including its last clip."""
    clips: list[ResidentClip] = field(default_factory=list)
    order: list[tuple[int, int]] = field(default_factory=list)
    """(clip in window, sample of clip), once the window is closed."""
    cursor: int = 0
    """Samples consumed or passed over."""
    repeats: set[int] = field(default_factory=set)
    """Places of the clips that it has begun with and does not own."""
    mark: Mark | None = None
    """From where its first clip can be read again; None for the span's beginning."""
    end_mark: Mark | None = None
    """From where the clip after its last one can be read."""
    is_last: bool = False
    """Whether its lane gives no more clips after it, as far as is asked of it."""
    reports_before: list[tuple[str, CutReport]] = field(default_factory=list)
    """By archive, what was found of spans that were read to their end before it began: who begins there does not read
    them again."""
    reports: list[tuple[str, CutReport]] = field(default_factory=list)
    """And of those that were read to their end before it was closed."""


@dataclass(eq=False, slots=True)
class Lane:
    """One lane's part of the board."""

    number: int
    slot: int = 0
    digest: str = ""
    windows: deque[Window] = field(default_factory=deque)
    """Closed and not used up, oldest first."""
    num_clips: int = 0
    """Clips that its reader has met, in closed windows and in the forming one."""
    paused: bool = False
    """Its quota is met; more clips may be asked of it."""
    ended: bool = False
    """Its reader has met the end of the last span."""
    failure: Exception | None = None
    """What ended its reader."""
    left: Window | None = None
    """The window that was used up last."""
    last: tuple[ResidentClip, int, Window] | None = None
    """Clip, number of its sample, and window of what was served last, but for repeats."""
    ready: int = 0
    """Samples of closed windows whose clips are on disk and that are not served yet."""
