"""What a lane's reader asks of the world: bytes of archives, and a pipeline that takes clips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from reelstream.archive import ArchiveIndex, IndexRow
from reelstream.archive.cuts.bookmark import Bookmark
from reelstream.archive.cuts.report import CutReport
from reelstream.archive.seek.index import normal_name
from reelstream.cache import ClipFile, clip_identity
from reelstream.cancel import Cancellation
from reelstream.errors import ArchiveError
from reelstream.prefetch.windows import ResidentClip, Window
from reelstream.types import Archive, Span


@dataclass(frozen=True, kw_only=True)
class SpanResult:
    """What came of a span that was read."""

    span: Span
    clips: Sequence[int]
    """Clips of the catalog that were met in it since this process began."""
    num_unreferenced: int
    """Members that no sample refers to."""
    report: CutReport | None
    """Its checksums and borders; None where it has none, or was not read to its end."""
    rows: Sequence[IndexRow] | None
    """Where all its members lie; None where not all is known."""
    bookmark: Bookmark | None
    """At the last row; None where some clip has no row."""
    sha256: str | None
    """Hex digest of a tar.gz that was read whole and in one go."""
    index: ArchiveIndex | None
    """Of a container that is no tar.gz, as far as it was learned."""
    problem: ArchiveError | None
    """What ended the reading early."""


class ArchiveSource(Protocol):
    """Published bytes of archives; a protocol, since a Hub is one source of them and a test's dictionary another."""

    def read(self, archive: Archive, first_byte: int, end_byte: int, cancellation: Cancellation) -> Iterator[bytes]:
        """Yield the bytes [first_byte, end_byte) of an archive, surviving a bad network."""
        ...


class IncomingClip(Protocol):
    """A member whose bytes can be read once."""

    @property
    def name(self) -> str:
        """As packed."""
        ...

    @property
    def size_bytes(self) -> int:
        """Of its bytes."""
        ...

    @property
    def digest(self) -> bytes | None:
        """Of its bytes, once all have passed; None where none is made."""
        ...

    def chunks(self) -> Iterator[memoryview]:
        """Yield its bytes; raises `ArchiveError` where they are not to be had, or not what was promised."""
        ...


def identity_of(archive: Archive, member_name: str) -> str | None:
    """Return what a run that was killed, and the next one, know a clip by; None where its archive has no digest."""
    sha256 = archive.file.sha256
    return None if sha256 is None else clip_identity(sha256, normal_name(member_name))


class RangeHost(Protocol):
    """Who lets ranged reads begin."""

    def begin_range(self, lane: int, window: int) -> int:
        """Wait until a ranged read may begin; return its most bytes. `end_range` must follow."""
        ...

    def end_range(self, lane: int) -> None:
        """The ranged read has ended."""
        ...


class LaneHost(RangeHost, Protocol):
    """What a reader asks of the pipeline; each call may wait, and raises `Cancelled` when the epoch is called off."""

    def quota(self, lane: int) -> int | None:
        """Return how many clips the lane may give in all; None for no end."""
        ...

    def wait_for_quota(self, lane: int, num_clips: int) -> bool:
        """Wait until the lane may give more than `num_clips`; return False when no more are wanted."""
        ...

    def write(self, lane: int, window: int, member: IncomingClip, identity: str | None) -> ClipFile:
        """Wait for room, write the member and publish it, under its identity for runs after this one."""
        ...


class StreamingHost(LaneHost, Protocol):
    """What a reader of unknown members asks: windows are closed once their clips are there."""

    def survives(self, identity: str | None) -> bool:
        """Whether a killed run has left a clip, which nobody has taken over yet."""
        ...

    def meet(self, lane: int, clip: ResidentClip) -> None:
        """A clip is on disk, or known to be bad."""
        ...

    def close_window(self, lane: int, window: Window) -> None:
        """A window has all its clips."""
        ...

    def learned(self, span: Span, rows: Sequence[IndexRow], bookmark: Bookmark | None) -> None:
        """These are all rows of a span that are known so far; the bookmark is at the last one."""
        ...

    def finish_span(self, lane: int, result: SpanResult) -> None:
        """A span was read to its end, or a problem ended it; raises the problem where it shall end the epoch."""
        ...


class KnownHost(LaneHost, Protocol):
    """What a reader of known members asks: windows are announced before their clips are fetched."""

    def announce(self, lane: int, window: Window) -> list[ResidentClip]:
        """A window begins; return the clips of it that are to be fetched, in the order of their first use."""
        ...

    def take_kept(self, lane: int, clip: ResidentClip, identity: str | None) -> bool:
        """Use a clip that is on disk already, once its window may hold it; return whether it was."""
        ...

    def arrive(self, lane: int, clip: ResidentClip) -> None:
        """A clip of an announced window is on disk, or known to be bad."""
        ...
