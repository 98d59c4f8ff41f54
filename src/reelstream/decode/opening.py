"""How a clip is opened: never anything but itself, and foreign errors end here."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import av
import av.error
from av.codec.context import CodecContext
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from reelstream.errors import DecodeError, DiskError

# Playlists and the like are left out: a clip must not make FFmpeg open other files or addresses.
_CONTAINERS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,ivf,mxf,nut,rm,dv,h264,hevc,obu,m4v,mjpeg,yuv4mpegpipe"
)
_OPEN_OPTIONS: dict[str, Any] = {"mode": "r", "container_options": {"format_whitelist": _CONTAINERS}}
if int(av.__version__.split(".")[0]) < 19:
    # Without it a tag that is not UTF-8 raises; later versions have dropped the argument and the error.
    _OPEN_OPTIONS["metadata_errors"] = "ignore"


def refuse_empty(source: Path | bytes) -> None:
    """Refuse a clip of no bytes.

    Raises:
        DecodeError: Where it has none.
        DiskError: The file is not there, or cannot be read.
    """
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


def reason_of(error: Exception) -> str:
    """Return FFmpeg's own words, without the file's name."""
    return getattr(error, "strerror", None) or str(error)


@contextlib.contextmanager
def opened(source: Path | bytes) -> Iterator[InputContainer]:
    """Open a clip's container.

    Raises:
        DecodeError: Where it is none.
    """
    try:
        # "file:" lest a colon in a relative path be read as a protocol.
        container = av.open(io.BytesIO(source) if isinstance(source, bytes) else f"file:{source}", **_OPEN_OPTIONS)
    except (av.error.FFmpegError, UnicodeError) as error:
        raise DecodeError(f"not a video, or cut short before its first frame: {reason_of(error)}") from error
    with container:
        yield cast("InputContainer", container)


@contextlib.contextmanager
def opened_video(source: Path | bytes) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a clip and its video stream.

    Raises:
        DecodeError: Where there is none, or nothing that can decode it.
    """
    with opened(source) as container:
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
