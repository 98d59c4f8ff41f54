"""Where each member lies in its archive, and how to begin reading there: what is learned in one pass over it.

Kept as columns: an archive of a million small members is looked up in as much memory as its index has bytes, and a row
is made when it is asked for.
"""

from __future__ import annotations

import enum
import fnmatch
import functools
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from reelstream.archive.seek.index_columns import IndexColumns
from reelstream.archive.seek.row_kinds import DIGEST_BYTES, Coding, DigestKind, MemberKind
from reelstream.archive.seek.seek_points import Places, SeekPoint
from reelstream.types import Int64Array

__all__ = [
    "DIGEST_BYTES",
    "ArchiveIdentity",
    "ArchiveIndex",
    "Coding",
    "DigestKind",
    "IndexBuilder",
    "IndexColumns",
    "IndexRow",
    "MemberKind",
    "Verification",
    "normal_name",
    "plain_point",
]


_NO_PLACES: Places = np.zeros(0, np.uint16)


class Verification(enum.IntEnum):
    """What is known of the bytes that an index was learned from."""

    PROVISIONAL = 0
    """The archive has not been read to its end: nothing is known yet."""
    CHECKSUM = 1
    """The checksums and lengths in the archive's gzip trailers matched."""
    SHA256 = 2
    """And so did the SHA-256 that its publisher names."""
    FAILED = 3
    """They did not match: what was read may be wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveIdentity:
    """Which bytes an index belongs to."""

    size_bytes: int
    """The archive's compressed size."""
    sha256: str | None = None
    """Hex digest of the whole file, where its publisher names one."""
    etag: str | None = None
    """The server's tag of this version of the file, where there is no digest."""

    def is_same(self, other: ArchiveIdentity) -> bool:
        """Return whether both name the same bytes: by digest, or else by size and tag."""
        if self.size_bytes != other.size_bytes:
            return False
        if self.sha256 is not None and other.sha256 is not None:
            return self.sha256 == other.sha256
        return self.etag is not None and self.etag == other.etag


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IndexRow:
    """One member: where it lies, and how to read it."""

    name: str
    """As packed; bytes that are not UTF-8 are replaced."""
    kind: MemberKind
    size_bytes: int
    """0 for a hard link."""
    header_offset: int
    """Decompressed offset of its header, extended ones included; of a loose file, 0."""
    data_offset: int
    """Decompressed offset of its first byte; in a zip the least one, since only its local header knows."""
    compressed_end: int
    """The compressed byte by which all of its bytes have come out."""
    digest: bytes
    """As `digest_kind` says; of no bytes for a hard link."""
    link_target: str | None
    """For a hard link, the name of the member whose bytes it shares."""
    point: SeekPoint
    """Where to begin reading; see `plain_point` for those outside a gzip stream."""
    coding: Coding = Coding.DEFLATE_STREAM
    """How its bytes lie in the archive."""
    digest_kind: DigestKind = DigestKind.SHA256
    """What `digest` is."""

    @property
    def first_byte(self) -> int:
        """The first compressed byte of the one range that holds the member."""
        return self.point.first_byte

    @property
    def range_bytes(self) -> int:
        """The size of that range; 0 where the member has no bytes."""
        return self.compressed_end - self.first_byte if self.size_bytes else 0


class IndexBuilder:
    """Takes rows as they are learned, in the order they lie in the archive, and makes an index of them."""

    def __init__(self) -> None:
        self._names, self._link_targets = bytearray(), bytearray()
        self._digests, self._values = bytearray(), bytearray()
        self._kinds, self._codings, self._digest_kinds = bytearray(), bytearray(), bytearray()
        self._stored_is_last = bytearray()
        self._columns = {
            name: array("q")
            for name in (
                *("name_ends", "link_ends", "sizes", "header_offsets", "data_offsets", "compressed_ends"),
                *("point_numbers", "point_bits", "point_outputs", "point_stored_left", "point_kept_ends"),
            )
        }
        self._places: list[Places] = []
        self._last_point: SeekPoint | None = None

    def __len__(self) -> int:
        return len(self._kinds)

    def add(self, row: IndexRow) -> None:
        """Take the next row; rows that share a point come one after the other."""
        if row.point is not self._last_point:
            self._add_point(row.point)
        columns = self._columns
        self._names += row.name.encode("utf-8", "replace")
        columns["name_ends"].append(len(self._names))
        if row.kind is MemberKind.HARD_LINK:
            self._link_targets += (row.link_target or "").encode("utf-8", "replace")
            columns["link_ends"].append(len(self._link_targets))
        self._kinds.append(row.kind)
        columns["sizes"].append(row.size_bytes)
        columns["header_offsets"].append(row.header_offset)
        columns["data_offsets"].append(row.data_offset)
        columns["compressed_ends"].append(row.compressed_end)
        columns["point_numbers"].append(len(columns["point_bits"]) - 1)
        self._codings.append(row.coding)
        self._digest_kinds.append(row.digest_kind)
        self._digests += row.digest.ljust(DIGEST_BYTES, b"\0")

    def build(self, identity: ArchiveIdentity, verification: Verification, *, complete: bool) -> ArchiveIndex:
        """Return the index of the rows so far."""
        columns = {name: np.array(column, np.int64) for name, column in self._columns.items()}
        return ArchiveIndex(
            identity=identity,
            verification=verification,
            complete=complete,
            columns=IndexColumns(
                names=bytes(self._names),
                link_targets=bytes(self._link_targets),
                kinds=np.frombuffer(bytes(self._kinds), np.uint8),
                codings=np.frombuffer(bytes(self._codings), np.uint8),
                digest_kinds=np.frombuffer(bytes(self._digest_kinds), np.uint8),
                digests=bytes(self._digests),
                point_stored_is_last=np.frombuffer(bytes(self._stored_is_last), np.uint8),
                places=np.concatenate([*self._places, np.zeros(0, np.uint16)]),
                values=bytes(self._values),
                **columns,
            ),
        )

    def _add_point(self, point: SeekPoint) -> None:
        self._last_point = point
        self._columns["point_bits"].append(point.bit_offset)
        self._columns["point_outputs"].append(point.output_offset)
        self._columns["point_stored_left"].append(point.stored_left_bytes)
        self._stored_is_last.append(point.stored_is_last)
        self._places.append(point.places)
        self._values += point.values
        self._columns["point_kept_ends"].append(len(self._values))


class ArchiveIndex:
    """An archive's members, in the order they lie in it.

    Its numbers are taken as they are: `IndexColumns.check` is for those that come from elsewhere.

    Args:
        identity: The archive.
        verification: What is known of the bytes that it was learned from.
        complete: Whether all members are in it; otherwise the listing ended early.
        columns: The rows.
    """

    def __init__(
        self, *, identity: ArchiveIdentity, verification: Verification, complete: bool, columns: IndexColumns
    ) -> None:
        self.identity = identity
        self.verification = verification
        self.complete = complete
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns.sizes)

    def __iter__(self) -> Iterator[IndexRow]:
        return (self.row(number) for number in range(len(self)))

    @property
    def num_points(self) -> int:
        """Seek points; members that are small share one."""
        return len(self.columns.point_bits)

    def row(self, number: int) -> IndexRow:
        """Return a row by its number, from 0 in the order of the archive."""
        if not 0 <= number < len(self):
            raise IndexError(f"row {number} of an index of {len(self)}")
        columns = self.columns
        kind = MemberKind(int(columns.kinds[number]))
        digest_kind = DigestKind(int(columns.digest_kinds[number]))
        digest_at = number * DIGEST_BYTES
        return IndexRow(
            name=self.name(number),
            kind=kind,
            size_bytes=int(columns.sizes[number]),
            header_offset=int(columns.header_offsets[number]),
            data_offset=int(columns.data_offsets[number]),
            compressed_end=int(columns.compressed_ends[number]),
            digest=columns.digests[digest_at : digest_at + digest_kind.size_bytes],
            link_target=self._link_target(number) if kind is MemberKind.HARD_LINK else None,
            point=self._point(int(columns.point_numbers[number])),
            coding=Coding(int(columns.codings[number])),
            digest_kind=digest_kind,
        )

    def name(self, number: int) -> str:
        """Return the name of a row's member."""
        return _text(self.columns.names, self.columns.name_ends, number)

    def find(self, name: str) -> int | None:
        """Return the number of the member of that name, the first of several; `./` before it makes no difference."""
        return next(iter(self.find_all(name)), None)

    def find_all(self, name: str) -> list[int]:
        """Return the numbers of all members of that name: a tar may hold one twice, or as `a` and as `./a`."""
        wanted = normal_name(name)
        hashes, numbers = self._by_name
        first, end = np.searchsorted(hashes, hash(wanted), "left"), np.searchsorted(hashes, hash(wanted), "right")
        return [number for number in sorted(numbers[first:end].tolist()) if normal_name(self.name(number)) == wanted]

    def matching(self, pattern: str) -> list[int]:
        """Return the numbers of the members whose names match a pattern with `*`, `?` and `[...]`."""
        matches = re.compile(fnmatch.translate(normal_name(pattern))).match
        return [number for number in range(len(self)) if matches(normal_name(self.name(number)))]

    def holding(self, number: int) -> int | None:
        """Return the number of the row that holds a member's bytes: itself, or what a hard link links to.

        None where the target does not lie before the link.
        """
        while self.columns.kinds[number] == MemberKind.HARD_LINK:
            before = [target for target in self.find_all(self._link_target(number)) if target < number]
            if not before:
                return None
            number = before[-1]
        return number

    def _link_target(self, number: int) -> str:
        return _text(self.columns.link_targets, self.columns.link_ends, int(self._link_numbers[number]) - 1)

    def _point(self, number: int) -> SeekPoint:
        columns = self.columns
        first = int(columns.point_kept_ends[number - 1]) if number else 0
        end = int(columns.point_kept_ends[number])
        return SeekPoint(
            bit_offset=int(columns.point_bits[number]),
            output_offset=int(columns.point_outputs[number]),
            stored_left_bytes=int(columns.point_stored_left[number]),
            stored_is_last=bool(columns.point_stored_is_last[number]),
            places=columns.places[first:end],
            values=columns.values[first:end],
        )

    @functools.cached_property
    def _link_numbers(self) -> Int64Array:
        """How many hard links there are up to each row."""
        return np.cumsum(self.columns.kinds == MemberKind.HARD_LINK, dtype=np.int64)

    @functools.cached_property
    def _by_name(self) -> tuple[Int64Array, Int64Array]:
        """Hashes of the normal names, ascending, and the rows they belong to."""
        hashes = np.fromiter(
            (hash(normal_name(self.name(number))) for number in range(len(self))), np.int64, count=len(self)
        )
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order


def plain_point(first_byte: int) -> SeekPoint:
    """Return where to begin reading outside a gzip stream: at a byte, with nothing known of what comes before."""
    return SeekPoint(
        bit_offset=first_byte * 8,
        output_offset=first_byte,
        stored_left_bytes=0,
        stored_is_last=False,
        places=_NO_PLACES,
        values=b"",
    )


def normal_name(name: str) -> str:
    """Return a member's name without what makes no difference: `./` and doubled slashes."""
    return "/".join(part for part in name.split("/") if part not in {"", "."})


def _text(texts: bytes, ends: Int64Array, number: int) -> str:
    first = int(ends[number - 1]) if number else 0
    return texts[first : int(ends[number])].decode("utf-8", "replace")
