"""The order of a window's samples."""

from __future__ import annotations

from collections.abc import Sequence

from reelstream.schedule.draw import Draw


def sample_order(
    counts: Sequence[int], *, seed: int, epoch: int, lane: int, window: int, shuffle: bool = True
) -> list[tuple[int, int]]:
    """Return the window's samples as (clip in window, sample of clip), in the order they are served.

    Each next sample is drawn among all that are left except those of the clip just served, so that neighbours show
    different clips; a clip with more than half of what is left is served whenever it may, since later it could not be
    kept apart. Only where one clip holds more than half of the window do its samples meet.

    Args:
        counts: Number of samples of each clip, in order of arrival.
        seed: Seed of the run.
        epoch: Epoch.
        lane: Lane of the window.
        window: Number of the window in its lane.
        shuffle: Without it, clips come in order of arrival, each with its samples in order.
    """
    if not shuffle:
        return [(clip, sample) for clip, number in enumerate(counts) for sample in range(number)]
    draw = Draw("window", seed, epoch, lane, window)
    samples = [draw.shuffled(range(number)) for number in counts]
    left = list(counts)
    total = sum(left)
    order: list[tuple[int, int]] = []
    last = -1
    while total:
        clip = _next_clip(left, total, last, draw)
        order.append((clip, samples[clip][left[clip] - 1]))
        left[clip] -= 1
        total -= 1
        last = clip
    return order


def _next_clip(left: Sequence[int], total: int, last: int, draw: Draw) -> int:
    largest = max(range(len(left)), key=left.__getitem__)
    if largest != last and 2 * left[largest] > total:
        return largest
    others = total - (left[last] if last >= 0 else 0)
    if others == 0:
        return last
    place = draw.below(others)
    for clip, number in enumerate(left):
        if clip == last:
            continue
        if place < number:
            return clip
        place -= number
    raise AssertionError("the counts do not add up to their total")
