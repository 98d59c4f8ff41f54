"""What the lanes hold: windows that form as clips arrive, and windows that are being used."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from reelstream.cache import ClipFile
from reelstream.types import ClipRecord


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
    """None where it never arrived, or is deleted."""
    problem: str | None = None
    """Why it is quarantined."""
    left: int = 0
    """Samples that are not served yet."""
    decoded_before: bool = False
    repeated: bool | None = None
    """Whether another visit owns its clip of the catalog; None until a sample of it is served."""
    uses: deque[int] = field(default_factory=deque)
    """Places of its coming samples in the look-ahead."""

    @property
    def name(self) -> str:
        """`subset/path`."""
        return f"{self.record.subset}/{self.record.path}"


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
    ready: int = 0
    """Samples of closed windows that are not served yet."""
