"""Clips whose every frame shows its number, as eight bars: white is 1, the lowest bit on the left."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

from reelstream.types import DecodedClip, UInt8Array

NUM_BITS = 8
TICKS = 1200
"""Units of time in a second: for clips whose frames come at odd times."""


def picture(number: int, width: int = 128, height: int = 64) -> UInt8Array:
    """Return the frame that shows `number`, H x W x 3."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    bar = width // NUM_BITS
    for bit in range(NUM_BITS):
        image[:, bit * bar : (bit + 1) * bar] = 235 if number >> bit & 1 else 16
    # Motion apart from the number, so that B-frames and references have work to do.
    image[height // 2 :, (number * 3) % width, 1] = 128
    return image


def number_of(frame: UInt8Array) -> int:
    """Return the number that a 3 x H x W frame shows."""
    bars = np.array_split(frame[:, : frame.shape[1] // 2].mean(axis=(0, 1)), NUM_BITS)
    return sum(
        1 << bit for bit, bar in enumerate(bars) if float(bar[len(bar) // 4 : -len(bar) // 4 or None].mean()) > 110
    )


def numbers_of(clip: DecodedClip) -> list[int]:
    return [number_of(frame) for frame in clip.frames]


def encode(
    target: Path | io.BytesIO,
    ticks: Sequence[int] | None = None,
    *,
    num_frames: int = 36,
    fps: int = 12,
    container: str = "mp4",
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    size: tuple[int, int] = (128, 64),
    pixel_aspect: Fraction | None = None,
    rotation: int | None = None,
) -> None:
    """Encode a clip whose frames appear at `ticks` (of 1/1200 s), by default `num_frames` at an even rate."""
    default = {"g": "12", "bf": "3", "preset": "ultrafast", "x264-params": "b-adapt=0:scenecut=0:log-level=none"}
    with av.open(
        str(target) if isinstance(target, Path) else target, "w", format=container, options=container_options or {}
    ) as output:
        stream = output.add_stream(codec, rate=fps, options=default if options is None else options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        # AVI takes the time base for the rate.
        time_base = Fraction(1, TICKS) if ticks is not None else Fraction(1, fps)
        stream.codec_context.time_base = time_base
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for number, tick in enumerate(range(num_frames) if ticks is None else ticks):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame.pts = tick
            frame.time_base = time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def remux(source: Path, target: Path, *, shift_s: Fraction, container: str = "mp4", first_packet: int = 0) -> None:
    """Copy the packets from the `first_packet`-th on, `shift_s` later."""
    with av.open(str(source)) as read, av.open(str(target), "w", format=container) as output:
        stream = output.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(read.demux(read.streams.video[0])):
            if packet.dts is None or packet.pts is None or number < first_packet:
                continue
            shift = int(shift_s / packet.time_base)
            packet.pts += shift
            packet.dts += shift
            packet.stream = stream
            output.mux(packet)


def naive_frames(source: Path, width: int, height: int) -> list[tuple[float, UInt8Array]]:
    """Return every shown frame by plain full decoding: seconds from the first, and its pixels, H x W x 3."""
    with av.open(str(source)) as container:
        assert isinstance(container, InputContainer)
        frames = list(container.decode(video=0))
        return [
            (
                frame.time - frames[0].time,
                frame.reformat(width, height, "rgb24", interpolation="BILINEAR").to_ndarray().astype(np.uint8),
            )
            for frame in frames
        ]


def audio_only(target: Path) -> None:
    """Write a second of silence."""
    with av.open(str(target), "w", format="mp4") as output:
        assert isinstance(output, OutputContainer)
        stream = output.add_stream("aac", rate=16000)
        for start in range(0, 16000, 1000):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1000), dtype=np.int16), format="s16", layout="mono")
            frame.sample_rate = 16000
            frame.pts = start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def seconds(ticks: Iterable[int]) -> list[float]:
    return [tick / TICKS for tick in ticks]
