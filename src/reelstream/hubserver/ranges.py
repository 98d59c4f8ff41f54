"""Byte ranges as HTTP asks for them (RFC 9110, section 14): parsing and choosing, without any I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

_ONE_RANGE = re.compile(r"^\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*$", re.IGNORECASE)


class ByteRange(NamedTuple):
    """Bytes [first, end) of a file; empty where both are equal."""

    first: int
    end: int

    @property
    def size_bytes(self) -> int:
        """How many bytes it holds."""
        return self.end - self.first


@dataclass(frozen=True, slots=True)
class RangeRequest:
    """One range as a client wrote it: from-to, from on, or the last so many bytes."""

    first: int | None
    last: int | None
    """The last byte itself, as HTTP counts; the number of bytes from the end where `first` is None."""

    def __str__(self) -> str:
        first = "" if self.first is None else self.first
        last = "" if self.last is None else self.last
        return f"bytes={first}-{last}"

    def within(self, size_bytes: int) -> ByteRange | None:
        """Return the part of a file of `size_bytes` that is asked for; None where it holds no byte (416)."""
        if self.first is None:
            assert self.last is not None
            first, end = max(0, size_bytes - self.last), size_bytes
        else:
            first, end = self.first, size_bytes if self.last is None else min(self.last + 1, size_bytes)
        return ByteRange(first, end) if first < end else None


def parse_range(header: str | None) -> RangeRequest | None:
    """Return the range that a `Range` header asks for.

    None where there is none, and where the header is to be ignored: another unit, several ranges, or nonsense.
    Several ranges are ignored because object stores answer them with the whole file, too.
    """
    match = _ONE_RANGE.match(header) if header else None
    if match is None:
        return None
    first, last = (int(digits) if digits else None for digits in match.groups())
    if first is None and last is None:
        return None
    if first is not None and last is not None and last < first:
        return None
    return RangeRequest(first, last)
