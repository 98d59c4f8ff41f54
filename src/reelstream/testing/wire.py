"""What a local Hub has sent, by its own count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reelstream.types import ContainerKind

ByteRange = tuple[int, int]
"""First byte, and one past the last."""


def archive_ranges(stats: Mapping[str, Any]) -> dict[str, list[ByteRange]]:
    """Return, for each archive, the ranges that were sent, sorted; of broken ones what was sent of them.

    Args:
        stats: What `HubProcess.stats` gives.
    """
    ranges = {
        path: sorted((each["first"], each["first"] + each["bytes_sent"]) for each in record["ranges"])
        for path, record in stats["paths"].items()
        if ContainerKind.of(path) is not ContainerKind.FILE
    }
    sent = {path: [each for each in found if each[0] < each[1]] for path, found in ranges.items()}
    return {path: found for path, found in sent.items() if found}


def overlapping_bytes(ranges: Sequence[ByteRange]) -> int:
    """Return how many bytes of ranges lie in ones that begin no later: those that were sent again."""
    end = twice = 0
    for first, after in sorted(ranges):
        twice += max(0, min(end, after) - first)
        end = max(end, after)
    return twice
