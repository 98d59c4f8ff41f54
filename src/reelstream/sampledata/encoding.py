"""Encodes clips: the one place of the sample dataset that knows PyAV."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.audio.stream import AudioStream
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer
from av.video.stream import VideoStream

from reelstream.cancel import Cancellation
from reelstream.errors import DiskError, ReelstreamError
from reelstream.sampledata.drawing import ClipSpec, FramePainter

_VIDEO_CODEC: Final = "libx264"
# Few samples: sound must be there, and need not be good.
_SAMPLE_RATE = 8_000
_SAMPLES_PER_FRAME = 1024  # an AAC frame


def encode_clip(spec: ClipSpec, *, scratch: Path, cancellation: Cancellation) -> bytes:
    """Return a clip as an mp4 file: H.264 with B-frames, and AAC where it has sound.

    Args:
        spec: What to show, and how.
        scratch: An existing folder; a file lies there for a moment, for clips with their index in front.
        cancellation: Calls the work off between two frames.

    Raises:
        ReelstreamError: Where this machine's PyAV cannot encode H.264.
        DiskError: Where `scratch` cannot be written.
        Cancelled: Where the work was called off.
    """
    try:
        if not spec.with_faststart:
            buffer = io.BytesIO()
            with av.open(buffer, "w", format="mp4") as container:
                _encode_into(container, spec, cancellation)
            return buffer.getvalue()
        # To move the index to the front, the muxer opens its own output again: it needs a real file.
        with tempfile.TemporaryDirectory(dir=scratch, prefix="clip-") as folder:
            path = Path(folder) / "clip.mp4"
            with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
                _encode_into(container, spec, cancellation)
            return path.read_bytes()
    # Before FFmpegError: those of PyAV's errors that are OSErrors, too, come from the file.
    except OSError as error:
        raise DiskError(
            f"{scratch} could not be written: {error}.", "Free some space, or choose another disk."
        ) from error
    except (av.FFmpegError, UnknownCodecError) as error:
        raise ReelstreamError(
            f"A clip of the sample dataset could not be encoded: {error}.",
            "Check that PyAV was installed from its wheel (pip install av), which carries libx264.",
        ) from error


def _encode_into(container: OutputContainer, spec: ClipSpec, cancellation: Cancellation) -> None:
    audio_bps = min(16_000, spec.bit_rate_bps // 5) if spec.with_audio else 0
    video = _add_video(container, spec, spec.bit_rate_bps - audio_bps)
    audio = _add_audio(container, audio_bps) if spec.with_audio else None
    sound = _sound(spec) if spec.with_audio else iter(())
    painter = FramePainter(spec)
    heard_s = 0.0
    for number in range(spec.num_frames):
        cancellation.raise_if_cancelled()
        frame = av.VideoFrame.from_ndarray(painter.paint(number), format="yuv420p")
        frame.pts = number
        frame.time_base = 1 / spec.fps
        container.mux(video.encode(frame))
        # Sound keeps pace, so that the file is interleaved as a recorder would.
        while audio is not None and heard_s < (number + 1) / spec.fps:
            container.mux(audio.encode(next(sound)))
            heard_s += _SAMPLES_PER_FRAME / _SAMPLE_RATE
    container.mux(video.encode(None))
    if audio is not None:
        container.mux(audio.encode(None))


def _add_video(container: OutputContainer, spec: ClipSpec, bit_rate_bps: int) -> VideoStream:
    # ultrafast turns B-frames off; they are asked for, since their order of decoding is what readers must get right.
    options = {"preset": "ultrafast", "bf": "2"}
    stream = container.add_stream(_VIDEO_CODEC, rate=spec.fps, options=options)
    stream.width, stream.height, stream.pix_fmt = spec.width, spec.height, "yuv420p"
    stream.bit_rate = bit_rate_bps
    stream.gop_size = spec.keyframe_interval
    # One thread a clip: the clips themselves are parallel, and the bytes stay the same on any number of cores.
    stream.codec_context.thread_count = 1
    return stream


def _add_audio(container: OutputContainer, bit_rate_bps: int) -> AudioStream:
    # The default coder takes twice as long.
    stream = container.add_stream("aac", rate=_SAMPLE_RATE, layout="mono", options={"aac_coder": "fast"})
    stream.bit_rate = max(8_000, bit_rate_bps)
    return stream


def _sound(spec: ClipSpec) -> Iterator[av.AudioFrame]:
    """Yield a soft tone that wavers, for ever, in AAC frames."""
    pitch_hz = 180 + 20 * (spec.seed % 20)
    first = 0
    while True:
        time_s = (np.arange(_SAMPLES_PER_FRAME) + first) / _SAMPLE_RATE
        wave = 0.2 * np.sin(2 * np.pi * pitch_hz * time_s) * (0.6 + 0.4 * np.sin(2 * np.pi * time_s))
        frame = av.AudioFrame.from_ndarray(wave.astype(np.float32)[np.newaxis], format="fltp", layout="mono")
        frame.sample_rate = _SAMPLE_RATE
        frame.pts = first
        yield frame
        first += _SAMPLES_PER_FRAME
