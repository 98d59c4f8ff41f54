"""From archives to lanes: which spans there are, in which order, and which lane reads which."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from reelstream.schedule.draw import Draw
from reelstream.types import Archive, Span, SpanKind

# A cut costs about a clip and a half at its border; this many clips a cut keep that below 2 %.
_LEAST_CLIPS_OF_CUT = 100
# With this many cuts a lane no lane ends much before the others.
_CUTS_OF_LANE = 32
# Members with no more than this between them are neighbours: reading through takes no longer than asking anew.
_LARGEST_GAP_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownMember:
    """A clip whose place in its archive is known."""

    row: int
    """Its number among the rows that are known of the archive; they ascend in the order of the archive."""
    clip: int
    """Which clip of the catalog it is."""
    first_offset: int
    """Where it begins in the unpacked archive."""
    end_offset: int
    """Where it ends there."""


def archive_spans(archives: Iterable[Archive]) -> list[Span]:
    """Return one span for each whole archive, in the given order."""
    return [
        Span(kind=SpanKind.ARCHIVE, archive=archive, first_byte=0, end_byte=archive.size_bytes) for archive in archives
    ]


def cut_bytes_for(*, total_bytes: int, num_clips: int, num_lanes: int) -> int:
    """Return the size of a cut: many for each lane, unless they would hold fewer than a hundred clips.

    Args:
        total_bytes: Compressed bytes of all archives.
        num_clips: Clips in them.
        num_lanes: Lanes that read them.
    """
    mean_clip_bytes = total_bytes / max(1, num_clips)
    return max(1, int(max(total_bytes / (_CUTS_OF_LANE * num_lanes), _LEAST_CLIPS_OF_CUT * mean_clip_bytes)))


def cut_spans(
    archives: Iterable[Archive], cut_bytes: int, *, can_cut: Callable[[Archive], bool] = lambda _: True
) -> list[Span]:
    """Return the cuts of archives, in the given order: of each as many equal ones as come nearest to `cut_bytes`.

    An archive that cannot be cut is a span of its own.
    """
    spans: list[Span] = []
    for archive in archives:
        if not can_cut(archive):
            spans += archive_spans([archive])
            continue
        number = max(1, round(archive.size_bytes / cut_bytes))
        bounds = [archive.size_bytes * place // number for place in range(number + 1)]
        spans += [
            Span(kind=SpanKind.CUT, archive=archive, first_byte=first_byte, end_byte=end_byte)
            for first_byte, end_byte in itertools.pairwise(bounds)
        ]
    return spans


def block_spans(archive: Archive, members: Sequence[KnownMember], block_bytes: int) -> list[Span]:
    """Return the blocks of an archive: neighbours that have `block_bytes` or less together, or one member alone.

    What is decided depends on the members alone, not on how an index says they are reached.

    Args:
        archive: The archive.
        members: Its clips, in the order they lie in it.
        block_bytes: The most unpacked bytes of a block of several members.
    """
    blocks: list[list[KnownMember]] = []
    for member in members:
        block = blocks[-1] if blocks else None
        if (
            block is not None
            and member.first_offset - block[-1].end_offset <= _LARGEST_GAP_BYTES
            and member.end_offset - block[0].first_offset <= block_bytes
        ):
            block.append(member)
        else:
            blocks.append([member])
    return [
        Span(
            kind=SpanKind.BLOCK,
            archive=archive,
            first_byte=block[0].first_offset,
            end_byte=block[-1].end_offset,
            rows=tuple(member.row for member in block),
            clips=tuple(member.clip for member in block),
        )
        for block in blocks
    ]


def part_of_spans(spans: Sequence[Span], *, part: int, num_parts: int) -> list[Span]:
    """Return the part-th (from 0) of `num_parts` shares of a subset's spans, neighbours with neighbours.

    The shares are those of the published order, whatever the seed: a part is the same in every run.
    """
    return list(spans[len(spans) * part // num_parts : len(spans) * (part + 1) // num_parts])


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
