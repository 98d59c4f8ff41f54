"""The one door to PyAV for decoding: scans a clip's packets, decodes what the plan asks for, scales it.

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

import contextlib
import io
from array import array
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias, cast

import av
import av.error
import numpy as np
from av.codec.context import CodecContext
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from reelstream.decode.geometry import FrameShape, frame_shape, quarter_turns, upright
from reelstream.decode.plan import Group, Keyframe, Timeline, choose_frames, group_by_keyframe, timeline_end
from reelstream.errors import DecodeError, DiskError
from reelstream.types import DecodedClip, FrameSampling, Int64Array, UInt8Array

VideoPacket: TypeAlias = "Packet[VideoStream]"

# Playlists and the like are left out: a clip must not make FFmpeg open other files or addresses.
_CONTAINERS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,ivf,mxf,nut,rm,dv,h264,hevc,obu,m4v,mjpeg,yuv4mpegpipe"
)
_OPEN_OPTIONS: dict[str, Any] = {"mode": "r", "container_options": {"format_whitelist": _CONTAINERS}}
if int(av.__version__.split(".")[0]) < 19:
    # Without it a tag that is not UTF-8 raises; later versions have dropped the argument and the error.
    _OPEN_OPTIONS["metadata_errors"] = "ignore"

# They store no times of showing; FFmpeg fills them in, in the order of decoding: wrong where frames refer ahead.
_CONTAINERS_WITHOUT_TIMES = {"avi"}

# FFmpeg names a duration of them all the same: a guess from the times at the file's end.
_CONTAINERS_WITHOUT_DURATION = {"mpegts", "mpeg"}

# Their packets may hold frames that are never shown, which only the decoder knows.
_CODECS_WITH_HIDDEN_PACKETS = {"vp8"}

# Where a stream names no rate: what FFmpeg assumes of raw video.
_USUAL_RATE = Fraction(25)

# A header is believed to within this much before the clip counts as cut short.
_TRUNCATED_BELOW = Fraction(9, 10)
# Headers of clips of few frames are off by a frame or two, which is no loss of data.
_LEAST_TRUNCATED_S = Fraction(1, 2)


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
    _refuse_empty(source)
    try:
        decoded = _decode_by_plan(source, sampling, skip_non_reference=skip_non_reference)
        return decoded or _decode_linearly(source, sampling)
    except (av.error.FFmpegError, UnicodeError) as error:
        raise DecodeError(f"cannot be decoded: {_reason(error)}") from error


def _refuse_empty(source: Path | bytes) -> None:
    if isinstance(source, bytes):
        size_bytes = len(source)
    else:
        try:
            # Opened, not only looked up: PyAV's error for a file that may not be read is that of a bad video.
            with source.open("rb") as file:
                size_bytes = file.seek(0, io.SEEK_END)
        except OSError as error:
            raise DiskError(f"cannot read the clip {source}: {error.strerror}") from error
    if size_bytes == 0:
        raise DecodeError("empty: zero bytes")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


@contextlib.contextmanager
def _opened(source: Path | bytes) -> Iterator[tuple[InputContainer, VideoStream]]:
    try:
        # "file:" lest a colon in a relative path be read as a protocol.
        opened = av.open(io.BytesIO(source) if isinstance(source, bytes) else f"file:{source}", **_OPEN_OPTIONS)
    except (av.error.FFmpegError, UnicodeError) as error:
        raise DecodeError(f"not a video, or cut short before its first frame: {_reason(error)}") from error
    with opened:
        container = cast("InputContainer", opened)
        stream = _video_stream(container)
        # Frame threads would hold packets back, so that skipping would meet the wrong ones.
        stream.codec_context.thread_type = "SLICE"
        stream.codec_context.thread_count = 1
        yield container, stream


def _video_stream(container: InputContainer) -> VideoStream:
    stream = container.streams.best("video")
    # An attached picture is the cover of a sound file.
    if stream is None or stream.disposition & Disposition.attached_pic:
        raise DecodeError("no video stream")
    # Typed as always there; absent where this build of FFmpeg has no decoder for the codec.
    context: CodecContext | None = stream.codec_context
    if context is None:
        raise DecodeError("no decoder for its video stream")
    return cast("VideoStream", stream)


def _decode_by_plan(source: Path | bytes, sampling: FrameSampling, *, skip_non_reference: bool) -> DecodedClip | None:
    """Return the clip with no more decoding than needed, or None where only a linear pass tells the truth."""
    with _opened(source) as (container, stream):
        timeline = _scan(container, stream)
        if timeline is None:
            return None
        indices = choose_frames(timeline, sampling)
        canvas = _Canvas(timeline.shown[indices].tolist(), stream, sampling.size)
        for group in group_by_keyframe(timeline, indices):
            packets = _packets_from(container, stream, timeline.keyframes, group.keyframe)
            _paint_group(packets, group, canvas, stream, skip_non_reference=skip_non_reference)
        if canvas.num_missing:
            return None
        return _decoded_clip(canvas, timeline, indices, truncated=_ends_early(container, stream, timeline))


def _decode_linearly(source: Path | bytes, sampling: FrameSampling) -> DecodedClip:
    """Return the clip by decoding all of it twice: once for the times of its frames, once for the wanted ones.

    Twice, since what is wanted depends on the last frame's time, and memory does not hold all frames.
    """
    with _opened(source) as (container, stream):
        times = [frame.pts for frame in _all_frames(container, stream)]
        if not times:
            raise DecodeError("no frame of its video stream can be decoded")
        timeline = _timeline_of_decoded(times, stream)
        truncated = _ends_early(container, stream, timeline)
    indices = choose_frames(timeline, sampling)
    with _opened(source) as (container, stream):
        canvas = _Canvas(indices.tolist(), stream, sampling.size)
        for index, frame in enumerate(_all_frames(container, stream)):
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
    )


def _readable(packets: Iterable[VideoPacket]) -> Iterator[VideoPacket]:
    """Yield packets up to the place where a damaged or truncated container cannot be read further."""
    with contextlib.suppress(av.error.FFmpegError):
        yield from packets


def _scan(container: InputContainer, stream: VideoStream) -> Timeline | None:
    """Return when each frame is shown, from the packets alone; None where they do not say it of each."""
    if container.format.name in _CONTAINERS_WITHOUT_TIMES or stream.codec_context.name in _CODECS_WITH_HIDDEN_PACKETS:
        return None
    times, keyframes, last_end = array("q"), [], None
    for packet in _readable(container.demux(stream)):
        if not packet.size or packet.is_corrupt:
            continue
        if packet.pts is None:
            return None
        if packet.is_keyframe:
            keyframes.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
        # Pre-roll of an edit list: decoded, never shown; its keyframe is kept.
        if not packet.is_discard:
            times.append(packet.pts)
            last_end = max(last_end or packet.pts, packet.pts + (packet.duration or 0))
    if not times:
        raise DecodeError("no decodable packets in its video stream: cut short before its first frame")
    shown = np.unique(np.frombuffer(times, dtype=np.int64))
    if len(shown) < len(times) or not keyframes or stream.time_base is None:
        return None
    return Timeline(
        shown=shown,
        end=timeline_end(shown, last_end=last_end, usual_frame=_usual_frame(stream, stream.time_base)),
        time_base=stream.time_base,
        keyframes=tuple(Keyframe(pts=pts, dts=dts) for pts, dts in sorted(keyframes)),
    )


def _timeline_of_decoded(times: Sequence[int | None], stream: VideoStream) -> Timeline:
    """Return the timeline of frames as decoded; evenly by the stream's rate where their times are no use."""
    known = np.array([pts for pts in times if pts is not None], dtype=np.int64)
    if len(known) == len(times) and bool(np.all(np.diff(known) > 0)) and stream.time_base is not None:
        end = timeline_end(known, last_end=None, usual_frame=_usual_frame(stream, stream.time_base))
        return Timeline(shown=known, end=end, time_base=stream.time_base)
    return Timeline(shown=np.arange(len(times), dtype=np.int64), end=len(times), time_base=1 / _rate(stream))


def _rate(stream: VideoStream) -> Fraction:
    """Return the frames per second that the stream names: FFmpeg's best guess, since headers hold odd ones."""
    return stream.guessed_rate or stream.average_rate or _USUAL_RATE


def _usual_frame(stream: VideoStream, time_base: Fraction) -> int:
    return max(1, round(1 / (_rate(stream) * time_base)))


def _packets_from(
    container: InputContainer, stream: VideoStream, keyframes: Sequence[Keyframe], number: int
) -> Iterator[VideoPacket]:
    """Yield the packets from a keyframe on, itself first; none where no seek leads there."""
    keyframe = keyframes[number]
    # Containers seek by dts, by pts or by their own cues, and may land late: then aim at the keyframe before.
    for aim in range(number, -1, -1):
        try:
            container.seek(keyframes[aim].dts, stream=stream)
        except av.error.FFmpegError:
            return
        packets = _readable(container.demux(stream))
        for packet in packets:
            if packet.is_keyframe and packet.pts == keyframe.pts:
                yield packet
                yield from packets
                return
            if packet.is_keyframe and packet.pts is not None and packet.pts > keyframe.pts:
                break


def _paint_group(
    packets: Iterable[VideoPacket], group: Group, canvas: _Canvas, stream: VideoStream, *, skip_non_reference: bool
) -> None:
    """Decode one group of pictures up to its last wanted frame."""
    wanted = set(group.wanted)
    for packet in packets:
        needless = skip_non_reference and packet.size > 0 and packet.pts not in wanted and not packet.is_keyframe
        stream.codec_context.skip_frame = "NONREF" if needless else "DEFAULT"
        for frame in _frames_of(packet):
            if frame.pts is None:
                continue
            if frame.pts in wanted:
                canvas.paint(frame.pts, frame)
            # Frames come out in order of time: what has not come by now will not.
            if frame.pts >= group.wanted[-1]:
                return


def _all_frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    for packet in _readable(container.demux(stream)):
        yield from _frames_of(packet)


def _frames_of(packet: VideoPacket) -> list[VideoFrame]:
    try:
        return packet.decode()
    except av.error.FFmpegError:
        # One damaged packet: the frames after it are still good.
        return []


def _ends_early(container: InputContainer, stream: VideoStream, timeline: Timeline) -> bool:
    """Return whether the file ends well before the duration that its header names, where it names one.

    The ends are compared and not the durations, since a stream cut from a longer one may begin with frames that cannot
    be decoded and yet be whole.
    """
    if container.format.name in _CONTAINERS_WITHOUT_DURATION or stream.time_base is None:
        return False
    if stream.duration:
        named_s = stream.duration * stream.time_base
    elif container.duration and all(other.type == "video" for other in container.streams):
        # The container's is that of its longest stream.
        named_s = Fraction(container.duration, av.time_base)
    else:
        return False
    start_s = (stream.start_time or 0) * stream.time_base
    ended_s = max(timeline.duration, timeline.end * timeline.time_base - start_s)
    return ended_s < named_s * _TRUNCATED_BELOW and named_s - ended_s > _LEAST_TRUNCATED_S


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
