"""What an epoch's pipeline is told, and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reelstream.prefetch.board import Served
from reelstream.prefetch.paths import PathLease
from reelstream.types import AudioSampling, ClipMedia, DecodedClip, FrameSampling, MediaCheck, MediaKind

Decode = Callable[[Path, FrameSampling], DecodedClip]
"""Gives a clip's frames; raises `DecodeError` where the clip is bad."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineOptions:
    """How an epoch is worked on; none of it changes the order."""

    frames: FrameSampling
    decode_threads: int
    decoded_memory_bytes: int
    connections: int
    """The most ranged reads at once; one that pauses, because a clip waits for room, keeps no other from reading."""
    max_bad_share: float
    """More quarantined clips than this share of those met (of 100 at least) stop the epoch."""
    stop_on_bad_archive: bool
    """Whether a damaged archive ends the epoch; else what it did not give is booked as without media."""
    keep_until_window_end: bool = False
    """Whether a clip may be asked for again after its last sample, until its window is used up."""
    media: MediaKind = "frames"
    """What a sample holds of its clip."""
    check: MediaCheck = "open"
    """How a clip that is handed out undecoded is looked at."""
    audio: AudioSampling | None = None
    """How its sound is taken; None takes none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadySample:
    """A sample with what it holds of its clip."""

    served: Served
    media: ClipMedia
    lease: PathLease | None = None
    """Of its clip's file, where samples hold that."""

    @property
    def decoded(self) -> DecodedClip:
        """Its frames, where samples hold those."""
        assert self.media.decoded is not None, "samples of this pipeline hold no frames"
        return self.media.decoded


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """What a pipeline holds at an instant."""

    clips_on_disk: int
    clips_bytes: int
    clips_decoded: int
    decoded_bytes: int
    samples_ready: int
    ranges_open: int
