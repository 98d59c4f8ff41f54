"""How a clip's file is named, so that it can be known again by a run that did not write it.

```
clip-<n>                            a whole clip
clip-<n>-<identity>-<digest>        a whole clip that says whose bytes it holds
clip-<n>.part                       a clip that is being written
```

`<identity>` is 32 hex digits, see `clip_identity`. `<digest>` is that of the clip's bytes: 32 hex digits are the first
16 bytes of their SHA-256, 8 their CRC-32 (which is all that a zip's directory tells). Kept in the name, what a clip is
costs no byte of the budget, appears with the clip in one rename, and cannot be torn from it.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

HUB_FILE = "hub.json"
"""Beside the clips of a machine's first rank, and no clip: what the machine's processes share of the Hub."""

_NAME = re.compile(
    r"clip-(?P<number>[0-9]+)(?:-(?P<identity>[0-9a-f]{32})-(?P<digest>[0-9a-f]{32}|[0-9a-f]{8})|(?P<part>\.part))?"
)
_SHA256_BYTES = 16
_CRC32_BYTES = 4
_CHUNK_BYTES = 1 << 20


def clip_identity(source: str, key: str) -> str:
    """Return what names a clip in any run: 32 hex digits.

    Args:
        source: Where it comes from: the SHA-256 of its archive, or the fingerprint of the catalog.
        key: Which clip of it.
    """
    # The length keeps ("ab", "c") and ("a", "bc") apart.
    return hashlib.sha256(f"{len(source)}:{source}{key}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipName:
    """A clip file's name, taken apart."""

    number: int
    """Tells the files of one run apart."""
    identity: str | None = None
    digest: bytes | None = None
    """None as `identity`."""
    partial: bool = False

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Return what a file's name says; None where the file is not ours."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        digest = match["digest"]
        return cls(
            number=int(match["number"]),
            identity=match["identity"],
            digest=None if digest is None else bytes.fromhex(digest),
            partial=match["part"] is not None,
        )

    @classmethod
    def of(cls, number: int, identity: str | None, digest: bytes | None) -> Self:
        """Return the name of a whole clip; it says whose bytes it holds where their digest can be checked later."""
        if identity is None or digest is None or len(digest) not in (_SHA256_BYTES, _CRC32_BYTES):
            return cls(number=number)
        return cls(number=number, identity=identity, digest=digest)

    def __str__(self) -> str:
        what = "" if self.digest is None else f"-{self.identity}-{self.digest.hex()}"
        return f"clip-{self.number}{what}{'.part' if self.partial else ''}"


def has_digest(path: Path, digest: bytes) -> bool:
    """Read a file; return whether its bytes have this digest. A file that cannot be read has not."""
    try:
        with path.open("rb", buffering=0) as file:
            return _digest_of(iter(lambda: file.read(_CHUNK_BYTES), b""), len(digest)) == digest
    except OSError:
        return False


def _digest_of(chunks: Iterable[bytes], size_bytes: int) -> bytes:
    if size_bytes == _CRC32_BYTES:
        crc = 0
        for chunk in chunks:
            crc = zlib.crc32(chunk, crc)
        return crc.to_bytes(_CRC32_BYTES, "big")
    sha256 = hashlib.sha256()
    for chunk in chunks:
        sha256.update(chunk)
    return sha256.digest()[:_SHA256_BYTES]
