"""Whether a clip can be decoded, and what its packets tell, at a small part of the cost of its frames."""

from __future__ import annotations

from pathlib import Path

import av.error

from reelstream.decode.opening import opened_video, reason_of, refuse_empty
from reelstream.decode.packets import all_frames, ends_early, rough_timeline, scan
from reelstream.errors import DecodeError
from reelstream.types import VideoFacts


def inspect_clip(source: Path | bytes) -> VideoFacts:
    """Return what a clip's packets tell of its video, once one frame of it has been decoded.

    All packets are read, which finds a clip that is cut short; damage inside frames other than the first is not found.
    Where the container names no times of showing (AVI), rate and duration are those of its packets.

    Raises:
        DecodeError: The clip is no video, has no frame, or none that can be decoded; as `decode_clip`.
        DiskError: The file is not there, or cannot be read.
    """
    refuse_empty(source)
    try:
        facts = _facts(source)
        with opened_video(source) as (container, stream):
            if next(all_frames(container, stream), None) is None:
                raise DecodeError("no frame of its video stream can be decoded")
    except (av.error.FFmpegError, UnicodeError) as error:
        raise DecodeError(f"cannot be decoded: {reason_of(error)}") from error
    return facts


def _facts(source: Path | bytes) -> VideoFacts:
    with opened_video(source) as (container, stream):
        timeline = scan(container, stream)
        if timeline is not None:
            return VideoFacts(
                fps=timeline.fps,
                duration=float(timeline.duration),
                start=timeline.start,
                truncated=ends_early(container, stream, timeline),
            )
    # Read anew: the packets have passed.
    with opened_video(source) as (container, stream):
        timeline = rough_timeline(container, stream)
        return VideoFacts(
            fps=timeline.fps,
            duration=float(timeline.duration),
            start=timeline.start,
            truncated=ends_early(container, stream, timeline),
        )
