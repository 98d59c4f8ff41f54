"""Where to go on reading in the middle of a cut, on any machine, with nothing else at hand.

States are kept in files that others may have written, so what is read back is checked: a bookmark that lies costs an
error or a wrong checksum at the archive's end, never memory.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from reelstream.archive.alignment import WINDOW_BYTES
from reelstream.archive.cuts.piece import Segment
from reelstream.archive.inflation import GzipTrailer
from reelstream.archive.seek.index import IndexRow
from reelstream.archive.seek.seek_points import SeekPoint
from reelstream.errors import ArchiveError

# Far above any archive, far below where sums of two overflow.
_MOST_OFFSET = 1 << 60
_MOST_CRC32 = 0xFFFF_FFFF
_MOST_STORED_BYTES = 0xFFFF
# A piece keeps its first gzip member, one that is false, and the one it ends in.
MOST_SEGMENTS = 3
_MOST_CUTS = 1 << 16

_HINT = "the saved state is damaged or of another version; go on from an older one"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bookmark:
    """A place at which a reader can go on: at a member's header.

    All offsets are counted as those of the rows of its cut.
    """

    point: SeekPoint
    """Where decompression begins; all from the header on can be read from it."""
    header_offset: int
    """The decompressed offset of the header to go on at."""
    border_offset: int
    """That of the cut's border."""
    segments: tuple[Segment, ...]
    """Checksums from the cut's border to the header."""
    watch_from: int
    """The compressed byte from which on later cuts are still to be watched for."""
    false_borders: tuple[int, ...] = ()
    """The first bytes of the cuts before it that went astray."""
    confirmed: tuple[int, ...] = ()
    """The first bytes of cuts at or after it whose border was met already, and passed for another's sake."""

    def to_json(self) -> dict[str, Any]:
        """Return it as what JSON holds: some 300 bytes for an archive of media."""
        return {
            "point": point_to_json(self.point),
            "header_offset": self.header_offset,
            "border_offset": self.border_offset,
            "segments": segments_to_json(self.segments),
            "watch_from": self.watch_from,
            "false_borders": list(self.false_borders),
            "confirmed": list(self.confirmed),
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Return the bookmark that `to_json` was called for.

        Raises:
            ArchiveError: Where it is none.
        """
        fields = Fields(data, "a bookmark")
        point = point_from_json(fields.value("point"))
        bookmark = cls(
            point=point,
            header_offset=fields.integer("header_offset", least=point.output_offset),
            border_offset=fields.integer("border_offset"),
            segments=segments_from_json(fields.value("segments")),
            watch_from=fields.integer("watch_from"),
            false_borders=fields.integers("false_borders"),
            confirmed=fields.integers("confirmed"),
        )
        passed_bytes = bookmark.header_offset - bookmark.border_offset
        if not bookmark.segments or passed_bytes < 0 or bookmark.segments[-1].size_bytes > passed_bytes:
            raise fields.refusal("its checksums do not fit")
        return bookmark


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LearnedRow:
    """A row of the archive's index that a reader learned, offsets counted as in the report of its cut."""

    cut: int
    """The first byte of the cut that it belongs to."""
    row: IndexRow
    bookmark: Bookmark
    """Where to go on at this very member."""


class Fields:
    """Values of a JSON object that cannot be trusted, checked one by one.

    Args:
        data: What should be an object.
        what: Names it in errors.
    """

    def __init__(self, data: object, what: str) -> None:
        self._what = what
        if not isinstance(data, dict):
            raise self.refusal("it is no object")
        self._data = data

    def refusal(self, problem: str) -> ArchiveError:
        """Return the error that says what is wrong."""
        return ArchiveError(f"{self._what} cannot be used: {problem}", _HINT)

    def value(self, name: str) -> Any:
        """Return a value of any kind."""
        if name not in self._data:
            raise self.refusal(f"`{name}` is missing")
        return self._data[name]

    def integer(self, name: str, *, least: int = 0, most: int = _MOST_OFFSET) -> int:
        """Return a whole number within bounds."""
        return self._checked(self.value(name), name, least, most)

    def integers(self, name: str, *, most_values: int = _MOST_CUTS) -> tuple[int, ...]:
        """Return a list of offsets."""
        values = self.value(name)
        if not isinstance(values, list) or len(values) > most_values:
            raise self.refusal(f"`{name}` is no list of offsets")
        return tuple(self._checked(value, name, 0, _MOST_OFFSET) for value in values)

    def flag(self, name: str) -> bool:
        """Return a boolean."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise self.refusal(f"`{name}` is neither true nor false")
        return value

    def packed(self, name: str, most_bytes: int) -> bytes:
        """Return bytes that `packed` made."""
        try:
            inflater = zlib.decompressobj()
            unpacked = inflater.decompress(base64.b64decode(self.value(name), validate=True), most_bytes)
        except (TypeError, ValueError, binascii.Error, zlib.error) as error:
            raise self.refusal(f"`{name}` is not what was written ({error})") from error
        if not inflater.eof:
            raise self.refusal(f"`{name}` is not what was written")
        return unpacked

    def _checked(self, value: object, name: str, least: int, most: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.refusal(f"`{name}` is {value!r:.40}, not a number from {least} to {most}")
        return value


def packed(data: bytes) -> str:
    """Return bytes as text for JSON."""
    return base64.b64encode(zlib.compress(data, 9)).decode()


def point_to_json(point: SeekPoint) -> dict[str, Any]:
    """Return a seek point as what JSON holds."""
    # Steps rather than places: those of a window that is kept whole are all the same.
    steps = np.diff(point.places, prepend=np.zeros(1, np.uint16)).astype("<u2")
    return {
        "bit_offset": point.bit_offset,
        "output_offset": point.output_offset,
        "stored_left_bytes": point.stored_left_bytes,
        "stored_is_last": point.stored_is_last,
        "places": packed(steps.tobytes()),
        "values": packed(point.values),
    }


def point_from_json(data: object) -> SeekPoint:
    """Return the seek point that `point_to_json` was called for.

    Raises:
        ArchiveError: Where it is none.
    """
    fields = Fields(data, "a seek point")
    steps = fields.packed("places", 2 * WINDOW_BYTES)
    values = fields.packed("values", WINDOW_BYTES)
    bit_offset = fields.integer("bit_offset")
    stored_left_bytes = fields.integer("stored_left_bytes", most=_MOST_STORED_BYTES)
    if len(steps) != 2 * len(values):
        raise fields.refusal("its window is not whole")
    places = np.cumsum(np.frombuffer(steps, "<u2"), dtype=np.int64)
    if np.any(np.diff(places) <= 0) or np.any(places >= WINDOW_BYTES):
        raise fields.refusal("its window's places do not ascend")
    if stored_left_bytes and bit_offset & 7:
        raise fields.refusal("a place inside a stored block is no whole byte")
    return SeekPoint(
        bit_offset=bit_offset,
        output_offset=fields.integer("output_offset"),
        stored_left_bytes=stored_left_bytes,
        stored_is_last=fields.flag("stored_is_last"),
        places=places.astype(np.uint16),
        values=values,
    )


def segments_to_json(segments: tuple[Segment, ...]) -> list[Any]:
    """Return the checksums of a piece as what JSON holds."""
    return [
        {
            "crc32": segment.crc32,
            "size_bytes": segment.size_bytes,
            "trailer": segment.trailer and {"crc32": segment.trailer.crc32, "size_bytes": segment.trailer.size_bytes},
        }
        for segment in segments
    ]


def segments_from_json(data: object) -> tuple[Segment, ...]:
    """Return the checksums that `segments_to_json` was called for.

    Raises:
        ArchiveError: Where they are none.
    """
    if not isinstance(data, list) or len(data) > MOST_SEGMENTS:
        raise ArchiveError("the checksums of a piece cannot be used: they are no short list", _HINT)
    segments = []
    for number, each in enumerate(data):
        fields = Fields(each, "a checksum of a piece")
        trailer = fields.value("trailer")
        segments.append(
            Segment(
                crc32=fields.integer("crc32", most=_MOST_CRC32),
                size_bytes=fields.integer("size_bytes"),
                trailer=None if trailer is None else _trailer_from_json(trailer),
            )
        )
        if (trailer is None) != (number == len(data) - 1):
            raise fields.refusal("it lies at the wrong place of its list")
    return tuple(segments)


def _trailer_from_json(data: object) -> GzipTrailer:
    fields = Fields(data, "a checksum of a gzip member")
    return GzipTrailer(
        crc32=fields.integer("crc32", most=_MOST_CRC32), size_bytes=fields.integer("size_bytes", most=_MOST_CRC32)
    )
