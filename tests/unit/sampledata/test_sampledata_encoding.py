from __future__ import annotations

import io
import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import PictureType

from reelstream.cancel import Cancellation, Cancelled
from reelstream.errors import DiskError, ReelstreamError
from reelstream.sampledata import encoding
from reelstream.sampledata.drawing import ClipSpec, FramePainter, shape_mask
from reelstream.sampledata.encoding import encode_clip
from reelstream.sampledata.scene import COLOURS, DIRECTIONS, SHAPES, Direction, Scene
from unit.sampledata.sampledata_samples import rgb_frame, small_spec


def _encode(spec: ClipSpec, folder: Path) -> bytes:
    return encode_clip(spec, scratch=folder, cancellation=Cancellation())


def _brightest(frame: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Return x and y of the centre of what is bright outside the number's corner, from 0 to 1."""
    light = frame.max(axis=2).astype(np.float64)
    light[: light.shape[0] // 4, : light.shape[1] // 4] = 0
    light[light < 130] = 0
    rows, columns = np.indices(light.shape)
    return float((columns * light).sum() / light.sum() / 32), float((rows * light).sum() / light.sum() / 32)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_motion_is_plain_in_four_frames_of_32_pixels(direction: Direction, tmp_path: Path) -> None:
    for seed, (colour, shape) in enumerate(itertools.islice(zip(COLOURS, itertools.cycle(SHAPES)), 8)):
        scene = Scene(shape=shape, colour=colour, count=1, direction=direction)
        content = _encode(small_spec(scene, seed=seed, bit_rate_bps=60_000), tmp_path)
        with av.open(io.BytesIO(content), "r") as container:
            frames = [rgb_frame(frame, 32, 32) for frame in container.decode(video=0)]
        centres = np.array([_brightest(frames[index]) for index in (0, 8, 15, 23)])
        along, across = (0, 1) if direction in {"left", "right"} else (1, 0)
        sign = 1 if direction in {"right", "down"} else -1
        steps = np.diff(centres[:, along]) * sign
        assert (steps > 0.08).all(), (scene, centres)
        assert np.ptp(centres[:, across]) < 0.12, (scene, centres)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("direction", ["left", "down"])
def test_as_many_shapes_are_drawn_as_the_scene_has(count: int, direction: Direction) -> None:
    scene = Scene(shape="square", colour="white", count=count, direction=direction)
    painter = FramePainter(small_spec(scene, num_frames=3))
    luma = painter.paint(1)[:240]
    # A line through all of them, in the middle of their way.
    line = (luma[:, 160] if direction == "left" else luma[120]) > 200
    assert int((np.diff(line.astype(int)) == 1).sum()) == count


def test_shapes_are_large_and_differ() -> None:
    masks = {shape: shape_mask(shape, 64) for shape in SHAPES}
    assert all(mask.mean() > 0.35 for mask in masks.values())
    for one, other in itertools.combinations(masks.values(), 2):
        assert (one != other).mean() > 0.1


def test_clips_are_h264_with_b_frames_and_true_timestamps(tmp_path: Path) -> None:
    spec = small_spec(fps=Fraction(12000, 1001), num_frames=40, keyframe_interval=16)
    with av.open(io.BytesIO(_encode(spec, tmp_path)), "r") as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == spec.fps
        assert not container.streams.audio
    assert {PictureType(frame.pict_type).name for frame in frames} == {"I", "P", "B"}
    assert [frame.time for frame in frames] == pytest.approx([number * 1.001 / 12 for number in range(40)], abs=1e-4)
    assert [number for number, frame in enumerate(frames) if frame.key_frame][1] <= 16


def test_sound_lasts_as_long_as_the_picture(tmp_path: Path) -> None:
    spec = small_spec(with_audio=True, num_frames=36)
    with av.open(io.BytesIO(_encode(spec, tmp_path)), "r") as container:
        audio = container.streams.audio[0]
        assert audio.codec_context.name == "aac"
        assert sum(
            frame.samples for frame in container.decode(audio)
        ) / audio.codec_context.sample_rate == pytest.approx(3, abs=0.15)


def test_the_index_lies_where_the_spec_says(tmp_path: Path) -> None:
    for with_faststart in (True, False):
        content = _encode(small_spec(with_faststart=with_faststart), tmp_path)
        assert (content.index(b"moov") < content.index(b"mdat")) == with_faststart
    assert not list(tmp_path.iterdir())


def test_size_follows_the_bit_rate(tmp_path: Path) -> None:
    for bit_rate_bps in (60_000, 240_000):
        spec = small_spec(bit_rate_bps=bit_rate_bps, num_frames=72)
        size_bytes = len(_encode(spec, tmp_path))
        assert size_bytes * 8 / spec.duration_s == pytest.approx(bit_rate_bps, rel=0.2)


def test_equal_specs_give_equal_bytes_and_other_seeds_other_pictures(tmp_path: Path) -> None:
    spec = small_spec(with_audio=True, with_faststart=True)
    assert _encode(spec, tmp_path) == _encode(spec, tmp_path)
    assert _encode(small_spec(seed=6), tmp_path) != _encode(small_spec(seed=7), tmp_path)


def test_encoding_ends_when_it_is_called_off(tmp_path: Path) -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Cancelled):
        encode_clip(small_spec(with_faststart=True), scratch=tmp_path, cancellation=cancellation)
    assert not list(tmp_path.iterdir())


# The second takes other pixels only.
@pytest.mark.parametrize("codec", ["no_such_codec", "mjpeg"])
def test_a_machine_that_cannot_encode_is_told_what_to_do(
    codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "_VIDEO_CODEC", codec)
    with pytest.raises(ReelstreamError, match="could not be encoded") as raised:
        _encode(small_spec(), tmp_path)
    assert "pip install av" in raised.value.hint


def test_a_scratch_folder_that_is_gone_is_a_disk_error(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="could not be written"):
        _encode(small_spec(with_faststart=True), tmp_path / "gone")
