"""What is taken of a clip on disk, as asked for: frames, bytes, sound, or no more than the word that it is good."""

from __future__ import annotations

from pathlib import Path

from reelstream.decode import decode_audio, inspect_clip
from reelstream.errors import DecodeError, DiskError
from reelstream.prefetch.values import Decode, PipelineOptions
from reelstream.types import ClipMedia, DecodedClip, VideoFacts

# Sound is as long as its clip, which nobody knows before: three minutes in two channels are assumed of one that is
# still to be decoded, and counted as they are once it is.
_ASSUMED_AUDIO_S = 180.0
_ASSUMED_CHANNELS = 2


def load_media(path: Path, options: PipelineOptions, decode: Decode) -> ClipMedia:
    """Return what samples hold of a clip, and look at it as `options.check` says where that is no frames.

    Args:
        path: The clip's file.
        options: What is asked for.
        decode: Gives its frames.

    Raises:
        DecodeError: Where it is bad, or ends well before the duration that it names.
        DiskError: Where the file cannot be read.
    """
    decoded = decode(path, options.frames) if options.media == "frames" or options.check == "decode" else None
    facts = _facts(path, options, decoded)
    if facts is not None and facts.truncated:
        raise DecodeError("cut short: its frames end well before the duration that it names")
    audio = None
    if options.audio is not None and facts is not None:
        audio = decode_audio(path, options.audio, start=facts.start, duration=facts.duration)
    return ClipMedia(
        decoded=decoded if options.media == "frames" else None,
        content=_content(path) if options.media == "bytes" else None,
        audio=audio,
        fps=None if facts is None else facts.fps,
        duration=None if facts is None else facts.duration,
    )


def expected_bytes(clip_bytes: int, options: PipelineOptions) -> int:
    """Return how much memory a clip of this size on disk is expected to take once it is loaded.

    The most that it can take, but for sound of more than three minutes.
    """
    audio_bytes = 0
    if options.audio is not None:
        num_channels = 1 if options.audio.mono else _ASSUMED_CHANNELS
        audio_bytes = round(_ASSUMED_AUDIO_S * options.audio.sampling_rate) * num_channels * 4
    frames_bytes = options.frames.largest_size_bytes if options.media == "frames" else 0
    content_bytes = clip_bytes if options.media == "bytes" else 0
    return frames_bytes + content_bytes + audio_bytes


def _facts(path: Path, options: PipelineOptions, decoded: DecodedClip | None) -> VideoFacts | None:
    if decoded is not None:
        return VideoFacts(fps=decoded.fps, duration=decoded.duration, start=decoded.start, truncated=decoded.truncated)
    return inspect_clip(path) if options.check == "open" else None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DiskError(f"cannot read the clip {path}: {error.strerror}") from error
