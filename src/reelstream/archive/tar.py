"""Tar members, one after the other, as their bytes arrive.

Headers (ustar, GNU long names, pax) are read by the standard library's `tarfile` over a forward-only view; what it
would pass over in silence, a header that is no header, is an error here.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from reelstream.archive.forward import ForwardReader
from reelstream.errors import ArchiveChecksumError, ArchiveError

# Headers, and the long names and pax records that `tarfile` reads whole, are far smaller; a larger one is an attack.
_LARGEST_HEADER_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 18

# What `tarfile` raises at headers made to mislead: extensions of extensions without end, sparse maps of no numbers.
_TARFILE_ERRORS = (tarfile.TarError, ValueError, LookupError, OverflowError, RecursionError)


@dataclass(slots=True, kw_only=True)
class Member:
    """One member of an archive, whose bytes can be read once, until the next member is asked for."""

    name: str
    """As packed; bytes that are not UTF-8 are replaced."""
    size_bytes: int
    problem: str | None
    """Why its bytes cannot be had (a link, a device, a sparse file); None for a regular file."""
    link_target: str | None
    """For a hard link, the name of the member before it whose bytes it shares; None for all others."""
    header_offset: int
    """Decompressed offset of its header, extended ones included: what its index row says too."""
    _reader: ForwardReader = field(repr=False)
    _left_bytes: int = field(repr=False)

    @property
    def digest(self) -> bytes | None:
        """Of its bytes, once all of them have passed; None where none is made."""
        return None

    def chunks(self) -> Iterator[memoryview]:
        """Yield the member's bytes, at most 256 KiB at a time.

        Raises:
            ArchiveError: Where the archive ends before the member does.
        """
        while self._left_bytes:
            some = self._reader.read_some(min(self._left_bytes, _CHUNK_BYTES))
            if not some:
                raise ArchiveError(
                    f"the archive ends inside its member {self.name}, {self._left_bytes:,} bytes early",
                    "the published archive itself is incomplete; tell its publisher",
                )
            self._left_bytes -= len(some)
            yield some


class _ForwardView:
    """What `tarfile` needs of a file, over bytes that come only once."""

    def __init__(self, reader: ForwardReader) -> None:
        self._reader = reader
        self.last_block = b""

    def tell(self) -> int:
        return self._reader.position

    def seek(self, position: int) -> None:
        if position < self._reader.position:
            raise tarfile.ReadError("a negative size")
        self._reader.skip(position - self._reader.position)

    def read(self, size_bytes: int) -> bytes:
        if not 0 <= size_bytes <= _LARGEST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header record claims {size_bytes:,} bytes")
        self.last_block = self._reader.read(size_bytes)
        return self.last_block


def read_members(reader: ForwardReader, path: str) -> Iterator[Member]:
    """Yield the members of a tar in the order they lie, folders and metadata apart; then read on to the gzip's end.

    A member that is not read, or not to its end, is passed over.

    Args:
        reader: The archive's decompressed bytes, at its beginning.
        path: Names the archive in errors.

    Raises:
        ArchiveError: Where the tar is damaged or cut short. It is raised after the rest was read for its checksum.
        ArchiveChecksumError: At the end, where the archive was read whole and its checksum does not match.
    """
    for info, _ in walk_headers(reader, path):
        yield member_of(info, reader)


def walk_headers(
    reader: ForwardReader, path: str, *, ends_at: Callable[[int], bool] = lambda _: False, to_trailer: bool = True
) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Yield the headers of a tar in the order they lie, folders and metadata apart; then read on to the gzip's end.

    What lies between a header and the next may be read, up to the next header, or left to be passed over.

    Args:
        reader: The archive's decompressed bytes, at a header.
        path: Names the archive in errors.
        ends_at: Asked before each header (folders' too, an extended one's first) with its position: whether to stop
            there, without reading on.
        to_trailer: Whether to read on to the gzip's end where the tar is damaged, so that its checksum tells whether it
            was packed like that.

    Yields:
        A header, whose `offset` is that of its first extension (a long name, pax records), and where the next one lies.

    Raises:
        ArchiveError: As `read_members`.
        ArchiveChecksumError: As `read_members`.
    """
    view = _ForwardView(reader)
    damage: str | None = None
    if ends_at(reader.position):
        return
    try:
        # `tarfile` asks for more of its file than it uses.
        with tarfile.open(fileobj=cast("Any", view), mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
            if (yield from _headers(tar, ends_at)):
                return
        if view.last_block.strip(b"\0"):
            damage = "no header where one must be"
    except ArchiveError:
        raise
    except _TARFILE_ERRORS as error:
        damage = str(error)
    if damage is None:
        reader.drain()
        return
    listed_bytes = reader.position
    try:
        if to_trailer:
            reader.drain()
    except ArchiveChecksumError as error:
        damage += "; the gzip checksum does not match either"
        raise _damaged(path, listed_bytes, reader, damage) from error
    raise _damaged(path, listed_bytes, reader, damage)


def _headers(
    tar: tarfile.TarFile, ends_at: Callable[[int], bool]
) -> Generator[tuple[tarfile.TarInfo, int], None, bool]:
    """Yield headers, folders apart; return whether `ends_at` said so, rather than the tar."""
    while (info := tar.next()) is not None:
        # The list of all members is not needed, and grows.
        tar.members = []  # type: ignore[attr-defined]
        if info.size < 0:
            raise tarfile.ReadError("a negative size")
        if not info.isdir():
            yield info, tar.offset
        if ends_at(tar.offset):
            return True
    return False


def _damaged(path: str, listed_bytes: int, reader: ForwardReader, damage: str) -> ArchiveError:
    passed_bytes = reader.position - listed_bytes
    return ArchiveError(
        f"{path}: the tar is damaged at byte {listed_bytes:,} of its content ({damage}); "
        f"{f'{passed_bytes:,} bytes' if passed_bytes else 'what comes'} after it could not be listed",
        "tell the archive's publisher",
    )


def member_of(info: tarfile.TarInfo, reader: ForwardReader) -> Member:
    """Return the member of a header that was just read, its bytes still to come."""
    problem = None
    if info.islnk():
        problem = f"a hard link to {printable_name(info.linkname)}"
    elif info.issym():
        problem = f"a symbolic link to {printable_name(info.linkname)}"
    elif info.issparse():
        problem = "a sparse file"
    elif not info.isreg():
        problem = "not a regular file"
    size_bytes = info.size if problem is None else 0
    return Member(
        name=printable_name(info.name),
        size_bytes=size_bytes,
        problem=problem,
        link_target=printable_name(info.linkname) if info.islnk() else None,
        header_offset=info.offset,
        _reader=reader,
        _left_bytes=size_bytes,
    )


def printable_name(name: str) -> str:
    """Return a member's name as text that can be printed and stored: bytes that are not UTF-8 are replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
