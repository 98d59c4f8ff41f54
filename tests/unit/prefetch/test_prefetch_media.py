from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from integration.decode_clips import encode
from reelstream.decode import decode_clip
from reelstream.errors import DecodeError, DiskError
from reelstream.prefetch.media import expected_bytes, load_media
from reelstream.prefetch.values import PipelineOptions
from reelstream.types import AudioSampling, DecodedClip, FrameSampling

FRAMES = FrameSampling(max_frames=4, size=64)


def options(**changes: Any) -> PipelineOptions:
    return PipelineOptions(
        **{
            "frames": FRAMES,
            "decode_threads": 1,
            "decoded_memory_bytes": 0,
            "connections": 1,
            "max_bad_share": 1.0,
            "stop_on_bad_archive": True,
            **changes,
        }
    )


def never(path: Path, sampling: FrameSampling) -> DecodedClip:
    raise AssertionError("a clip was decoded that nobody asked for the frames of")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    encode(tmp_path / "clip", container_options={"movflags": "faststart"})
    return tmp_path / "clip"


def test_frames_are_decoded_once_and_nothing_else_is_taken(clip: Path) -> None:
    media = load_media(clip, options(), decode_clip)
    assert media.decoded is not None
    assert (media.content, media.audio) == (None, None)
    assert media.size_bytes == media.decoded.frames.nbytes
    assert (media.fps, media.duration) == (12, 3)


@pytest.mark.parametrize("check", ["open", "none"])
def test_bytes_and_paths_cost_no_decoding(clip: Path, check: str) -> None:
    as_bytes = load_media(clip, options(media="bytes", check=check), never)
    assert as_bytes.content == clip.read_bytes()
    assert as_bytes.size_bytes == clip.stat().st_size
    as_path = load_media(clip, options(media="path", check=check), never)
    assert (as_path.content, as_path.decoded, as_path.size_bytes) == (None, None, 0)
    assert (as_path.fps is None) == (check == "none")


def test_a_decoding_check_takes_no_memory_for_the_frames(clip: Path) -> None:
    media = load_media(clip, options(media="path", check="decode"), decode_clip)
    assert media.decoded is None
    assert media.size_bytes == 0


@pytest.mark.parametrize("media", ["frames", "bytes", "path"])
@pytest.mark.parametrize("check", ["open", "decode"])
def test_clips_that_are_cut_short_or_no_clips_are_bad_in_every_mode(clip: Path, media: str, check: str) -> None:
    whole = clip.read_bytes()
    for content, reason in ((whole[: len(whole) // 2], "cut short"), (b"", "empty"), (b"x" * 5000, "not a video")):
        clip.write_bytes(content)
        with pytest.raises(DecodeError, match=reason):
            load_media(clip, options(media=media, check=check), decode_clip)


def test_a_clip_without_sound_has_sound_of_no_length(clip: Path) -> None:
    media = load_media(clip, options(media="path", audio=AudioSampling()), never)
    assert media.audio is not None
    assert media.audio.shape == (0,)
    assert media.audio.dtype == np.float32


def test_a_file_that_is_gone_is_the_disks_fault(tmp_path: Path) -> None:
    with pytest.raises(DiskError):
        load_media(tmp_path / "nothing", options(media="bytes", check="none"), never)


def test_what_is_expected_covers_what_comes(clip: Path) -> None:
    size_bytes = clip.stat().st_size
    for changes in ({}, {"media": "bytes"}, {"media": "path"}, {"media": "bytes", "audio": AudioSampling(mono=False)}):
        wanted = options(**changes)
        assert load_media(clip, wanted, decode_clip).size_bytes <= expected_bytes(size_bytes, wanted)
    assert expected_bytes(size_bytes, options(media="path")) == 0
    assert expected_bytes(size_bytes, options(media="bytes")) == size_bytes
    assert expected_bytes(size_bytes, options()) == FRAMES.largest_size_bytes
