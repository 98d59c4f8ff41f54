"""Containers of any bytes: read right or refused, in bounded memory, whatever hypothesis thinks of."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import io
import json
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from archive_index_kit import media
from container_kit import Packed, RawEntry, pack, raw_zip, zip_of
from reelstream.archive import BytesSource, decode_index, encode_index, read_member, read_rows
from reelstream.archive.containers import ContainerKind, open_stream, read_directory
from reelstream.archive.cuts.bookmark import Bookmark
from reelstream.archive.seek.index import ArchiveIndex
from reelstream.errors import ArchiveError
from reelstream.testing import pack_tar

# Far less than any lie could claim: these containers have some 100 kB.
MOST_MEMORY_BYTES = 24_000_000

FILES = {"a/0.mp4": media(0, 40_000), "a/1.mp4": media(1, 700), "empty": b"", "zeros": bytes(60_000), "ü": b"x" * 513}
CONTAINERS = {name: pack(name, FILES) for name in ("tar.gz", "tar", "tar pax", "zip stored", "zip deflated", "zip64")}


def read_whole(packed: Packed, *, resume: Bookmark | None = None) -> Iterator[tuple[str, bytes]]:
    """Yield what can be read of a container, held against what its size allows."""
    source = BytesSource(packed.content, chunk_bytes=5000)
    total = 0
    with open_stream(packed.container(with_sha256=False), source, resume=resume) as stream:
        for member in stream.members():
            content = bytearray()
            try:
                for chunk in member.chunks():
                    content += chunk
                    assert len(content) <= member.size_bytes
            except ArchiveError:
                continue
            if member.problem is None:
                yield member.name, bytes(content)
            total += len(content)
            assert total <= 1100 * len(packed.content) + 1000
        for row in stream.index():
            if row.size_bytes <= 1 << 20:
                try_row(source, row)


def try_row(source: BytesSource, row: Any) -> None:
    with contextlib.suppress(ArchiveError):
        b"".join(read_member(source, row))


changes = st.lists(
    st.tuples(
        st.floats(0, 1), st.sampled_from(("set", "insert", "remove", "repeat")), st.binary(min_size=1, max_size=9)
    ),
    min_size=1,
    max_size=4,
)


def changed(content: bytes, how: list[tuple[float, str, bytes]]) -> bytes:
    for share, kind, data in how:
        place = int(share * len(content))
        end = place if kind == "insert" else place + len(data) * (1 if kind == "set" else 300)
        middle = {"set": data, "insert": data, "remove": b"", "repeat": content[place:end] * 2}[kind]
        content = content[:place] + middle + content[end:]
    return content


@settings(max_examples=80, deadline=None)
@given(name=st.sampled_from(sorted(CONTAINERS)), how=changes)
def test_a_changed_container_is_read_or_refused(name: str, how: list[tuple[float, str, bytes]]) -> None:
    packed = CONTAINERS[name]
    content = changed(packed.content, how)
    try:
        found = list(read_whole(dataclasses.replace(packed, content=content)))
    except ArchiveError:
        return
    if packed.kind in {ContainerKind.ZIP, ContainerKind.TAR_GZ}:
        # A plain tar has no checksum; a zip's names have none.
        assert all(content in FILES.values() for _, content in found)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(sorted(CONTAINERS)), how=changes)
def test_a_changed_container_takes_bounded_memory(name: str, how: list[tuple[float, str, bytes]]) -> None:
    packed = dataclasses.replace(CONTAINERS[name], content=changed(CONTAINERS[name].content, how))
    tracemalloc.start()
    try:
        for _ in read_whole(packed):
            pass
    except ArchiveError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MOST_MEMORY_BYTES


# Near the end and in headers, where it matters most.
def near(content: bytes, *marks: bytes) -> list[int]:
    places: list[int] = []
    for mark in marks:
        place = -1
        while (place := content.find(mark, place + 1)) >= 0:
            places += range(place, min(place + 60, len(content)))
    return places


ZIP = CONTAINERS["zip64"].content
ZIP_PLACES = near(ZIP, b"PK\1\2", b"PK\3\4", b"PK\5\6")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ZIP_PLACES), st.integers(0, 255)), min_size=1, max_size=5))
def test_any_fields_of_a_zip_give_true_bytes_or_errors(lies: list[tuple[int, int]]) -> None:
    content = bytearray(ZIP)
    for place, value in lies:
        content[place] = value
    try:
        found = list(read_whole(zip_of(bytes(content))))
    except ArchiveError:
        return
    true = set(FILES.values())
    for _, got in found:
        # Of a member whose size and checksum were both changed nothing is known; four bytes do not do that.
        assert got in true or any(got == each[: len(got)] for each in true)


small = st.one_of(st.integers(0, 70), st.sampled_from((0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF)))
raw_entries = st.builds(
    RawEntry,
    name=st.binary(max_size=12),
    content=st.binary(max_size=60),
    method=st.sampled_from((0, 0, 8, 8, 12, 99)),
    flags=st.sampled_from((0, 0, 1, 1 << 3, 1 << 11)),
    system=st.sampled_from((0, 3, 19, 255)),
    mode=st.sampled_from((0, 0o100644, 0o120777, 0o040755, 0o177777)),
    attributes=st.sampled_from((0, 0x10, 0xFFFF)),
    disk=st.sampled_from((0, 0, 1, 0xFFFF)),
    size_bytes=st.one_of(st.none(), small),
    packed_bytes=st.one_of(st.none(), small),
    offset=st.one_of(st.none(), small),
    extra=st.one_of(st.just(b""), st.binary(max_size=40), st.binary(max_size=28).map(lambda d: b"\1\0\x1c\0" + d)),
    local_extra=st.binary(max_size=9),
)


@settings(max_examples=200, deadline=None)
@given(entries=st.lists(raw_entries, max_size=5), tail=st.binary(max_size=60))
def test_any_directory_is_read_or_refused(entries: list[RawEntry], tail: bytes) -> None:
    packed = zip_of(raw_zip(entries, tail=tail))
    try:
        directory = read_directory(packed.container(), BytesSource(packed.content))
        assert directory is not None
        assert len(directory.index) + len(directory.unserved) <= len(entries)
        list(read_whole(packed))
    except ArchiveError:
        return


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=2000), st.sampled_from(list(ContainerKind)))
@example(b"PK\5\6" + bytes(18), ContainerKind.ZIP)
def test_any_bytes_are_read_or_refused_as_any_kind(content: bytes, kind: ContainerKind) -> None:
    try:
        found = list(read_whole(Packed(kind=kind, content=content, files={"a": b""})))
    except ArchiveError:
        return
    if kind is ContainerKind.FILE:
        assert found == [("a", content)]


names = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=20)


@settings(max_examples=80, deadline=None)
@given(
    files=st.dictionaries(names, st.binary(max_size=3000), max_size=6),
    method=st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)),
    # The standard library takes the end of a prefix for a ZIP64 locator, and refuses the zip.
    prefix=st.binary(max_size=50).map(lambda data: data.replace(b"P", b"p")),
)
def test_any_zip_is_read_as_the_standard_library_reads_it(files: dict[str, bytes], method: int, prefix: bytes) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    packed = zip_of(prefix + stream.getvalue())
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        expected = [(each.filename, archive.read(each)) for each in archive.infolist() if not each.is_dir()]
    assert list(read_whole(packed)) == expected


# --- tar headers ----------------------------------------------------------------------------------------------------

TAR = pack_tar({"a.mp4": b"x" * 900, "d/" + "n" * 120: b"y" * 30, "z.mp4": b"z" * 600})
HEADERS = [place for place in range(0, len(TAR), 512) if TAR[place + 257 : place + 262] == b"ustar"]
fields = st.tuples(st.sampled_from(HEADERS), st.integers(0, 344), st.binary(min_size=1, max_size=12))


def signed_header(content: bytearray, place: int) -> None:
    """Make a header's checksum right, whatever it says."""
    content[place + 148 : place + 156] = b" " * 8
    content[place + 148 : place + 156] = b"%06o\0 " % sum(content[place : place + 512])


@settings(max_examples=250, deadline=None)
@given(lies=st.lists(fields, min_size=1, max_size=3), compressed=st.booleans())
@example([(HEADERS[0], 124, b"77777777777\0")], False)
@example([(HEADERS[0], 124, b"\xff" * 12)], True)
@example([(HEADERS[0], 124, b"\x80" + b"\0" * 3 + b"\xff" * 8)], False)
@example([(HEADERS[1], 156, b"x")], False)
def test_any_tar_headers_are_read_or_refused(lies: list[tuple[int, int, bytes]], compressed: bool) -> None:
    content = bytearray(TAR)
    for place, offset, data in lies:
        content[place + offset : place + offset + len(data)] = data
        signed_header(content, place)
    if compressed:
        packed = Packed(ContainerKind.TAR_GZ, gzip.compress(bytes(content), 1), {})
    else:
        packed = Packed(ContainerKind.TAR, bytes(content), {})
    try:
        list(read_whole(packed))
    except ArchiveError:
        return


pax_records = st.dictionaries(
    st.sampled_from(
        ("path", "linkpath", "size", "hdrcharset", "GNU.sparse.map", "GNU.sparse.size", "GNU.sparse.major", "mtime")
    ),
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=20),
    max_size=4,
)


@settings(max_examples=80, deadline=None)
@given(pax_records)
@example({"size": "-5"})
@example({"size": "99999999999999999999"})
@example({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})
def test_any_pax_records_are_read_or_refused(records: dict[str, str]) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.mp4")
        info.size = 700
        info.pax_headers = records
        try:
            tar.addfile(info, io.BytesIO(bytes(700)))
        except (ValueError, tarfile.TarError):
            return
    try:
        list(read_whole(Packed(ContainerKind.TAR, stream.getvalue(), {})))
    except ArchiveError:
        return


# --- index files of containers that are not compressed as a whole ----------------------------------------------------


def index_of(packed: Packed) -> ArchiveIndex:
    with open_stream(packed.container(), BytesSource(packed.content)) as stream:
        for _ in stream.members():
            pass
        return stream.index()


PLAIN = {name: (CONTAINERS[name].content, index_of(CONTAINERS[name])) for name in ("tar", "zip stored", "zip deflated")}


def signed(name: str, body: bytes) -> bytes:
    header = encode_index(PLAIN[name][1])[:54]
    packed = zstandard.compress(body)
    content = header + struct.pack("<QQ", len(packed), len(body)) + packed
    return content + hashlib.sha256(content).digest()


BODIES = {name: zstandard.decompress(encode_index(index)[70:-32]) for name, (_, index) in PLAIN.items()}


def assert_reads_fail_cleanly(content: bytes, index: ArchiveIndex) -> None:
    source = BytesSource(content)
    for number in range(len(index)):
        row = index.row(number)
        held = index.holding(number)
        if held != number:
            continue
        try:
            got = b"".join(read_member(source, row))
        except ArchiveError:
            continue
        assert len(got) == row.size_bytes
        assert len(got) <= 1032 * len(content)
    regular = [row for row in index if not row.link_target and not row.kind]
    try:
        for member in read_rows(source, regular):
            b"".join(member.chunks())
    except ArchiveError:
        return


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(sorted(PLAIN)),
    lies=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4),
)
def test_a_changed_and_signed_index_is_refused_or_its_reads_fail_cleanly(
    name: str, lies: list[tuple[float, int]]
) -> None:
    body = bytearray(BODIES[name])
    for share, change in lies:
        body[int(share * len(body))] ^= change
    try:
        index = decode_index(signed(name, bytes(body)))
    except ArchiveError:
        return
    assert_reads_fail_cleanly(PLAIN[name][0], index)


ARRAYS = [
    field.name
    for field in dataclasses.fields(PLAIN["tar"][1].columns)
    if isinstance(getattr(PLAIN["tar"][1].columns, field.name), np.ndarray)
]
numbers = st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-10, 10), st.integers(0, 120_000))


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(sorted(PLAIN)),
    lies=st.lists(st.tuples(st.sampled_from(ARRAYS), st.integers(0, 1000), numbers), min_size=1, max_size=3),
)
@example("tar", [("codings", 0, 2)])
@example("zip stored", [("codings", 0, 3)])
@example("zip deflated", [("digest_kinds", 0, 2)])
def test_columns_that_lie_are_refused_or_their_reads_fail_cleanly(name: str, lies: list[tuple[str, int, int]]) -> None:
    content, index = PLAIN[name]
    changed_columns: dict[str, Any] = {}
    for column_name, place, number in lies:
        column = changed_columns.setdefault(column_name, getattr(index.columns, column_name).copy())
        if len(column):
            column[place % len(column)] = np.array(number).astype(column.dtype)
    columns = dataclasses.replace(index.columns, **changed_columns)
    try:
        columns.check(len(content))
    except ArchiveError:
        return
    lying = ArchiveIndex(identity=index.identity, verification=index.verification, complete=True, columns=columns)
    assert_reads_fail_cleanly(content, lying)


# --- bookmarks ------------------------------------------------------------------------------------------------------


def bookmarks_of(packed: Packed) -> list[dict[str, Any]]:
    with open_stream(packed.container(), BytesSource(packed.content)) as stream:
        for _ in stream.members():
            pass
        return [each.bookmark.to_json() for each in stream.take_rows()]


BOOKMARKS = {name: bookmarks_of(packed) for name, packed in CONTAINERS.items()}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.integers(0, 70_000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in places_in(each, (*path, key)))]


def with_value(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = with_value(copy[path[0]], path[1:], new)
    return copy


@settings(max_examples=250, deadline=None)
@given(name=st.sampled_from(sorted(CONTAINERS)), data=st.data())
def test_a_bookmark_that_lies_is_refused_or_costs_an_error(name: str, data: st.DataObject) -> None:
    packed = CONTAINERS[name]
    saved = json.loads(json.dumps(data.draw(st.sampled_from(BOOKMARKS[name]))))
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(places_in(saved)))
        saved = with_value(saved, path, data.draw(json_values))
        if not isinstance(saved, dict):
            break
    try:
        bookmark = Bookmark.from_json(saved)
        found = list(read_whole(packed, resume=bookmark))
    except ArchiveError:
        return
    if packed.kind is ContainerKind.ZIP:
        assert all(content in FILES.values() for _, content in found)
