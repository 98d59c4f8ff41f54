"""What a clip's packets tell, and the frames that come out of them, over all damage that can be passed over."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import TypeAlias, TypeVar

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from reelstream.decode.plan import Keyframe, Timeline, timeline_end
from reelstream.errors import DecodeError

VideoPacket: TypeAlias = "Packet[VideoStream]"

_Item = TypeVar("_Item")

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


def readable(packets: Iterable[_Item]) -> Iterator[_Item]:
    """Yield packets up to the place where a damaged or truncated container cannot be read further."""
    with contextlib.suppress(av.error.FFmpegError):
        yield from packets


def scan(container: InputContainer, stream: VideoStream) -> Timeline | None:
    """Return when each frame is shown, from the packets alone; None where they do not say it of each."""
    if container.format.name in _CONTAINERS_WITHOUT_TIMES or stream.codec_context.name in _CODECS_WITH_HIDDEN_PACKETS:
        return None
    times, keyframes, last_end = array("q"), [], None
    for packet in readable(container.demux(stream)):
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


def timeline_of_decoded(times: Sequence[int | None], stream: VideoStream) -> Timeline:
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


def packets_from(
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
        packets = readable(container.demux(stream))
        for packet in packets:
            if packet.is_keyframe and packet.pts == keyframe.pts:
                yield packet
                yield from packets
                return
            if packet.is_keyframe and packet.pts is not None and packet.pts > keyframe.pts:
                break


def rough_timeline(container: InputContainer, stream: VideoStream) -> Timeline:
    """Return about when frames are shown, from packets that do not say it of each: by when they are decoded.

    Raises:
        DecodeError: Where there is no packet.
    """
    packets = [packet for packet in readable(container.demux(stream)) if packet.size and not packet.is_corrupt]
    if not packets:
        raise DecodeError("no decodable packets in its video stream: cut short before its first frame")
    times = [packet.dts if packet.pts is None else packet.pts for packet in packets if not packet.is_discard]
    return timeline_of_decoded(sorted({time for time in times if time is not None}) or [None], stream)


def all_frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Yield what can be decoded, in order of time."""
    for packet in readable(container.demux(stream)):
        yield from frames_of(packet)


def frames_of(packet: VideoPacket) -> list[VideoFrame]:
    """Return the frames that come out with a packet: none where it is damaged."""
    try:
        return packet.decode()
    except av.error.FFmpegError:
        # One damaged packet: the frames after it are still good.
        return []


def ends_early(container: InputContainer, stream: VideoStream, timeline: Timeline) -> bool:
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
