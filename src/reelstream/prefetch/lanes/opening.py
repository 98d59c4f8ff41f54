"""Which reader a lane has: that follows from the kind of the epoch's spans."""

from __future__ import annotations

from typing import Protocol

from reelstream.cancel import Cancellation
from reelstream.catalog import Catalog
from reelstream.prefetch.lanes.host import ArchiveSource, KnownHost, StreamingHost
from reelstream.prefetch.lanes.known import KnownLane
from reelstream.prefetch.lanes.streaming import StreamingLane
from reelstream.prefetch.plan import EpochPlan, Learned
from reelstream.prefetch.state import EpochState
from reelstream.schedule import WindowFormer, WindowLimits
from reelstream.types import SpanKind


class AnyHost(StreamingHost, KnownHost, Protocol):
    """Who serves readers of either kind."""


def open_lane(
    number: int,
    plan: EpochPlan,
    state: EpochState,
    *,
    catalog: Catalog,
    source: ArchiveSource,
    learned: Learned,
    host: AnyHost,
    cancellation: Cancellation,
) -> StreamingLane | KnownLane:
    """Return the reader of a lane, at the state's place.

    Args:
        number: The lane's.
        plan: What the lanes read.
        state: Where the epoch begins.
        catalog: All clips.
        source: Where published bytes come from.
        learned: Knows what earlier runs have learned.
        host: Where clips and windows go to.
        cancellation: Calls the reading off.
    """
    settings, lane_state = state.settings, state.lanes[number]
    former = WindowFormer(
        lane=number,
        num_lanes=settings.num_lanes,
        limits=WindowLimits(clips=settings.window_clips, size_bytes=settings.window_bytes),
        window=lane_state.window,
    )
    if settings.spans.kind is SpanKind.BLOCK:
        return KnownLane(
            lane=number,
            spans=plan.lanes[number],
            state=lane_state,
            former=former,
            catalog=catalog,
            source=source,
            row_of=plan.row_of,
            host=host,
            cancellation=cancellation,
        )
    return StreamingLane(
        lane=number,
        spans=plan.lanes[number],
        state=lane_state,
        former=former,
        catalog=catalog,
        source=source,
        later_cuts=plan.later_cuts,
        known_part=learned.known_part,
        mean_clip_bytes=plan.mean_bytes_of,
        tells_last=settings.tail == "repeat",
        host=host,
        cancellation=cancellation,
    )
