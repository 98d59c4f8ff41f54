"""The books of an epoch: each sample of the catalog is delivered, quarantined, or left out for a reason."""

from __future__ import annotations

from reelstream.catalog import Catalog
from reelstream.prefetch.state import EpochState
from reelstream.telemetry import events


def book(state: EpochState, catalog: Catalog, *, side: str, over: bool) -> events.EpochBooked:
    """Return the books of an epoch at a consumed state.

    Args:
        state: What is consumed.
        catalog: All clips, and which of them are taken.
        side: The side of the split that is taken.
        over: Whether the epoch was served to its end.
    """
    books = state.books
    # A clip that two ranks have met was delivered by both: the second time as a repeat.
    twice = max(0, books.delivered + books.quarantined - catalog.num_taken_samples) if over else 0
    missing = catalog.num_taken_samples - books.delivered - books.quarantined + twice
    limit = state.settings.limit
    limited = limit is not None and sum(lane.clips for lane in state.lanes) >= limit
    reason: str | None = "not_seen"
    if limited:
        reason = "limit"
    elif over:
        # Which clips the other parts hold, and which nobody does, is known only once all of them were read.
        reason = "other_parts" if state.settings.spans.part_of else None
    left_out = {} if reason is None or not missing else {reason: missing}
    other_side = catalog.num_samples - catalog.num_taken_samples
    if other_side:
        left_out["held_out" if side == "training" else "trained_on"] = other_side
    return events.EpochBooked(
        epoch=state.settings.epoch,
        num_catalog=catalog.num_samples,
        num_delivered=books.delivered - twice,
        num_repeated=books.repeated + twice,
        num_quarantined=books.quarantined,
        num_without_media=missing if reason is None else 0,
        left_out=left_out,
        order_digest=state.order_digest,
    )
