"""Which ranges to ask for, so that wanted neighbours come in one request: pure arithmetic.

A request costs its latency, a byte that nobody wants costs its share of the bandwidth. So a gap is read through where
that takes no longer than asking anew: up to `latency * bandwidth` bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from reelstream.archive.seek.index import ArchiveIndex, IndexRow


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedRange:
    """Compressed bytes [first_byte, end_byte) that hold one wanted thing."""

    number: int
    """Which one: a row's number, say; they ascend in the order of the archive."""
    first_byte: int
    end_byte: int

    def __post_init__(self) -> None:
        assert 0 <= self.first_byte <= self.end_byte


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRequest:
    """One range to ask for."""

    first_byte: int
    end_byte: int
    numbers: tuple[int, ...]
    """What it holds, ascending."""

    @property
    def size_bytes(self) -> int:
        """Bytes that the request fetches."""
        return self.end_byte - self.first_byte


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCosts:
    """What requests and bytes cost, and how large a request may be."""

    latency_s: float = 0.1
    """From asking to the first byte."""
    bandwidth_bytes_per_s: float = 10_000_000
    """Of one request."""
    most_request_bytes: int = 32_000_000
    """A request is larger only where one wanted thing is."""

    def __post_init__(self) -> None:
        if self.latency_s < 0 or self.bandwidth_bytes_per_s <= 0 or self.most_request_bytes < 1:
            raise ValueError("a latency must not be negative; bandwidth and request size must be above 0")

    @property
    def largest_gap_bytes(self) -> int:
        """The most unwanted bytes that take no longer than another request."""
        return int(self.latency_s * self.bandwidth_bytes_per_s)


def plan_requests(wanted: Iterable[WantedRange], costs: RequestCosts) -> list[PlannedRequest]:
    """Return the requests that fetch all that is wanted, in the order of the archive.

    From front to back, each wanted range joins the request before it where the gap is worth it and the request stays
    small enough. Without a limit of size this takes the least time that requests one after the other can. Ranges may
    overlap (small members share a seek point); each is whole in one request.
    """
    requests: list[PlannedRequest] = []
    joined: list[WantedRange] = []
    first = end = 0
    for each in sorted(wanted, key=lambda each: (each.first_byte, each.end_byte, each.number)):
        if joined and not _joins(first, end, each, costs):
            requests.append(_request(joined, first, end))
            joined = []
        if not joined:
            first = end = each.first_byte
        joined.append(each)
        end = max(end, each.end_byte)
    if joined:
        requests.append(_request(joined, first, end))
    return requests


def plan_rows(index: ArchiveIndex, numbers: Iterable[int], costs: RequestCosts) -> list[PlannedRequest]:
    """Return the requests that fetch these rows; each one's rows can be given to `read_rows`.

    Rows are taken once, whatever how often they are named; a hard link stands for the row that holds its bytes, and one
    whose target is not in the index is left out.
    """
    held = {index.holding(number) for number in numbers} - {None}
    wanted = []
    for number in sorted(number for number in held if number is not None):
        row = index.row(number)
        wanted.append(WantedRange(number=number, first_byte=row.first_byte, end_byte=_end(row)))
    return plan_requests(wanted, costs)


def _end(row: IndexRow) -> int:
    return row.first_byte + row.range_bytes


def _joins(first: int, end: int, each: WantedRange, costs: RequestCosts) -> bool:
    # Where the request is too large already, what lies within it still costs nothing.
    largest = max(costs.most_request_bytes, end - first)
    return each.first_byte - end <= costs.largest_gap_bytes and max(end, each.end_byte) - first <= largest


def _request(joined: list[WantedRange], first: int, end: int) -> PlannedRequest:
    # A member without bytes may stand before one that begins earlier.
    return PlannedRequest(first_byte=first, end_byte=end, numbers=tuple(sorted(each.number for each in joined)))
