"""Digests that pin the order in which samples were consumed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from reelstream.errors import StateError


class OrderDigest:
    """The chain of one lane: d becomes SHA-256(d, slot, sample key)."""

    def __init__(self, value: str = "00" * 32) -> None:
        try:
            self._value = bytes.fromhex(value)
        except ValueError as error:
            raise StateError(f"{value!r} is no digest of an order") from error

    def add(self, slot: int, key: str) -> None:
        """Take in the sample `key` (`subset/path#row`) at a slot of the lane."""
        self._value = hashlib.sha256(self._value + slot.to_bytes(8, "big") + key.encode()).digest()

    @property
    def value(self) -> str:
        """The chain so far, as 64 hex digits."""
        return self._value.hex()


def combine_digests(values: Iterable[str]) -> str:
    """Return the digest of an epoch from those of its lanes, in order of lanes."""
    return hashlib.sha256("".join(values).encode()).hexdigest()
