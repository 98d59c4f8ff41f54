"""Members that know the digest of their bytes once these have passed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

from reelstream.archive.tar import Member


@dataclass(slots=True, kw_only=True)
class DigestedMember(Member):
    """A member whose digest is known elsewhere, as soon as its last byte has passed."""

    _digest_of_bytes: Callable[[], bytes] = field(repr=False)

    @property
    def digest(self) -> bytes | None:
        """Of its bytes, as its row will say; None before all of them have passed, and where nothing proves them."""
        return None if self._left_bytes else self._digest_of_bytes() or None


def digested(member: Member, digest_of_bytes: Callable[[], bytes]) -> DigestedMember:
    """Return the member as one that knows its digest."""
    values = {each.name: getattr(member, each.name) for each in dataclasses.fields(member)}
    return DigestedMember(**values, _digest_of_bytes=digest_of_bytes)
