"""Where a cut's members begin: told from an entry's output by a reader who knows nothing else.

The border is a header that lies where the chain of headers from the first one that is met leads to. One header alone
is not enough, even if its checksum is right: it may lie inside a file; and the first one that is met may lack the
extended headers (a long name, pax records) that came before it, unseen. So the chain must

- have passed a member's own header, so that all extended headers of the next one are seen, and
- be at least 64 KiB long, so that a small tar inside a file ends, and is known by what follows its end.

A large tar inside a file is taken for the archive by this rule. Who comes from before knows better, and says so.
"""

from __future__ import annotations

import tarfile

BLOCK_BYTES = 512
"""Of a tar: headers take one, and what follows is padded to a multiple."""

_CHAIN_BYTES = 1 << 16
_MAGIC = b"ustar"
_MAGIC_AT = 257
_EXTENSIONS = frozenset(
    (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
)


class BorderScan:
    """Finds the border in output that passes by.

    Args:
        start: The position in the output from which it is true.
    """

    def __init__(self, start: int) -> None:
        self.border: int | None = None
        """The position of the border, once it has passed by with its header."""
        self._searched_from = start
        self._chain_from: int | None = None
        self._next_header = 0
        self._passed_member = False
        self._in_zeros = False
        self._tail = b""

    @property
    def next_header(self) -> int | None:
        """Where the next header must lie; None while none was met."""
        return None if self._chain_from is None else self._next_header

    @property
    def searched_to(self) -> int | None:
        """Up to where no header lies; None where one was met."""
        return self._searched_from if self._chain_from is None else None

    def follow(self, piece: bytes, position: int) -> None:
        """Look at the next piece of output, which begins at `position`."""
        if self.border is not None or position + len(piece) <= self._needs_from():
            return
        output = self._tail + piece
        first = position - len(self._tail)
        while self.border is None and self._step(output, first):
            pass
        self._tail = output[max(0, self._needs_from() - first) :]

    def _needs_from(self) -> int:
        return self._searched_from if self._chain_from is None else self._next_header

    def _step(self, output: bytes, first: int) -> bool:
        """Take one step; return False where more output is needed for it."""
        if self._chain_from is None:
            return self._search(output, first)
        if self._in_zeros:
            return self._pass_zeros(output, first)
        at = self._next_header - first
        block = output[at : at + BLOCK_BYTES]
        if len(block) < BLOCK_BYTES:
            return False
        if not block.strip(b"\0"):
            self._in_zeros = True
            return True
        header = plausible_header(block)
        if header is None:
            self._search_from(self._next_header)
        elif self._passed_member and self._next_header - self._chain_from >= _CHAIN_BYTES:
            self.border = self._next_header
        else:
            self._pass_header(header)
        return True

    def _search(self, output: bytes, first: int) -> bool:
        found = output.find(_MAGIC, max(0, self._searched_from + _MAGIC_AT - first))
        if found < 0:
            # What may be the beginning of a header stays.
            self._searched_from = max(self._searched_from, first + len(output) - (_MAGIC_AT + len(_MAGIC) - 1))
            return False
        self._searched_from = first + found - _MAGIC_AT
        block = output[found - _MAGIC_AT : found - _MAGIC_AT + BLOCK_BYTES]
        if len(block) < BLOCK_BYTES:
            return False
        header = plausible_header(block)
        if header is None:
            self._searched_from += 1
        else:
            self._chain_from = self._next_header = self._searched_from
            self._passed_member = False
            self._pass_header(header)
        return True

    def _pass_header(self, header: tarfile.TarInfo) -> None:
        self._passed_member |= header.type not in _EXTENSIONS
        self._next_header += BLOCK_BYTES + payload_bytes(header)

    def _pass_zeros(self, output: bytes, first: int) -> bool:
        """A tar ends in zeros. Where something follows them, that tar lay inside a file, and the search goes on."""
        rest = output[self._next_header - first :]
        num_zeros = len(rest) - len(rest.lstrip(b"\0"))
        self._next_header += num_zeros // BLOCK_BYTES * BLOCK_BYTES
        if num_zeros == len(rest):
            return False
        self._search_from(self._next_header)
        return True

    def _search_from(self, position: int) -> None:
        self._chain_from = None
        self._in_zeros = False
        self._searched_from = position


def plausible_header(block: bytes) -> tarfile.TarInfo | None:
    """Return the header that a block is, with magic and checksum right; None where it is none."""
    if block[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] != _MAGIC:
        return None
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return None
    return header if header.size >= 0 else None


def payload_bytes(header: tarfile.TarInfo) -> int:
    """Return the bytes between a header and the next, as `tarfile` counts them."""
    has_payload = header.isreg() or header.type in _EXTENSIONS or header.type not in tarfile.SUPPORTED_TYPES
    return -(-header.size // BLOCK_BYTES) * BLOCK_BYTES if has_payload else 0
