"""Frames through PyAV: scans a clip's packets, decodes what the plan asks for, scales it.

1. *Scan*: read all packets, decode none. They tell the exact time of every frame, and the keyframes.
2. *Plan* (`plan.py`): the frame on screen at each wanted time, grouped by the keyframe that leads to it.
3. *Decode* each group once, up to its last wanted frame. Frames that no other frame refers to are skipped unless they
   are wanted: lossless, and a third of the time. swscale goes straight to the target size.
4. Where the container has no true times (AVI, raw streams), or a wanted frame did not come out (damage), a *linear*
   pass decodes everything: once to learn when each frame is shown, once to take the wanted ones.

The decoder runs in the caller's thread only and releases the GIL; parallelism is over clips. PyAV hands no message of
FFmpeg to anybody unless its log level is set, and nothing here sets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av.error
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from reelstream.decode.geometry import FrameShape, frame_shape, quarter_turns, upright
from reelstream.decode.opening import opened_video, reason_of, refuse_empty
from reelstream.decode.packets import (
    VideoPacket,
    all_frames,
    ends_early,
    frames_of,
    packets_from,
    scan,
    timeline_of_decoded,
)
from reelstream.decode.plan import Group, Timeline, choose_frames, group_by_keyframe
from reelstream.errors import DecodeError
from reelstream.types import DecodedClip, FrameSampling, Int64Array, UInt8Array


def decode_clip(source: Path | bytes, sampling: FrameSampling) -> DecodedClip:
    """Return the sampled frames of a clip: upright, square pixels, longest side `sampling.size` or the source's.

    Which frames: `plan.wanted_times`. Timestamps count from the first shown frame, and are those of the frames
    themselves, not the wanted ones. The result depends on the bytes and `sampling` alone. Memory is bounded by the
    result, the times of the clip's frames (8 bytes each), and a few decoded frames.

    Raises:
        DecodeError: The clip is no video, or nothing of it can be decoded; the fact is the reason alone, the caller
            knows the clip's name.
        DiskError: The file is not there, or cannot be read.
    """
    return decode_with(source, sampling, skip_non_reference=True)


def decode_with(source: Path | bytes, sampling: FrameSampling, *, skip_non_reference: bool) -> DecodedClip:
    """As `decode_clip`; `skip_non_reference=False` decodes frames that nothing needs, to prove that it changes none."""
    refuse_empty(source)
    try:
        decoded = _decode_by_plan(source, sampling, skip_non_reference=skip_non_reference)
        return decoded or _decode_linearly(source, sampling)
    except (av.error.FFmpegError, UnicodeError) as error:
        raise DecodeError(f"cannot be decoded: {reason_of(error)}") from error


def _decode_by_plan(source: Path | bytes, sampling: FrameSampling, *, skip_non_reference: bool) -> DecodedClip | None:
    """Return the clip with no more decoding than needed, or None where only a linear pass tells the truth."""
    with opened_video(source) as (container, stream):
        timeline = scan(container, stream)
        if timeline is None:
            return None
        indices = choose_frames(timeline, sampling)
        canvas = _Canvas(timeline.shown[indices].tolist(), stream, sampling.size)
        for group in group_by_keyframe(timeline, indices):
            packets = packets_from(container, stream, timeline.keyframes, group.keyframe)
            _paint_group(packets, group, canvas, stream, skip_non_reference=skip_non_reference)
        if canvas.num_missing:
            return None
        return _decoded_clip(canvas, timeline, indices, truncated=ends_early(container, stream, timeline))


def _decode_linearly(source: Path | bytes, sampling: FrameSampling) -> DecodedClip:
    """Return the clip by decoding all of it twice: once for the times of its frames, once for the wanted ones.

    Twice, since what is wanted depends on the last frame's time, and memory does not hold all frames.
    """
    with opened_video(source) as (container, stream):
        times = [frame.pts for frame in all_frames(container, stream)]
        if not times:
            raise DecodeError("no frame of its video stream can be decoded")
        timeline = timeline_of_decoded(times, stream)
        truncated = ends_early(container, stream, timeline)
    indices = choose_frames(timeline, sampling)
    with opened_video(source) as (container, stream):
        canvas = _Canvas(indices.tolist(), stream, sampling.size)
        for index, frame in enumerate(all_frames(container, stream)):
            canvas.paint(index, frame)
            if not canvas.num_missing:
                break
    if canvas.num_missing:
        raise DecodeError("its frames differ from one decoding to the next")
    return _decoded_clip(canvas, timeline, indices, truncated=truncated)


def _decoded_clip(canvas: _Canvas, timeline: Timeline, indices: Int64Array, *, truncated: bool) -> DecodedClip:
    return DecodedClip(
        frames=canvas.frames,
        timestamps=timeline.seconds(indices),
        frame_indices=indices,
        fps=timeline.fps,
        duration=float(timeline.duration),
        truncated=truncated,
        start=timeline.start,
    )


def _paint_group(
    packets: Iterable[VideoPacket], group: Group, canvas: _Canvas, stream: VideoStream, *, skip_non_reference: bool
) -> None:
    """Decode one group of pictures up to its last wanted frame."""
    wanted = set(group.wanted)
    for packet in packets:
        needless = skip_non_reference and packet.size > 0 and packet.pts not in wanted and not packet.is_keyframe
        stream.codec_context.skip_frame = "NONREF" if needless else "DEFAULT"
        for frame in frames_of(packet):
            if frame.pts is None:
                continue
            if frame.pts in wanted:
                canvas.paint(frame.pts, frame)
            # Frames come out in order of time: what has not come by now will not.
            if frame.pts >= group.wanted[-1]:
                return


class _Canvas:
    """Scales the wanted frames into one array, whose size the first of them settles.

    Args:
        keys: What names each wanted frame to `paint`, in the order of the result.
        stream: Tells the aspect of a pixel.
        size: Most pixels on the longest side.
    """

    def __init__(self, keys: Sequence[int], stream: VideoStream, size: int) -> None:
        self._places = {key: place for place, key in enumerate(keys)}
        self._num_frames = len(keys)
        self._pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
        self._size = size
        self._reformatter = VideoReformatter()
        self._shape: FrameShape | None = None
        self._frames: UInt8Array | None = None

    @property
    def num_missing(self) -> int:
        """Wanted frames that have not been painted."""
        return len(self._places)

    @property
    def frames(self) -> UInt8Array:
        """RGB, T x 3 x H x W, once none is missing."""
        assert self._frames is not None
        assert not self._places
        return self._frames

    def paint(self, key: int, frame: VideoFrame) -> None:
        """Take `frame` where `key` names a wanted one."""
        place = self._places.pop(key, None)
        if place is None:
            return
        if self._shape is None or self._frames is None:
            self._shape = frame_shape(
                frame.width,
                frame.height,
                pixel_aspect=self._pixel_aspect,
                turns=quarter_turns(frame.rotation),
                size=self._size,
            )
            self._frames = np.empty((self._num_frames, 3, self._shape.height, self._shape.width), dtype=np.uint8)
        scaled = self._reformatter.reformat(
            frame,
            self._shape.scaled_width,
            self._shape.scaled_height,
            "rgb24",
            interpolation="BILINEAR",
            threads=1,
        )
        self._frames[place] = upright(cast("UInt8Array", scaled.to_ndarray()), self._shape.quarter_turns)
