import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelstream.schedule import (
    OrderDigest,
    WindowFormer,
    WindowLimits,
    archive_spans,
    combine_digests,
    deal_to_lanes,
    lane_quotas,
    order_spans,
    sample_order,
    window_clips,
)
from reelstream.schedule.draw import Draw
from reelstream.types import Archive, RepositoryFile


def make_archives(**sizes: list[int]) -> list[Archive]:
    return [
        Archive(subset=subset, file=RepositoryFile(path=f"{subset}/{number}.tar.gz", size_bytes=size, sha256=None))
        for subset, subset_sizes in sizes.items()
        for number, size in enumerate(subset_sizes, 1)
    ]


def test_draws_are_pinned_by_their_key() -> None:
    # Golden: a change here changes every order ever published.
    draw = Draw("window", 0, 0, 0, 0)
    assert [draw.below(1000) for _ in range(6)] == [484, 531, 952, 689, 806, 779]
    assert Draw("spans", 1, 2, "a").shuffled(range(8)) == [7, 4, 6, 1, 3, 2, 0, 5]


def test_draws_follow_the_published_generator() -> None:
    # First outputs of SplitMix64 for seed 1234567, as other implementations print them.
    draw = Draw()
    draw._state = 1234567
    assert [draw.bits() for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.integers(1, 50), st.integers(0, 1000))
def test_draws_stay_below_their_end(end: int, key: int) -> None:
    draw = Draw(key)
    assert all(0 <= draw.below(end) < end for _ in range(20))


def test_spans_of_subsets_are_interleaved_in_proportion() -> None:
    spans = order_spans(archive_spans(make_archives(big=[1] * 12, small=[1] * 4)), seed=3, epoch=0)
    subsets = [span.archive.subset for span in spans]
    for start in range(0, 16, 8):
        assert 1 <= subsets[start : start + 8].count("small") <= 3


def test_span_order_differs_by_epoch_and_not_by_run() -> None:
    spans = archive_spans(make_archives(a=[1] * 20))
    first = order_spans(spans, seed=0, epoch=0)
    assert first == order_spans(spans, seed=0, epoch=0)
    assert first != order_spans(spans, seed=0, epoch=1)
    assert sorted(span.archive.path for span in first) == sorted(span.archive.path for span in spans)


def test_without_shuffle_each_subset_keeps_its_published_order() -> None:
    spans = archive_spans(make_archives(a=[1] * 6, b=[1] * 3))
    ordered = order_spans(spans, seed=5, epoch=9, shuffle=False)
    assert [s.archive.path for s in ordered if s.archive.subset == "a"] == [f"a/{n}.tar.gz" for n in range(1, 7)]


@given(st.lists(st.integers(1, 100), min_size=1, max_size=40), st.integers(1, 9))
def test_dealing_balances_lanes_within_one_span(sizes: list[int], num_lanes: int) -> None:
    spans = archive_spans(make_archives(a=sizes))
    lanes = deal_to_lanes(spans, num_lanes, lambda span: span.size_bytes)
    assert sorted(s.archive.path for lane in lanes for s in lane) == sorted(s.archive.path for s in spans)
    loads = [sum(span.size_bytes for span in lane) for lane in lanes]
    assert max(loads) - min(loads) <= max(sizes)


def test_ties_go_to_the_lowest_lane() -> None:
    lanes = deal_to_lanes(archive_spans(make_archives(a=[5, 5, 5, 5])), 3, lambda span: span.size_bytes)
    assert [[span.archive.path for span in lane] for lane in lanes] == [
        ["a/1.tar.gz", "a/4.tar.gz"],
        ["a/2.tar.gz"],
        ["a/3.tar.gz"],
    ]


def test_windows_ramp_up_and_lanes_end_out_of_step() -> None:
    sizes = [[window_clips(lane=lane, window=w, num_lanes=8, full=12) for w in range(7)] for lane in range(8)]
    assert sizes[0] == [1, 2, 4, 8, 2, 12, 12]
    assert sizes[7] == [1, 2, 4, 8, 12, 12, 12]
    assert [row[4] for row in sizes] == [2, 3, 5, 6, 8, 9, 11, 12]


def test_a_small_full_window_shortens_the_ramp() -> None:
    assert [window_clips(lane=1, window=w, num_lanes=2, full=3) for w in range(4)] == [1, 2, 3, 3]
    assert [window_clips(lane=0, window=w, num_lanes=2, full=1) for w in range(3)] == [1, 1, 1]


def test_a_window_ends_before_the_clip_that_its_bytes_do_not_hold() -> None:
    former = WindowFormer(lane=0, num_lanes=1, limits=WindowLimits(clips=100, size_bytes=10), window=9)
    assert not former.closes_before(50), "a single larger clip makes a window of its own"
    former.add(6)
    assert not former.closes_before(4)
    assert former.closes_before(5)
    former.close()
    assert (former.window, former.num_clips, former.size_bytes) == (10, 0, 0)


@given(st.lists(st.integers(0, 9), max_size=15), st.integers(0, 99))
def test_a_window_serves_each_sample_once_and_keeps_clips_apart(counts: list[int], seed: int) -> None:
    order = sample_order(counts, seed=seed, epoch=1, lane=2, window=3)
    assert sorted(order) == [(clip, sample) for clip, number in enumerate(counts) for sample in range(number)]
    meetings = sum(first[0] == second[0] for first, second in itertools.pairwise(order))
    # Samples of one clip can be kept apart exactly when it holds at most half of the window, rounded up.
    largest = max(counts, default=0)
    assert meetings == max(0, 2 * largest - sum(counts) - 1)


def test_sample_orders_are_pinned() -> None:
    order = sample_order([2, 3, 1], seed=7, epoch=0, lane=1, window=2)
    assert order == [(1, 2), (0, 1), (2, 0), (1, 1), (0, 0), (1, 0)]


def test_each_sample_is_as_likely_in_first_place() -> None:
    firsts = Counter(sample_order([3] * 4, seed=seed, epoch=0, lane=0, window=0)[0] for seed in range(2400))
    assert len(firsts) == 12
    assert all(140 < number < 260 for number in firsts.values())


@given(
    st.integers(0, 200),
    st.lists(st.one_of(st.none(), st.integers(0, 30)), min_size=1, max_size=9),
)
def test_quotas_equal_a_round_robin_counted_clip_by_clip(limit: int, lengths: list[int | None]) -> None:
    known = {lane: length for lane, length in enumerate(lengths) if length is not None}
    expected = [0] * len(lengths)
    left = limit
    while left:
        before = left
        for lane, length in enumerate(lengths):
            if left and (length is None or expected[lane] < length):
                expected[lane] += 1
                left -= 1
        if left == before:
            break
    assert lane_quotas(limit, len(lengths), known) == expected


def test_a_digest_depends_on_order_slot_and_key() -> None:
    def chain(*items: tuple[int, str]) -> str:
        digest = OrderDigest()
        for slot, key in items:
            digest.add(slot, key)
        return digest.value

    assert chain((0, "a"), (1, "b")) != chain((0, "b"), (1, "a"))
    assert chain((0, "a")) != chain((1, "a"))
    resumed = OrderDigest(chain((0, "a")))
    resumed.add(1, "b")
    assert resumed.value == chain((0, "a"), (1, "b"))
    assert combine_digests(["aa", "bb"]) != combine_digests(["bb", "aa"])


@pytest.mark.parametrize("clip_budget", [1, 10**6, 5 * 10**9])
def test_windows_of_all_lanes_leave_a_third_of_the_clip_budget(clip_budget: int) -> None:
    limits = WindowLimits.of(cache_size=100, num_lanes=8, clip_budget_bytes=clip_budget)
    assert limits.clips == 12
    assert limits.size_bytes * 8 <= max(8, clip_budget * 2 // 3)
