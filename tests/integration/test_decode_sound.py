"""The sound of clips whose beeps are at known times."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream

from integration.decode_clips import encode, picture
from reelstream.decode import decode_audio, decode_clip, inspect_clip
from reelstream.types import AudioSampling, Float32Array, FrameSampling

RATE = 16_000
STEP = 1000


def clip_with_beeps(
    beeps_s: Sequence[float],
    *,
    sound_s: tuple[float, float] = (0, 3),
    video_s: tuple[float, float] = (0, 3),
    silent_s: tuple[float, float] = (0, 0),
    container: str = "matroska",
    codec: str = "pcm_s16le",
    rate: int = RATE,
    layout: str = "mono",
) -> bytes:
    """Return a clip that beeps for a tenth of a second at each of `beeps_s` of its own clock.

    Args:
        beeps_s: When.
        sound_s: From when to when sound was recorded.
        video_s: From when to when frames were.
        silent_s: From when to when no sound was, in the middle.
        container: Of the clip.
        codec: Of the sound.
        rate: Of the sound.
        layout: Of the sound; the second channel is half as loud.
    """
    memory = io.BytesIO()
    with av.open(memory, "w", format=container) as output:
        assert isinstance(output, OutputContainer)
        # Of H.264 in AVI nobody knows when the first frame is shown: FFmpeg guesses a frame's time too late.
        video_codec, options = ("mpeg4", {}) if container == "avi" else ("libx264", {"x264-params": "log-level=none"})
        video = output.add_stream(video_codec, rate=12, options=options)
        assert isinstance(video, VideoStream)
        video.width, video.height, video.pix_fmt = 128, 64, "yuv420p"
        audio = output.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(audio, AudioStream)
        for number in range(round(video_s[0] * 12), round(video_s[1] * 12)):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 12)
            output.mux(video.encode(frame))
        for first in range(round(sound_s[0] * rate), round(sound_s[1] * rate), STEP):
            if silent_s[0] <= first / rate < silent_s[1]:
                continue
            output.mux(audio.encode(_sound(first, beeps_s, rate, layout)))
        output.mux(video.encode(None))
        output.mux(audio.encode(None))
    return memory.getvalue()


def _sound(first: int, beeps_s: Sequence[float], rate: int, layout: str) -> av.AudioFrame:
    time_s = (np.arange(STEP) + first) / rate
    is_on = np.zeros(STEP, dtype=bool)
    for beep_s in beeps_s:
        is_on |= (time_s >= beep_s) & (time_s < beep_s + 0.1)
    wave = np.where(is_on, 0.5 * np.sin(2 * np.pi * 1000 * time_s), 0)
    channels = np.stack([wave, wave / 2]) if layout == "stereo" else wave[np.newaxis]
    packed = (channels.T.reshape(1, -1) * 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
    return frame


def heard(content: bytes | Path, **how: object) -> Float32Array:
    facts = inspect_clip(content)
    sampling = AudioSampling(**how)  # type: ignore[arg-type]
    return decode_audio(content, sampling, start=facts.start, duration=facts.duration)


def beeps_in(samples: Float32Array, rate: int = RATE) -> list[float]:
    """Return when beeps begin, in seconds."""
    loud = np.flatnonzero(np.abs(samples) > 0.1)
    return [float(place) / rate for place in loud[np.flatnonzero(np.diff(loud, prepend=-rate) > rate // 20)]]


@pytest.mark.parametrize(("container", "codec"), [("matroska", "pcm_s16le"), ("mp4", "aac"), ("avi", "pcm_s16le")])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_sound_is_resampled_and_in_step_with_the_frames(container: str, codec: str, rate: int) -> None:
    content = clip_with_beeps([0.5, 2.25], container=container, codec=codec, rate=rate)
    samples = heard(content)
    assert samples.dtype == np.float32
    assert samples.shape == (3 * RATE,)
    assert beeps_in(samples) == pytest.approx([0.5, 2.25], abs=0.005)
    assert float(np.abs(samples).max()) == pytest.approx(0.5, abs=0.1)


def test_frames_and_packets_name_the_same_beginning() -> None:
    content = clip_with_beeps([1], video_s=(1, 3))
    decoded, facts = decode_clip(content, FrameSampling()), inspect_clip(content)
    assert (decoded.start, decoded.duration) == (facts.start, facts.duration)


def test_sound_counts_from_the_first_frame_and_ends_with_the_last() -> None:
    samples = heard(clip_with_beeps([0.25, 1.5, 2.5], video_s=(1, 2), sound_s=(0, 3)))
    assert samples.shape == (RATE,)
    assert beeps_in(samples) == pytest.approx([0.5], abs=0.005)


def test_before_sound_that_begins_late_there_is_silence_and_after_it_nothing() -> None:
    samples = heard(clip_with_beeps([1.25], sound_s=(1, 2)))
    assert len(samples) == pytest.approx(2 * RATE, abs=STEP)
    assert not samples[: int(0.99 * RATE)].any()
    assert beeps_in(samples) == pytest.approx([1.25], abs=0.005)


def test_a_gap_in_the_sound_is_silent_and_shifts_nothing() -> None:
    samples = heard(clip_with_beeps([0.5, 2.5], silent_s=(1, 2)))
    assert len(samples) == 3 * RATE
    assert beeps_in(samples) == pytest.approx([0.5, 2.5], abs=0.005)
    assert not samples[int(1.05 * RATE) : int(1.95 * RATE)].any()


def test_another_rate_gives_as_many_samples_of_the_same_sound() -> None:
    samples = heard(clip_with_beeps([1.0]), sampling_rate=24_000)
    assert samples.shape == (72_000,)
    assert beeps_in(samples, 24_000) == pytest.approx([1.0], abs=0.005)


def test_channels_stay_apart_where_they_are_not_mixed() -> None:
    content = clip_with_beeps([1.0], layout="stereo")
    apart, mixed = heard(content, mono=False), heard(content)
    assert apart.shape == (2, 3 * RATE)
    assert mixed.shape == (3 * RATE,)
    loud, half = np.abs(apart).max(axis=1)
    assert float(half) == pytest.approx(float(loud) / 2, rel=0.05)
    assert heard(clip_with_beeps([1.0]), mono=False).shape == (1, 3 * RATE)


def test_a_clip_without_sound_gives_no_samples(tmp_path: Path) -> None:
    encode(tmp_path / "clip")
    assert heard(tmp_path / "clip").shape == (0,)
    assert heard(tmp_path / "clip", mono=False).shape == (0, 0)


def test_no_bytes_are_bad_for_their_sound() -> None:
    for content in (b"", b"no clip at all" * 100, np.random.default_rng(0).bytes(20_000)):
        assert decode_audio(content, AudioSampling(), start=0, duration=10).shape == (0,)


def test_of_a_clip_that_is_cut_short_what_there_is_is_heard() -> None:
    content = clip_with_beeps([0.25, 2.75])
    samples = decode_audio(content[: len(content) // 2], AudioSampling(), start=0, duration=3)
    assert 0 < len(samples) < 3 * RATE
    assert beeps_in(samples) == pytest.approx([0.25], abs=0.005)


def test_damage_in_the_sound_stays_where_it_is() -> None:
    content = bytearray(clip_with_beeps([0.25, 2.75], container="mp4", codec="aac"))
    for place in range(len(content) // 2, len(content) // 2 + 200):
        content[place] ^= 0x5A
    samples = heard(bytes(content))
    assert len(samples) == pytest.approx(3 * RATE, abs=RATE // 4)
    assert beeps_in(samples)[-1] == pytest.approx(2.75, abs=0.06)


def test_a_file_and_its_bytes_sound_the_same(tmp_path: Path) -> None:
    content = clip_with_beeps([0.5])
    (tmp_path / "clip").write_bytes(content)
    assert np.array_equal(heard(tmp_path / "clip"), heard(content))


@pytest.mark.parametrize("sampling_rate", [0, 999, 1_000_000])
def test_a_rate_that_no_sound_has_is_refused(sampling_rate: int) -> None:
    with pytest.raises(ValueError, match="sampling_rate"):
        AudioSampling(sampling_rate=sampling_rate)
