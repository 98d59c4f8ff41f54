"""A look at a clip without its frames, against decoding them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from integration.decode_clips import audio_only, encode
from reelstream.decode import decode_clip, inspect_clip
from reelstream.errors import DecodeError, DiskError
from reelstream.types import FrameSampling

_FASTSTART = {"movflags": "faststart"}
CLIPS: dict[str, dict[str, Any]] = {
    "mp4": {},
    "mp4 faststart": {"container_options": _FASTSTART},
    "mkv": {"container": "matroska"},
    "mpegts": {"container": "mpegts"},
    "avi": {"container": "avi", "codec": "mpeg4", "options": {}},
    "webm vp8": {"container": "webm", "codec": "libvpx", "options": {"deadline": "realtime"}},
    "variable rate": {"ticks": [0, 100, 150, 400, 900, 1000, 2400, 2500, 3600]},
    "one frame": {"num_frames": 1},
}


def encoded(folder: Path, **how: Any) -> bytes:
    encode(folder / "clip", **how)
    return (folder / "clip").read_bytes()


@pytest.mark.parametrize("kind", CLIPS)
def test_it_tells_what_decoding_tells(kind: str, tmp_path: Path) -> None:
    content = encoded(tmp_path, **CLIPS[kind])
    decoded, facts = decode_clip(content, FrameSampling()), inspect_clip(content)
    assert facts.fps == pytest.approx(decoded.fps, rel=0.03)
    assert facts.duration == pytest.approx(decoded.duration, rel=0.03)
    assert facts.start == pytest.approx(decoded.start)
    assert facts.truncated == decoded.truncated


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda whole: whole,
    "empty": lambda _: b"",
    "text": lambda _: b"The video is not available in your country.\n" * 100,
    "noise": lambda _: np.random.default_rng(0).bytes(50_000),
    "no frame": lambda whole: whole[: whole.index(b"mdat") + 20],
    "half": lambda whole: whole[: len(whole) // 2],
    "nearly whole": lambda whole: whole[: len(whole) * 99 // 100],
    "frames gone": lambda whole: whole[: whole.index(b"mdat") + 4] + bytes(len(whole) - whole.index(b"mdat") - 4),
}


def verdict(look: Callable[[], Any]) -> str:
    try:
        return "cut short" if look().truncated else "good"
    except DecodeError as error:
        return error.fact


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("options", [_FASTSTART, {}], ids=["index first", "index last"])
def test_its_verdict_is_that_of_decoding(damage: str, options: dict[str, str], tmp_path: Path) -> None:
    content = DAMAGE[damage](encoded(tmp_path, num_frames=72, container_options=options))
    assert verdict(lambda: inspect_clip(content)) == verdict(lambda: decode_clip(content, FrameSampling()))


def test_sound_without_video_is_refused(tmp_path: Path) -> None:
    audio_only(tmp_path / "sound.mp4")
    with pytest.raises(DecodeError, match="no video stream"):
        inspect_clip(tmp_path / "sound.mp4")


def test_a_missing_file_is_the_disks_fault(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"nothing\.mp4"):
        inspect_clip(tmp_path / "nothing.mp4")


def test_damage_behind_the_first_frame_is_found_by_decoding_alone(tmp_path: Path) -> None:
    whole = encoded(tmp_path, num_frames=72, container_options=_FASTSTART)
    struck = whole[: len(whole) // 2] + bytes(200) + whole[len(whole) // 2 + 200 :]
    assert not inspect_clip(struck).truncated
    assert decode_clip(struck, FrameSampling()).truncated
