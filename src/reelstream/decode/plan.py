"""Which frames of a clip are wanted, and the least decoding that yields them: pure.

Times are integers in the stream's time base, as the container stores them (*pts*: when a frame is shown, *dts*: when
it is decoded); they become seconds only at the end, so that nothing is lost to rounding.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from reelstream.types import Float64Array, FrameSampling, Int64Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyframe:
    """A frame from which decoding can begin."""

    pts: int
    dts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """When each frame of a clip is on screen."""

    shown: Int64Array
    """The pts of the shown frames, strictly ascending, at least one."""
    end: int
    """The pts at which the last frame leaves the screen."""
    time_base: Fraction
    """Seconds of one unit."""
    keyframes: tuple[Keyframe, ...] = ()
    """Ascending by pts; pre-roll that is decoded and never shown included."""

    @property
    def start(self) -> float:
        """Seconds on the stream's own clock at which the first frame appears."""
        return float(int(self.shown[0]) * self.time_base)

    @property
    def duration(self) -> Fraction:
        """Seconds from the first frame's appearance to the last one's end."""
        return (self.end - int(self.shown[0])) * self.time_base

    @property
    def fps(self) -> float:
        """Frames per second on average."""
        return float(len(self.shown) / self.duration)

    def seconds(self, frame_indices: Int64Array) -> Float64Array:
        """Return the seconds from the first frame to each of `frame_indices`."""
        since_start = self.shown[frame_indices] - self.shown[0]
        return np.array([float(int(ticks) * self.time_base) for ticks in since_start], dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Wanted frames that one start of the decoder yields: those between two keyframes."""

    keyframe: int
    """Where to begin: a number in `Timeline.keyframes`."""
    wanted: tuple[int, ...]
    """The pts of the wanted frames, ascending, at least one."""


def timeline_end(shown: Int64Array, *, last_end: int | None, usual_frame: int) -> int:
    """Return when the last frame leaves the screen: as its packet says, else after the mean time of a frame.

    Args:
        shown: The pts of the shown frames, ascending.
        last_end: The latest pts + duration that any packet names, where one does.
        usual_frame: The time of a frame by the stream's rate, for a clip of one frame.
    """
    first, last = int(shown[0]), int(shown[-1])
    if last_end is not None and last_end > last:
        return last_end
    mean_frame = (last - first) // (len(shown) - 1) if len(shown) > 1 else usual_frame
    return last + max(1, mean_frame)


def wanted_times(timeline: Timeline, sampling: FrameSampling) -> list[Fraction]:
    """Return the moments to sample, in seconds after the first frame, ascending, at least one.

    As LLaVA-NeXT does: a frame at 0, 1/fps, 2/fps ... as long as the clip lasts; where that is more than `max_frames`,
    `max_frames` moments evenly from the first frame's to the last frame's, both included (with one, the first).
    (LLaVA-NeXT `train.py::process_video_with_decord`; it counts in frames, this counts in time, which is the same
    where the rate is constant and right where it is not.)
    """
    # The decimal that the user wrote: the binary fraction nearest to 0.1 would miss frames by a hair.
    rate = Fraction(str(float(sampling.fps)))
    num_times = max(1, math.ceil(timeline.duration * rate))
    if num_times <= sampling.max_frames:
        return [index / rate for index in range(num_times)]
    last = int(timeline.shown[-1] - timeline.shown[0]) * timeline.time_base
    intervals = max(1, sampling.max_frames - 1)
    return [last * index / intervals for index in range(sampling.max_frames)]


def choose_frames(timeline: Timeline, sampling: FrameSampling) -> Int64Array:
    """Return the indices of the frames on screen at the wanted times: strictly ascending, 1 to `max_frames` of them.

    A frame that is on screen at two wanted times is taken once: a still picture of a minute is one frame, with its
    true timestamp, not sixty copies.
    """
    ticks = [math.floor(moment / timeline.time_base) for moment in wanted_times(timeline, sampling)]
    moments = np.array(ticks, dtype=np.int64) + timeline.shown[0]
    return np.unique(np.searchsorted(timeline.shown, moments, side="right") - 1).astype(np.int64)


def group_by_keyframe(timeline: Timeline, frame_indices: Int64Array) -> tuple[Group, ...]:
    """Return the groups of pictures that hold the frames: each is entered once, at the last keyframe not after them.

    Frames shown before a keyframe but stored after it (open groups of pictures) so belong to the group before, whose
    frames they refer to.
    """
    starts = [keyframe.pts for keyframe in timeline.keyframes]
    members: dict[int, list[int]] = {}
    for pts in timeline.shown[frame_indices].tolist():
        members.setdefault(max(0, bisect.bisect_right(starts, pts) - 1), []).append(pts)
    return tuple(Group(keyframe=keyframe, wanted=tuple(wanted)) for keyframe, wanted in members.items())
