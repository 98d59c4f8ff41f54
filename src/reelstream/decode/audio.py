"""The sound of a clip, timed by its frames: resampled, mixed, and silent where nothing was recorded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.codec.context import CodecContext
from av.container import InputContainer

from reelstream.decode.opening import opened
from reelstream.decode.packets import readable
from reelstream.errors import DecodeError
from reelstream.types import AudioSampling, Float32Array

# Containers store rounded times (Matroska: whole milliseconds): what is off by less follows without a gap.
_TOLERANCE_S = 0.05
# Times that lie are no reason to take all memory for silence: of the first hours alone sound is taken.
_LONGEST_S = 4 * 3600.0


def decode_audio(source: Path | bytes, sampling: AudioSampling, *, start: float, duration: float) -> Float32Array:
    """Return the sound from a clip's first frame to its last one's end.

    The first sample is heard as the first frame is shown: what was recorded before is left out, and silence stands
    where the sound begins later, or has a gap. It ends with the video, or before where the sound does. Damaged packets
    are silent. No clip is bad for its sound.

    Args:
        source: The clip.
        sampling: Rate and channels.
        start: Seconds on the clip's own clock at which its first frame is shown.
        duration: Seconds until the last frame's end.

    Returns:
        Samples from -1 to 1, of shape (N,) if mono, else (channels, N). N is 0 where there is no sound that can be
        decoded, and the channels are 0 then too.
    """
    track = _Track(sampling, start=start, duration=duration)
    # ValueError: PyAV's own refusals, and tags that are no text.
    with contextlib.suppress(DecodeError, av.error.FFmpegError, ValueError), opened(source) as container:
        for frame in _frames(container):
            track.add(frame)
            if track.is_full:
                break
    return track.samples()


def _frames(container: InputContainer) -> Iterator[AudioFrame]:
    found = container.streams.best("audio")
    if found is None:
        return
    stream = cast("AudioStream", found)
    # Typed as always there; absent where this build of FFmpeg has no decoder for the codec.
    context: CodecContext | None = stream.codec_context
    if context is None:
        return
    context.thread_count = 1
    for packet in readable(container.demux(stream)):
        with contextlib.suppress(av.error.FFmpegError):
            yield from packet.decode()


class _Track:
    """Puts resampled frames where they belong."""

    def __init__(self, sampling: AudioSampling, *, start: float, duration: float) -> None:
        self._rate = sampling.sampling_rate
        self._layout = "mono" if sampling.mono else None
        self._mono = sampling.mono
        self._start = start
        self._num_wanted = round(min(duration, _LONGEST_S) * self._rate)
        self._resampler: AudioResampler | None = None
        self._of: tuple[object, ...] = ()
        self._heard_until = 0.0
        self._pieces: list[Float32Array] = []
        self._num_samples = 0
        self._num_heard = 0
        self._num_to_skip = 0

    @property
    def is_full(self) -> bool:
        """Whether the video's end is reached."""
        return self._num_samples >= self._num_wanted

    def add(self, frame: AudioFrame) -> None:
        """Take the next frame."""
        frame_s = frame.samples / frame.sample_rate
        begins_s = self._heard_until if frame.time is None else frame.time - self._start
        setup = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._resampler is None or setup != self._of or abs(begins_s - self._heard_until) > _TOLERANCE_S:
            self._begin(begins_s, frame)
            self._of, self._heard_until = setup, begins_s
        # Counted in samples: small errors of the times must not add up unseen.
        self._heard_until += frame_s
        # Its times are kept here; those of a stream that jumps would have the resampler do so too.
        frame.pts = None
        assert self._resampler is not None
        for piece in self._resampler.resample(frame):
            self._append(piece)

    def samples(self) -> Float32Array:
        """Return what there is."""
        with contextlib.suppress(av.error.FFmpegError):
            self._flush()
        if not self._num_heard:
            return np.zeros((0,) if self._mono else (0, 0), dtype=np.float32)
        joined = np.concatenate(self._pieces, axis=1)[:, : self._num_wanted]
        return np.ascontiguousarray(joined[0] if self._mono else joined)

    def _begin(self, begins_s: float, frame: AudioFrame) -> None:
        """Begin a stretch of sound: silence before it, or so much of it skipped as came before."""
        self._flush()
        # A stream whose channels change keeps those that it began with.
        self._layout = self._layout or frame.layout.name
        self._resampler = AudioResampler(format="fltp", layout=self._layout, rate=self._rate)
        place = round(min(max(begins_s, -_LONGEST_S), _LONGEST_S) * self._rate)
        self._num_to_skip = max(0, self._num_samples - place)
        num_silent = min(place, self._num_wanted) - self._num_samples
        if num_silent > 0:
            channels = 1 if self._mono else len(av.AudioLayout(self._layout).channels)
            self._pieces.append(np.zeros((channels, num_silent), dtype=np.float32))
            self._num_samples += num_silent

    def _flush(self) -> None:
        resampler, self._resampler = self._resampler, None
        if resampler is not None:
            for piece in resampler.resample(None):
                self._append(piece)

    def _append(self, frame: AudioFrame) -> None:
        piece = cast("Float32Array", frame.to_ndarray())[:, self._num_to_skip :]
        self._num_to_skip = max(0, self._num_to_skip - frame.samples)
        if piece.shape[1] and not self.is_full:
            self._pieces.append(piece)
            self._num_samples += piece.shape[1]
            self._num_heard += piece.shape[1]
