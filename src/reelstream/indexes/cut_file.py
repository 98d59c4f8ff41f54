r"""A learned cut as one small file: its rows as an index that is not complete, and what its reader says as JSON.

```
offset  bytes  what
0       8      b"reelcut\n"
8       2      version
10      2      0
12      4      J, the bytes of the JSON
16      8      R, the bytes of the rows
24      J      JSON: first_byte, report, bookmark
24+J    R      the rows, in the format of an index file
24+J+R  32     SHA-256 of all before
```

Numbers are little-endian. What is read is not trusted, as with an index.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reelstream.archive import ArchiveIdentity, ArchiveIndex, IndexRow, Verification, decode_index, encode_index
from reelstream.archive.cuts.bookmark import Bookmark
from reelstream.archive.cuts.report import CutReport
from reelstream.archive.seek.index import IndexBuilder
from reelstream.archive.seek.index_format import FASTEST
from reelstream.errors import ArchiveError

MAGIC = b"reelcut\n"
VERSION = 1
MOST_FILE_BYTES = 1 << 28

_HEADER = struct.Struct("<8sHHIQ")
_CHECK_BYTES = 32
_HINT = "delete it; its bytes are read again where they are needed"


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedCut:
    """What is known of one cut of an archive."""

    first_byte: int
    """The cut's first compressed byte."""
    report: CutReport | None
    """What its reader found; None while it is being read."""
    rows: Sequence[IndexRow]
    """Its members so far, in the order of the archive, their offsets counted as the report counts."""
    bookmark: Bookmark | None = field(default=None)
    """Where reading can go on: at the last one of these rows. None where it need not."""


def encode_cut(identity: ArchiveIdentity, cut: LearnedCut) -> bytes:
    """Return a learned cut of an archive as the bytes of a file."""
    builder = IndexBuilder()
    for row in cut.rows:
        builder.add(row)
    rows = encode_index(builder.build(identity, Verification.PROVISIONAL, complete=False), level=FASTEST)
    document = {
        "first_byte": cut.first_byte,
        "report": None if cut.report is None else cut.report.to_json(),
        "bookmark": None if cut.bookmark is None else cut.bookmark.to_json(),
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    content = _HEADER.pack(MAGIC, VERSION, 0, len(text), len(rows)) + text + rows
    return content + hashlib.sha256(content).digest()


def decode_cut(content: bytes, identity: ArchiveIdentity, first_byte: int, where: str) -> LearnedCut:
    """Return the learned cut that the bytes of a file hold.

    Args:
        content: The whole file.
        identity: The archive that it must be of.
        first_byte: Where its cut must begin.
        where: Names it in errors.

    Raises:
        ArchiveError: Where it is no learned cut of this archive and byte, of another version, damaged or cut short.
    """
    if len(content) < _HEADER.size + _CHECK_BYTES or not content.startswith(MAGIC):
        raise ArchiveError(f"{where} is no learned cut", _HINT)
    _, version, _, text_bytes, rows_bytes = _HEADER.unpack_from(content)
    if version != VERSION:
        raise ArchiveError(f"{where} has version {version}; this release reads version {VERSION}", _HINT)
    if len(content) != _HEADER.size + text_bytes + rows_bytes + _CHECK_BYTES:
        raise ArchiveError(f"{where} is cut short, or has more than it says", _HINT)
    if hashlib.sha256(content[:-_CHECK_BYTES]).digest() != content[-_CHECK_BYTES:]:
        raise ArchiveError(f"{where} is damaged: its checksum does not match", _HINT)
    text, rows = content[_HEADER.size :][:text_bytes], content[_HEADER.size + text_bytes : -_CHECK_BYTES]
    index = decode_index(rows, where)
    if not index.identity.is_same(identity):
        raise ArchiveError(f"{where} is of another archive than its name says", _HINT)
    document = _document(text, where)
    report, bookmark = document.get("report"), document.get("bookmark")
    cut = LearnedCut(
        first_byte=first_byte,
        report=None if report is None else CutReport.from_json(report),
        rows=_rows_of(index),
        bookmark=None if bookmark is None else Bookmark.from_json(bookmark),
    )
    reported_byte = first_byte if cut.report is None else cut.report.first_byte
    if not document.get("first_byte") == reported_byte == first_byte:
        raise ArchiveError(f"{where} is of another cut than its name says", _HINT)
    return cut


def _document(text: bytes, where: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{where} is damaged: it holds no JSON where it must", _HINT) from error
    if not isinstance(document, dict):
        raise ArchiveError(f"{where} is damaged: its JSON is no object", _HINT)
    return document


def _rows_of(index: ArchiveIndex) -> list[IndexRow]:
    """Return an index's rows, sharing points as they were given: so that they are kept once when written anew."""
    rows: list[IndexRow] = []
    for row in index:
        point = rows[-1].point if rows else row.point
        same = (point.bit_offset, point.output_offset) == (row.point.bit_offset, row.point.output_offset)
        rows.append(dataclasses.replace(row, point=point) if same else row)
    return rows
