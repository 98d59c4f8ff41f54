from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from reelstream.decode.plan import Keyframe, Timeline, choose_frames, group_by_keyframe, timeline_end, wanted_times
from reelstream.types import FrameSampling


def timeline(
    *shown: int, end: int, time_base: Fraction = Fraction(1, 100), keyframes: tuple[int, ...] = ()
) -> Timeline:
    return Timeline(
        shown=np.array(shown, dtype=np.int64),
        end=end,
        time_base=time_base,
        keyframes=tuple(Keyframe(pts=pts, dts=pts) for pts in keyframes),
    )


def even(num_frames: int, fps: int = 25) -> Timeline:
    return timeline(*range(num_frames), end=num_frames, time_base=Fraction(1, fps))


def chosen(clip: Timeline, fps: float, max_frames: int) -> list[int]:
    return list(choose_frames(clip, FrameSampling(fps=fps, max_frames=max_frames)).tolist())


def test_one_frame_a_second_is_taken_as_long_as_the_clip_lasts() -> None:
    assert chosen(even(100), 1.0, 32) == [0, 25, 50, 75]
    assert chosen(even(101), 1.0, 32) == [0, 25, 50, 75, 100]


@pytest.mark.parametrize("num_frames", [801, 1000, 7000])
@pytest.mark.parametrize("max_frames", [8, 32, 64])
def test_a_longer_clip_is_sampled_as_llava_next_does(num_frames: int, max_frames: int) -> None:
    linspace = np.linspace(0, num_frames - 1, max_frames, dtype=int)
    if num_frames / 25 > max_frames:
        assert chosen(even(num_frames), 1.0, max_frames) == linspace.tolist()


def test_a_decimal_rate_hits_the_frames_that_it_names() -> None:
    assert chosen(even(1000, fps=10), 0.1, 32) == [0, 100, 200, 300, 400, 500, 600, 700, 800, 900]


def test_the_frame_on_screen_is_taken_where_the_rate_varies() -> None:
    clip = timeline(0, 90, 101, 350, end=400)
    assert chosen(clip, 1.0, 32) == [0, 1, 2]  # At 2 s and at 3 s the third frame is on screen.
    assert clip.seconds(np.array([0, 1, 2])).tolist() == [0.0, 0.9, 1.01]


def test_a_still_picture_is_one_frame() -> None:
    assert chosen(timeline(0, end=6000), 1.0, 32) == [0]


def test_a_rate_above_the_clips_own_takes_each_frame_once() -> None:
    assert chosen(even(5), 100.0, 64) == [0, 1, 2, 3, 4]


def test_a_clip_of_two_frames_gives_both_where_the_rate_asks() -> None:
    assert chosen(even(2), 1.0, 32) == [0]
    assert chosen(even(2), 25.0, 32) == [0, 1]


def test_times_count_from_the_first_frame() -> None:
    clip = timeline(500, 600, 700, end=800)
    assert wanted_times(clip, FrameSampling(fps=1.0, max_frames=32)) == [0, 1, 2]
    assert chosen(clip, 1.0, 32) == [0, 1, 2]
    assert clip.duration == 3
    assert clip.fps == 1.0


def test_a_header_that_claims_years_costs_no_memory() -> None:
    assert chosen(timeline(0, 10, end=10**15), 1000.0, 8) == [0, 1]


def test_groups_begin_at_the_last_keyframe_not_after_their_frames() -> None:
    clip = timeline(*range(0, 100, 10), end=100, keyframes=(0, 40, 80))
    groups = group_by_keyframe(clip, np.array([0, 3, 4, 7, 9]))
    assert [(group.keyframe, group.wanted) for group in groups] == [(0, (0, 30)), (1, (40, 70)), (2, (90,))]


def test_frames_before_the_first_keyframe_are_sought_from_it() -> None:
    groups = group_by_keyframe(timeline(0, 10, 20, end=30, keyframes=(10,)), np.array([0, 2]))
    assert [(group.keyframe, group.wanted) for group in groups] == [(0, (0, 20))]


def test_preroll_keyframes_are_where_decoding_begins() -> None:
    groups = group_by_keyframe(timeline(0, 10, end=20, keyframes=(-30,)), np.array([1]))
    assert [(group.keyframe, group.wanted) for group in groups] == [(0, (10,))]


def test_the_end_is_that_of_the_last_packet_else_a_mean_frame_later() -> None:
    shown = np.array([0, 10, 20], dtype=np.int64)
    assert timeline_end(shown, last_end=27, usual_frame=4) == 27
    assert timeline_end(shown, last_end=20, usual_frame=4) == 30
    assert timeline_end(shown, last_end=None, usual_frame=4) == 30
    assert timeline_end(shown[:1], last_end=None, usual_frame=4) == 4
