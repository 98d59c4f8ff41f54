from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reelstream.decode.geometry import frame_shape
from reelstream.decode.plan import Keyframe, Timeline, choose_frames, group_by_keyframe, wanted_times
from reelstream.types import FrameSampling

samplings = st.builds(FrameSampling, fps=st.floats(0.01, 120), max_frames=st.integers(1, 64), size=st.integers(2, 1024))


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    shown = sorted(draw(st.sets(st.integers(-(10**6), 10**6), min_size=1, max_size=60)))
    keyframes = sorted(draw(st.sets(st.sampled_from(shown), min_size=1)))
    return Timeline(
        shown=np.array(shown, dtype=np.int64),
        end=shown[-1] + draw(st.integers(1, 10**5)),
        time_base=Fraction(1, draw(st.sampled_from([1, 25, 1000, 12800, 90000]))),
        keyframes=tuple(Keyframe(pts=pts, dts=pts - 1) for pts in keyframes),
    )


@given(timelines(), samplings)
def test_the_frames_chosen_are_those_on_screen_at_the_wanted_times(clip: Timeline, sampling: FrameSampling) -> None:
    indices = choose_frames(clip, sampling).tolist()
    times = wanted_times(clip, sampling)
    assert 1 <= len(indices) <= len(times) <= sampling.max_frames
    assert indices == sorted(set(indices))
    assert indices[0] == 0
    shown_s = [Fraction(int(pts - clip.shown[0])) * clip.time_base for pts in clip.shown]
    on_screen = {max(index for index, start in enumerate(shown_s) if start <= moment) for moment in times}
    assert indices == sorted(on_screen)


@given(timelines(), samplings)
def test_wanted_times_are_even_and_inside_the_clip(clip: Timeline, sampling: FrameSampling) -> None:
    times = wanted_times(clip, sampling)
    assert times[0] == 0
    assert times[-1] < clip.duration
    assert len({later - earlier for earlier, later in itertools.pairwise(times)}) <= 1


@given(timelines(), samplings)
def test_each_wanted_frame_is_in_one_group_entered_at_the_last_keyframe_not_after_it(
    clip: Timeline, sampling: FrameSampling
) -> None:
    indices = choose_frames(clip, sampling)
    groups = group_by_keyframe(clip, indices)
    assert [pts for group in groups for pts in group.wanted] == clip.shown[indices].tolist()
    assert len({group.keyframe for group in groups}) == len(groups)
    for group in groups:
        starts = [keyframe.pts for keyframe in clip.keyframes]
        for pts in group.wanted:
            assert starts[group.keyframe] <= pts or group.keyframe == 0
            assert all(not starts[group.keyframe] < start <= pts for start in starts)


@given(
    st.integers(1, 8000),
    st.integers(1, 8000),
    st.fractions(Fraction(1, 4), Fraction(4)),
    st.integers(0, 3),
    st.integers(2, 2048),
)
def test_frames_fit_the_size_with_even_sides_and_nearly_their_aspect(
    width: int, height: int, pixel_aspect: Fraction, turns: int, size: int
) -> None:
    shape = frame_shape(width, height, pixel_aspect=pixel_aspect, turns=turns, size=size)
    assert shape.width % 2 == shape.height % 2 == 0
    assert 2 <= max(shape.width, shape.height) <= size
    shown = float(max(width * pixel_aspect, Fraction(height)))
    assert max(shape.width, shape.height) <= max(2, shown)
    exact_width, exact_height = float(width * pixel_aspect), float(height)
    scale = max(shape.scaled_width, shape.scaled_height) / shown
    assert shape.scaled_width == 2 or abs(shape.scaled_width - exact_width * scale) <= 1.001
    assert shape.scaled_height == 2 or abs(shape.scaled_height - exact_height * scale) <= 1.001
