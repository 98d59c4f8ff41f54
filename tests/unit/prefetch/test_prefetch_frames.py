from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from reelstream.prefetch.frames import MediaStore
from reelstream.prefetch.windows import ResidentClip
from reelstream.types import ClipMedia, ClipRecord


def make_clip(number: int, uses: list[int]) -> ResidentClip:
    clip = ResidentClip(
        lane=0,
        window=0,
        record=ClipRecord(clip=number, subset="s", path=str(number), num_samples=len(uses)),
        rows=range(len(uses)),
        size_bytes=1,
        file=None,
        left=len(uses),
    )
    clip.uses.extend(uses)
    return clip


def frames_of(size_bytes: int) -> ClipMedia:
    return ClipMedia(content=bytes(size_bytes))


def numbers(clips: list[ResidentClip]) -> list[int]:
    return [clip.record.clip for clip in clips]


def test_the_most_urgent_clips_are_chosen_as_far_as_threads_go() -> None:
    store = MediaStore(limit_bytes=1000, expected_bytes=lambda _: 10, most_in_flight=2)
    clips = [make_clip(number, [number]) for number in range(4)]
    chosen, is_all = store.choose(clips)
    assert (numbers(chosen), is_all) == ([0, 1], False)
    assert store.choose(clips) == ([], False)
    store.put(clips[1], frames_of(10))
    assert numbers(store.choose(clips)[0]) == [2]
    store.put(clips[0], frames_of(10))
    chosen, is_all = store.choose(clips)
    assert (numbers(chosen), is_all) == ([3], True)
    store.put(clips[3], frames_of(10))
    assert store.choose(clips) == ([], True)


def test_what_is_needed_last_goes_first_when_memory_is_short() -> None:
    store = MediaStore(limit_bytes=30, expected_bytes=lambda _: 10, most_in_flight=1)
    late, later, soon = make_clip(0, [50]), make_clip(1, [90]), make_clip(2, [5])
    for clip in (late, later):
        store.choose([clip])
        store.put(clip, frames_of(10))
    urgent = make_clip(3, [1])
    store.choose([urgent])
    store.put(urgent, frames_of(10))
    assert numbers(store.choose([urgent, soon, late, later])[0]) == [2]
    assert store.get(later) is None
    assert store.get(late) is not None
    assert store.get(urgent) is not None


def test_a_large_clip_waits_for_memory_that_a_small_one_finds() -> None:
    sizes = {0: 10, 1: 90, 2: 20}
    store = MediaStore(limit_bytes=100, expected_bytes=lambda clip: sizes[clip.record.clip], most_in_flight=3)
    first, large, small = make_clip(0, [0]), make_clip(1, [2]), make_clip(2, [1])
    store.choose([first])
    store.put(first, frames_of(15))
    chosen, is_all = store.choose([first, small, large])
    assert (numbers(chosen), is_all) == ([2], False)


def test_nothing_that_is_needed_sooner_goes_for_what_is_needed_later() -> None:
    store = MediaStore(limit_bytes=20, expected_bytes=lambda _: 10, most_in_flight=1)
    clips = [make_clip(number, [number]) for number in range(3)]
    for clip in clips[:2]:
        store.choose([clip])
        store.put(clip, frames_of(10))
    assert store.choose(clips) == ([], False)
    assert store.num_decoded == 2


def test_the_most_urgent_clip_comes_in_whatever_the_memory_and_takes_the_place_of_all_later_ones() -> None:
    store = MediaStore(limit_bytes=20, expected_bytes=lambda _: 25, most_in_flight=1)
    late, urgent = make_clip(0, [9]), make_clip(1, [0])
    store.choose([late])
    store.put(late, frames_of(20))
    assert numbers(store.choose([urgent, late])[0]) == [1]
    assert store.used_bytes == 0


def test_frames_of_a_clip_that_is_used_up_or_bad_are_not_kept() -> None:
    store = MediaStore(limit_bytes=100, expected_bytes=lambda _: 10, most_in_flight=2)
    used, bad = make_clip(0, [0]), make_clip(1, [1])
    store.choose([used, bad])
    used.left, bad.problem = 0, "bad"
    store.put(used, frames_of(10))
    store.put(bad, frames_of(10))
    assert (store.used_bytes, store.num_decoded, store.num_in_flight) == (0, 0, 0)
    assert store.choose([bad]) == ([], True)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 12),
    st.integers(1, 3),
    st.lists(st.integers(0, 6), min_size=1, max_size=40),
    st.integers(0, 2**32),
)
def test_memory_is_bounded_and_the_head_always_comes(limit: int, threads: int, uses: list[int], seed: int) -> None:
    """Clips of one unit each are used in a given order; decoding ends in any order."""
    store = MediaStore(limit_bytes=limit, expected_bytes=lambda _: 1, most_in_flight=threads)
    clips = {number: make_clip(number, [at for at, used in enumerate(uses) if used == number]) for number in set(uses)}
    draws = random.Random(seed)
    in_flight: list[ResidentClip] = []
    num_decoded = 0

    def coming() -> list[ResidentClip]:
        return sorted((clip for clip in clips.values() if clip.uses), key=lambda clip: clip.uses[0])

    for number in uses:
        head = clips[number]
        while store.get(head) is None:
            in_flight += store.choose(coming())[0]
            # One more than the limit at most: the head.
            assert store.used_bytes + store.num_in_flight <= max(limit, threads - 1) + 1
            done = in_flight.pop(draws.randrange(len(in_flight)))
            store.put(done, frames_of(1))
            num_decoded += 1
        head.uses.popleft()
        head.left -= 1
        if head.left == 0:
            store.drop(head)
    assert store.used_bytes == 0
    if limit >= len(clips) + threads:
        assert num_decoded == len(clips)
