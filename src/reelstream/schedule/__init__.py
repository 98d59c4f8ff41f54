"""Spans, lanes, windows and sample order of an epoch: pure functions of seed, epoch and sizes.

Nothing here reads, writes, waits or knows the time; the planner and the download manager run the same functions.
"""

from reelstream.schedule.digest import OrderDigest, combine_digests
from reelstream.schedule.limit import lane_quotas
from reelstream.schedule.order import sample_order
from reelstream.schedule.share import RankShare, lanes_for, world_sizes_for
from reelstream.schedule.spans import (
    KnownMember,
    archive_spans,
    block_spans,
    cut_bytes_for,
    cut_spans,
    deal_to_lanes,
    order_spans,
    part_of_spans,
)
from reelstream.schedule.windows import WindowFormer, WindowLimits, window_clips

__all__ = [
    "KnownMember",
    "OrderDigest",
    "RankShare",
    "WindowFormer",
    "WindowLimits",
    "archive_spans",
    "block_spans",
    "combine_digests",
    "cut_bytes_for",
    "cut_spans",
    "deal_to_lanes",
    "lane_quotas",
    "lanes_for",
    "order_spans",
    "part_of_spans",
    "sample_order",
    "window_clips",
    "world_sizes_for",
]
