"""From archives to lanes: which spans there are, in which order, and which lane reads which."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from reelstream.schedule.draw import Draw
from reelstream.types import Archive, Span, SpanKind


def archive_spans(archives: Iterable[Archive]) -> list[Span]:
    """Return one span for each whole archive, in the given order."""
    return [
        Span(kind=SpanKind.ARCHIVE, archive=archive, first_byte=0, end_byte=archive.size_bytes) for archive in archives
    ]


def order_spans(spans: Sequence[Span], *, seed: int, epoch: int, shuffle: bool = True) -> list[Span]:
    """Put spans in the order of an epoch, subsets interleaved in proportion to their number of spans.

    Each subset's spans are shuffled and spread evenly over the epoch, from a drawn offset, so that no stretch of
    training sees one source only. Without `shuffle` the subsets are interleaved in the same way, each in its published
    order, whatever the seed and the epoch.
    """
    by_subset: dict[str, list[Span]] = {}
    for span in spans:
        by_subset.setdefault(span.archive.subset, []).append(span)
    placed: list[tuple[float, int, Span]] = []
    for number, (subset, members) in enumerate(by_subset.items()):
        draw = Draw("spans", seed, epoch, subset)
        offset = draw.unit() if shuffle else 0.5
        ordered = draw.shuffled(members) if shuffle else members
        placed += [((place + offset) / len(ordered), number, span) for place, span in enumerate(ordered)]
    return [span for _, _, span in sorted(placed, key=lambda item: item[:2])]


def deal_to_lanes(spans: Sequence[Span], num_lanes: int, weight: Callable[[Span], float]) -> list[list[Span]]:
    """Deal spans to lanes in order, each to the lane with the least weight so far; ties go to the lowest lane."""
    lanes: list[list[Span]] = [[] for _ in range(num_lanes)]
    loads = [0.0] * num_lanes
    for span in spans:
        lane = min(range(num_lanes), key=loads.__getitem__)
        lanes[lane].append(span)
        loads[lane] += weight(span)
    return lanes
