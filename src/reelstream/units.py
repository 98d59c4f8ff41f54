"""Sizes, rates and durations as people write them: `"5GB"`, `"10MB/s"`, `"50ms"`.

The annotated types are what configuration models use for their fields: a plain number passes, a string is parsed.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

# Decimal and binary multiples; a bare letter is decimal, as disks and links are sold.
_BYTE_FACTORS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_SECOND_FACTORS = {"ms": 1e-3, "s": 1.0, "": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER_WITH_UNIT = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?(?:[eE][0-9]+)?)\s*([A-Za-z]*)\s*$")


def parse_bytes(text: float | str) -> int:
    """Return the number of bytes that `text` names: `"5GB"`, `"1.5 MiB"`, `"800"`, or a plain number.

    Raises:
        ValueError: Where `text` is not a size, with an example of one.
    """
    if isinstance(text, bool):
        raise ValueError(_not_a("size", text, "5GB"))
    if isinstance(text, int | float):
        if text < 0:
            raise ValueError(f"a size cannot be negative: {text}")
        return round(text)
    match = _NUMBER_WITH_UNIT.match(text)
    factor = _BYTE_FACTORS.get(match.group(2).upper()) if match else None
    if match is None or factor is None:
        raise ValueError(_not_a("size", text, "5GB"))
    return round(float(match.group(1)) * factor)


def parse_rate(text: float | str) -> int:
    """Return the bytes per second that `text` names: `"10MB/s"`, or a plain number."""
    if isinstance(text, str):
        amount, slash, per = text.partition("/")
        if slash and per.strip() != "s":
            raise ValueError(_not_a("rate", text, "10MB/s"))
        try:
            return parse_bytes(amount)
        except ValueError as error:
            raise ValueError(_not_a("rate", text, "10MB/s")) from error
    return parse_bytes(text)


def parse_seconds(text: float | str) -> float:
    """Return the seconds that `text` names: `"50ms"`, `"10 min"`, `"11h"`, or a plain number."""
    if isinstance(text, bool):
        raise ValueError(_not_a("duration", text, "50ms"))
    if isinstance(text, int | float):
        if text < 0:
            raise ValueError(f"a duration cannot be negative: {text}")
        return float(text)
    match = _NUMBER_WITH_UNIT.match(text)
    factor = _SECOND_FACTORS.get(match.group(2).lower()) if match else None
    if match is None or factor is None:
        raise ValueError(_not_a("duration", text, "50ms"))
    return float(match.group(1)) * factor


def _not_a(kind: str, text: object, example: str) -> str:
    return f"{text!r} is not a {kind}; write one like {example!r}"


def format_bytes(size_bytes: float) -> str:
    """Return a size with three significant digits and a decimal unit: `7.20 MB`."""
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        # 0.9995 of a unit would print as 1000 of the smaller one.
        if abs(size_bytes) >= 0.9995 * factor:
            value = size_bytes / factor
            return f"{value:.{max(0, 2 - (value >= 9.995) - (value >= 99.95))}f} {unit}"
    return f"{size_bytes:.0f} B"


def format_rate(bytes_per_s: float) -> str:
    """Return a rate as `9.87 MB/s`."""
    return f"{format_bytes(bytes_per_s)}/s"


def format_seconds(seconds: float) -> str:
    """Return a duration as `0.42 s`, `3 min 05 s` or `2 h 07 min`."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(number: int, singular: str, plural: str | None = None) -> str:
    """Return `1 clip`, `2 clips`, `1,234 clips`."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


ByteSize = Annotated[int, BeforeValidator(parse_bytes)]
"""A number of bytes; configuration files may write `5GB`."""

ByteRate = Annotated[int, BeforeValidator(parse_rate)]
"""Bytes per second; configuration files may write `10MB/s`."""

Seconds = Annotated[float, BeforeValidator(parse_seconds)]
"""Seconds; configuration files may write `50ms` or `11h`."""
