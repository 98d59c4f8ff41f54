"""Signed addresses: what a CDN checks before it serves a byte."""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Mapping

from reelstream.clock import Clock
from reelstream.hubserver.ranges import RangeRequest


class Refusal(enum.Enum):
    """Why an address is not served; each is a 403 with its own body."""

    BAD_SIGNATURE = "bad signature"
    EXPIRED = "expired"
    WRONG_RANGE = "wrong range"


class AddressSigner:
    """Signs addresses with a key, and checks them.

    The signature covers path, digest, expiry and, where one was given, the range: nothing of an address can be
    changed without the key.

    Args:
        key: The HMAC key; a process draws its own, so no address outlives it.
        clock: Tells the time of expiry.
        ttl_s: Seconds for which a new address is served.
    """

    def __init__(self, key: bytes, *, clock: Clock, ttl_s: float) -> None:
        self._key = key
        self._clock = clock
        self._ttl_s = ttl_s

    def sign(self, path: str, sha256: str, bound: RangeRequest | None) -> dict[str, str]:
        """Return the query of a new address for `path`; it serves only `bound` where that is given."""
        query = {"expires": str(round((self._clock.wall() + self._ttl_s) * 1000)), "sha256": sha256}
        if bound is not None:
            query["range"] = str(bound)
        return {**query, "signature": self._signature(path, query)}

    def check(self, path: str, query: Mapping[str, str], asked: RangeRequest | None) -> Refusal | None:
        """Return why the address is refused for the range `asked`, or None where it is good."""
        signed = {name: value for name, value in query.items() if name != "signature"}
        # Bytes, since compare_digest takes no text with other letters than ASCII.
        given = query.get("signature", "").encode("utf-8", "surrogatepass")
        if not hmac.compare_digest(self._signature(path, signed).encode(), given):
            return Refusal.BAD_SIGNATURE
        if self._clock.wall() * 1000 >= int(query["expires"]):
            return Refusal.EXPIRED
        bound = query.get("range")
        if bound is not None and (asked is None or str(asked) != bound):
            return Refusal.WRONG_RANGE
        return None

    def _signature(self, path: str, query: Mapping[str, str]) -> str:
        # A name or value may hold any letter, so each stands behind its length.
        words = [path, *(word for pair in sorted(query.items()) for word in pair)]
        encoded = [word.encode("utf-8", "surrogatepass") for word in words]
        message = b"".join(b"%d:%s" % (len(word), word) for word in encoded)
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()
