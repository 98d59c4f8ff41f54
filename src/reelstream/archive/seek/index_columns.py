"""The columns of an archive's index, and what must hold between them whoever wrote them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from reelstream.archive.alignment import WINDOW_BYTES
from reelstream.archive.seek.row_kinds import DIGEST_BYTES, Coding, DigestKind, MemberKind
from reelstream.archive.seek.seek_points import Places
from reelstream.errors import ArchiveError
from reelstream.types import Int64Array, UInt8Array

# Far above any archive, far below where sums of two overflow.
_LARGEST_OFFSET = 1 << 60
# Deflate's densest code: 258 bytes for 2 bits.
LARGEST_RATIO = 1032
# What a zip has before each member at least: a name and more come on top.
LOCAL_HEADER_BYTES = 30
_LARGEST_STORED_BYTES = 0xFFFF
# An index is of one container; which one its codings are of, and 255 for what is no coding.
_NO_CONTAINER = 255
_CONTAINER_OF_CODING = np.array([0, 1, 2, 2, _NO_CONTAINER], np.uint8)
_TOO_LARGE = "a member is larger than its compressed bytes can hold"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IndexColumns:
    """The rows and points of an index, one array each; what is drawn in the description of its file format."""

    names: bytes
    """All names in UTF-8, one after the other."""
    name_ends: Int64Array
    """Where each name ends in `names`."""
    link_targets: bytes
    link_ends: Int64Array
    """One for each hard link."""
    kinds: UInt8Array
    codings: UInt8Array
    sizes: Int64Array
    header_offsets: Int64Array
    data_offsets: Int64Array
    compressed_ends: Int64Array
    point_numbers: Int64Array
    digests: bytes
    """`DIGEST_BYTES` a row, filled up with zeros where its kind has fewer."""
    digest_kinds: UInt8Array
    point_bits: Int64Array
    point_outputs: Int64Array
    point_stored_left: Int64Array
    point_stored_is_last: UInt8Array
    point_kept_ends: Int64Array
    """Where each point's kept bytes end in the two columns below."""
    places: Places
    values: bytes

    @property
    def first_bytes(self) -> Int64Array:
        """The first compressed byte of each row's range."""
        return self.point_bits[self.point_numbers] >> 3

    def check(self, archive_bytes: int) -> None:
        """Refuse columns that cannot be those of any archive of this compressed size.

        What passes can still be wrong, but a ranged read by it stays within the archive, in bounded memory, and ends.

        Raises:
            ArchiveError: With what is wrong.
        """
        for problems in (
            _shape_problems(self),
            _text_problems(self),
            _point_problems(self, archive_bytes),
            _row_problems(self, archive_bytes),
        ):
            for is_wrong, what in problems:
                if is_wrong:
                    raise ArchiveError(
                        f"an archive index is damaged: {what}",
                        "delete it; the next pass over the archive learns it anew",
                    )


# Each of these is asked for one problem after the other: a later one can rely on what the ones before ruled out.
Problems = Iterator[tuple[bool, str]]


def _shape_problems(columns: IndexColumns) -> Problems:
    num_rows, num_points, num_links = len(columns.sizes), len(columns.point_bits), len(columns.link_ends)
    for column in (
        *(columns.name_ends, columns.kinds, columns.header_offsets, columns.data_offsets),
        *(columns.compressed_ends, columns.point_numbers, columns.codings, columns.digest_kinds),
    ):
        yield len(column) != num_rows, "its rows are not whole"
    yield len(columns.digests) != num_rows * DIGEST_BYTES, "its digests are not whole"
    for column in (
        *(columns.point_outputs, columns.point_stored_left),
        *(columns.point_stored_is_last, columns.point_kept_ends),
    ):
        yield len(column) != num_points, "its points are not whole"
    yield len(columns.places) != len(columns.values), "its kept bytes are not whole"
    yield bool(np.any(columns.kinds > MemberKind.HARD_LINK)), "a member is of no known kind"
    yield bool(np.any(columns.digest_kinds > DigestKind.NONE)), "a digest is of no known kind"
    families = _CONTAINER_OF_CODING[np.minimum(columns.codings, len(_CONTAINER_OF_CODING) - 1)]
    yield bool(np.any(families == _NO_CONTAINER)), "a member lies in no known way"
    yield bool(np.any(families != families[:1])), "its members are of several containers"
    is_link = columns.kinds == MemberKind.HARD_LINK
    yield num_links != int(is_link.sum()), "it has not one target for each hard link"
    yield bool(np.any(columns.sizes[is_link] != 0)), "a hard link has a size"


def _text_problems(columns: IndexColumns) -> Problems:
    for name, ends, total in (
        ("names", columns.name_ends, len(columns.names)),
        ("link targets", columns.link_ends, len(columns.link_targets)),
        ("kept bytes", columns.point_kept_ends, len(columns.values)),
    ):
        yield not _ascends(ends) or (int(ends[-1]) if len(ends) else 0) != total, f"its {name} do not add up"


def _point_problems(columns: IndexColumns, archive_bytes: int) -> Problems:
    bits, outputs, stored = columns.point_bits, columns.point_outputs, columns.point_stored_left
    yield not _ascends(bits) or not _ascends(outputs), "its points do not ascend"
    yield _highest(bits) > archive_bytes * 8 or _highest(outputs) > _LARGEST_OFFSET, "a point lies outside the archive"
    yield bool(np.any((stored < 0) | (stored > _LARGEST_STORED_BYTES))), "a stored block is too long"
    yield bool(np.any((stored > 0) & (bits & 7 != 0))), "a place inside a stored block is no whole byte"
    yield bool(np.any(columns.point_stored_is_last > 1)), "a flag is neither 0 nor 1"
    yield bool(np.any(columns.places >= WINDOW_BYTES)), "a kept byte lies outside its window"
    num_kept = np.diff(columns.point_kept_ends, prepend=0)
    steps = np.diff(columns.places.astype(np.int64), prepend=-1)
    # The first of each point has none before it.
    steps[(columns.point_kept_ends - num_kept)[num_kept > 0]] = 1
    yield bool(np.any(steps <= 0)), "the kept bytes of a point do not ascend"


def _row_problems(columns: IndexColumns, archive_bytes: int) -> Problems:
    numbers, sizes = columns.point_numbers, columns.sizes
    headers, data, ends = columns.header_offsets, columns.data_offsets, columns.compressed_ends
    yield not _ascends(numbers) or _highest(numbers) >= len(columns.point_bits), "a row names a point that is not there"
    yield bool(np.any(sizes < 0)) or _highest(sizes) > _LARGEST_OFFSET, "a size is out of bounds"
    yield not _ascends(headers) or _highest(headers) > _LARGEST_OFFSET, "an offset is out of bounds"
    yield bool(np.any(data < headers)) or _highest(data) > _LARGEST_OFFSET, "a member begins before its header"
    yield not _ascends(ends) or _highest(ends) > archive_bytes, "a member ends outside the archive"
    if not len(sizes):
        return
    coding = Coding(int(columns.codings[0]))
    if coding is Coding.DEFLATE_STREAM:
        yield from _stream_problems(columns)
    elif coding is Coding.STORED:
        yield from _stored_problems(columns)
    else:
        yield from _zip_problems(columns)


def _stream_problems(columns: IndexColumns) -> Problems:
    headers, data, ends = columns.header_offsets, columns.data_offsets, columns.compressed_ends
    outputs, first_bytes = columns.point_outputs[columns.point_numbers], columns.first_bytes
    yield bool(np.any(data == headers)), "a member begins before its header"
    yield bool(np.any((data + columns.sizes)[:-1] > headers[1:])), "members overlap"
    yield bool(np.any(headers < outputs)), "a point lies behind its member"
    yield bool(np.any(ends <= first_bytes)), "a member ends before it begins"
    # In floating point, since the product need not fit. Some bytes of slack, for what an inflater holds back.
    most_output = (ends - first_bytes + 64).astype(np.float64) * LARGEST_RATIO
    yield bool(np.any(data + columns.sizes - outputs > most_output)), _TOO_LARGE


def _stored_problems(columns: IndexColumns) -> Problems:
    headers, data, ends = columns.header_offsets, columns.data_offsets, columns.compressed_ends
    yield bool(np.any(columns.first_bytes != data)), "a point is not where its member begins"
    yield bool(np.any(data + columns.sizes != ends)), _TOO_LARGE
    yield bool(np.any(ends[:-1] > headers[1:])), "members overlap"


def _zip_problems(columns: IndexColumns) -> Problems:
    headers, ends = columns.header_offsets, columns.compressed_ends
    yield bool(np.any(columns.first_bytes != headers)), "a point is not at its member's header"
    yield bool(np.any(columns.data_offsets - headers != LOCAL_HEADER_BYTES)), "a local header has another length"
    yield bool(np.any(ends[:-1] > headers[1:])), "members overlap"
    most_bytes = ends - headers - LOCAL_HEADER_BYTES
    yield bool(np.any(most_bytes < 0)), "a member ends before it begins"
    ratios = np.where(columns.codings == Coding.ZIP_DEFLATED, float(LARGEST_RATIO), 1.0)
    yield bool(np.any(columns.sizes > most_bytes * ratios)), _TOO_LARGE


def _ascends(values: Int64Array) -> bool:
    """Return whether values begin at 0 or above and never fall; compared, since a difference can overflow."""
    return not len(values) or bool(values[0] >= 0 and np.all(values[1:] >= values[:-1]))


def _highest(values: Int64Array) -> int:
    return int(values.max()) if len(values) else -1
