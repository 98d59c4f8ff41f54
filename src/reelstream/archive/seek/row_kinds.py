"""What the small numbers in an index's rows mean: kinds of members, how their bytes lie, and what proves them."""

from __future__ import annotations

import enum
import hashlib
import zlib
from typing import Any

DIGEST_BYTES = 16
"""A member's digest is the first 16 bytes of its SHA-256, wherever a pass over its bytes has learned it.

A CRC would find accidents; a cryptographic digest also makes an index that is trusted vouch for bytes that come from
elsewhere, which nothing else does where an archive is not read whole. SHA-256, because processors have it built in.
"""

CRC32_BYTES = 4


class MemberKind(enum.IntEnum):
    """What a member is; others than these are not indexed."""

    REGULAR = 0
    HARD_LINK = 1
    """Another name of a member that lies before it in the archive."""


class Coding(enum.IntEnum):
    """How a member's bytes lie in its archive. All rows of an index are of one container, and so of its codings."""

    DEFLATE_STREAM = 0
    """Inside the gzip streams of a tar.gz; offsets are decompressed ones, and its point says where to begin."""
    STORED = 1
    """As they are, from `data_offset` on: plain tar, and loose files."""
    ZIP_STORED = 2
    """As they are, behind a local header at `header_offset` whose length only it knows."""
    ZIP_DEFLATED = 3
    """A deflate stream of its own, behind such a header."""

    @property
    def is_in_zip(self) -> bool:
        """Whether a local header comes first."""
        return self in {Coding.ZIP_STORED, Coding.ZIP_DEFLATED}


class DigestKind(enum.IntEnum):
    """What a row's digest is: all that a later read can be held against."""

    SHA256 = 0
    """The first `DIGEST_BYTES` of the member's SHA-256."""
    CRC32 = 1
    """The CRC-32 that a zip's directory names, 4 bytes, the highest first: proof against accidents only."""
    NONE = 2
    """No digest: a loose file of which the Hub names none. Its size is all that is checked."""

    @property
    def size_bytes(self) -> int:
        """Bytes of a digest of this kind."""
        return (DIGEST_BYTES, CRC32_BYTES, 0)[self]


class Digester:
    """Makes the digest of one kind from bytes as they pass."""

    def __init__(self, kind: DigestKind) -> None:
        self._kind = kind
        self._sha256: Any = hashlib.sha256() if kind is DigestKind.SHA256 else None
        self._crc32 = 0

    def update(self, some: memoryview) -> None:
        """Take the next bytes."""
        if self._sha256 is not None:
            self._sha256.update(some)
        elif self._kind is DigestKind.CRC32:
            self._crc32 = zlib.crc32(some, self._crc32)

    def digest(self) -> bytes:
        """Return the digest of all bytes so far."""
        if self._sha256 is not None:
            return bytes(self._sha256.digest()[:DIGEST_BYTES])
        return self._crc32.to_bytes(CRC32_BYTES, "big") if self._kind is DigestKind.CRC32 else b""
