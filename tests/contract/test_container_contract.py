"""What holds for every container: tar.gz, plain tar, zip and loose files."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import tracemalloc
from collections.abc import Iterator

import pytest

from archive_index_kit import media
from container_kit import WRITERS, CountingSource, Packed, RawEntry, clip_files, pack, pack_zip, raw_zip, zip_of
from reelstream.archive import BytesSource, decode_index, encode_index, plan_rows, read_member, read_rows
from reelstream.archive.containers import Container, ContainerKind, MemberStream, open_stream, read_directory
from reelstream.archive.cuts.bookmark import Bookmark
from reelstream.archive.seek.coalesce import RequestCosts
from reelstream.archive.seek.index import ArchiveIndex, DigestKind, MemberKind, Verification
from reelstream.errors import ArchiveChecksumError, ArchiveError
from reelstream.testing import pack_tar

EVERY = list(WRITERS)
IN_TAR = ["tar.gz", "tar", "tar pax"]
WITH_NAMES = [writer for writer in EVERY if writer != "file"]
EVERY_KIND = ["tar.gz", "tar", "zip stored", "zip deflated", "file"]


def read_all(stream: MemberStream) -> dict[str, bytes]:
    return {member.name: b"".join(member.chunks()) for member in stream.members()}


def learned(packed: Packed) -> ArchiveIndex:
    with open_stream(packed.container(), BytesSource(packed.content)) as stream:
        for _ in stream.members():
            pass
        return stream.index()


@pytest.mark.parametrize("writer", EVERY)
@pytest.mark.parametrize("chunk_bytes", [777, 1 << 20])
def test_members_come_in_order_with_their_names_sizes_and_bytes(writer: str, chunk_bytes: int) -> None:
    packed = pack(writer)
    with open_stream(packed.container(), BytesSource(packed.content, chunk_bytes=chunk_bytes)) as stream:
        found = []
        for member in stream.members():
            content = b"".join(member.chunks())
            assert member.size_bytes == len(content)
            assert (member.problem, member.link_target) == (None, None)
            found.append((member.name, content))
        assert stream.complete
    assert found == list(packed.files.items())


@pytest.mark.parametrize("writer", EVERY)
def test_a_member_that_is_not_read_or_not_to_its_end_is_passed_over(writer: str) -> None:
    packed = pack(writer)
    with open_stream(packed.container(), BytesSource(packed.content)) as stream:
        for number, member in enumerate(stream.members()):
            if number % 3 == 0:
                assert b"".join(member.chunks()) == packed.files[member.name]
            elif number % 3 == 1:
                next(member.chunks(), None)
        assert stream.complete


@pytest.mark.parametrize("writer", EVERY)
def test_each_row_is_learned_once_in_order_and_reads_its_member(writer: str) -> None:
    packed = pack(writer)
    source = BytesSource(packed.content)
    rows = []
    with open_stream(packed.container(), source) as stream:
        assert stream.problem == ""
        for _ in stream.members():
            rows += stream.take_rows()
        rows += stream.take_rows()
    assert [each.row.name for each in rows] == list(packed.files)
    for each in rows:
        content = packed.files[each.row.name]
        assert each.row.size_bytes == len(content)
        assert b"".join(read_member(source, each.row)) == content
        if each.row.digest_kind is DigestKind.SHA256:
            assert each.row.digest == hashlib.sha256(content).digest()[:16]


@pytest.mark.parametrize("writer", EVERY)
def test_a_member_whose_bytes_have_passed_knows_the_digest_of_its_row(writer: str) -> None:
    packed = pack(writer)
    digests = {}
    with open_stream(packed.container(), BytesSource(packed.content)) as stream:
        for member in stream.members():
            chunks = member.chunks()
            if next(chunks, None) is not None and member.size_bytes > 1 << 18:
                assert member.digest is None
            for _ in chunks:
                pass
            digests[member.name] = member.digest
        assert digests == {row.name: row.digest for row in stream.index()}


@pytest.mark.parametrize("writer", EVERY)
def test_rows_can_be_had_at_once(writer: str) -> None:
    packed = pack(writer)
    with open_stream(packed.container(), BytesSource(packed.content)) as stream:
        members = stream.members()
        names: list[str] = []
        for number, member in enumerate(members):
            if number:
                names += [each.row.name for each in stream.take_rows(now=True)]
                assert len(names) == number
            last = member.name
        assert [*names, *(each.row.name for each in stream.take_rows())][-1] == last


@pytest.mark.parametrize("writer", EVERY)
def test_the_index_survives_its_file_and_reads_any_members_by_the_plan(writer: str) -> None:
    packed = pack(writer)
    index = decode_index(encode_index(learned(packed)))
    assert index.complete
    assert [row.name for row in index] == list(packed.files)
    source = CountingSource(packed.content)
    for numbers in ([0], [len(index) - 1], range(0, len(index), 2), range(len(index))):
        found = {}
        for request in plan_rows(index, numbers, RequestCosts()):
            for member in read_rows(source, [index.row(number) for number in request.numbers]):
                found[member.row.name] = b"".join(member.chunks())
        assert found == {index.name(number): packed.files[index.name(number)] for number in numbers}
    assert source.num_open == 0


@pytest.mark.parametrize("writer", EVERY)
def test_one_range_holds_a_member_and_little_more(writer: str) -> None:
    packed = pack(writer)
    row = learned(packed).row(0)
    source = CountingSource(packed.content, chunk_bytes=1000)
    assert b"".join(read_member(source, row)) == packed.files[row.name]
    assert len(source.ranges) == 1
    assert source.given_bytes <= row.range_bytes <= row.size_bytes * 1.02


@pytest.mark.parametrize("writer", EVERY)
def test_reading_goes_on_at_any_bookmark_kept_as_json(writer: str) -> None:
    packed = pack(writer)
    container, source = packed.container(), BytesSource(packed.content)
    with open_stream(container, source) as stream:
        read_all(stream)
        rows = stream.take_rows()
    for number, each in enumerate(rows):
        bookmark = Bookmark.from_json(json.loads(json.dumps(each.bookmark.to_json())))
        with open_stream(container, source, resume=bookmark) as stream:
            assert list(read_all(stream).items()) == list(packed.files.items())[number:]
            again = stream.take_rows()
        assert [(a.row.name, a.row.header_offset, a.row.data_offset, a.row.digest) for a in again] == [
            (b.row.name, b.row.header_offset, b.row.data_offset, b.row.digest) for b in rows[number:]
        ]
        for row in again:
            assert b"".join(read_member(source, row.row)) == packed.files[row.row.name]


@pytest.mark.parametrize("writer", EVERY)
def test_a_container_that_knows_its_members_says_so_before_any_is_read(writer: str) -> None:
    packed = pack(writer)
    source = CountingSource(packed.content)
    directory = read_directory(packed.container(), source)
    if packed.kind in {ContainerKind.TAR, ContainerKind.TAR_GZ}:
        assert directory is None
        assert not source.ranges
        return
    assert directory is not None
    assert len(source.ranges) <= (2 if packed.kind is ContainerKind.ZIP else 0)
    assert directory.index.complete
    assert directory.index.verification is Verification.PROVISIONAL
    assert directory.unserved == ()
    found = {row.name: b"".join(read_member(source, row)) for row in directory.index}
    assert found == packed.files


@pytest.mark.parametrize("writer", EVERY_KIND)
def test_what_is_published_and_what_came_are_compared_at_the_end(writer: str) -> None:
    packed = pack(writer)
    index = learned(packed)
    whole = packed.kind in {ContainerKind.TAR, ContainerKind.TAR_GZ}
    assert index.verification is (Verification.SHA256 if whole else Verification.PROVISIONAL)
    with open_stream(packed.container(with_sha256=False), BytesSource(packed.content)) as stream:
        read_all(stream)
        expected = Verification.CHECKSUM if packed.kind is ContainerKind.TAR_GZ else Verification.PROVISIONAL
        assert stream.index().verification is expected


@pytest.mark.parametrize("writer", EVERY_KIND)
def test_without_learning_members_are_the_same(writer: str) -> None:
    packed = pack(writer)
    with open_stream(packed.container(), BytesSource(packed.content), learn=False) as stream:
        assert read_all(stream) == packed.files


def damaged_places(packed: Packed) -> Iterator[int]:
    size_bytes = len(packed.content)
    yield from (0, size_bytes // 3, size_bytes // 2, size_bytes - 1)
    yield from range(100, size_bytes, size_bytes // 23 + 1)


@pytest.mark.parametrize("writer", EVERY_KIND)
def test_no_flipped_bit_changes_a_members_bytes_in_silence(writer: str) -> None:
    packed = pack(writer)
    for place in damaged_places(packed):
        content = bytearray(packed.content)
        content[place] ^= 1 << place % 8
        found, failed = [], False
        try:
            with open_stream(packed.container(), BytesSource(bytes(content))) as stream:
                for member in stream.members():
                    try:
                        found.append(b"".join(member.chunks()))
                    except ArchiveError:
                        failed = True
        except ArchiveError:
            failed = True
        assert failed or all(each in packed.files.values() for each in found), place


@pytest.mark.parametrize("writer", EVERY_KIND)
def test_no_ranged_read_of_a_damaged_container_gives_other_bytes(writer: str) -> None:
    packed = pack(writer)
    index = learned(packed)
    for place in damaged_places(packed):
        content = bytearray(packed.content)
        content[place] ^= 1 << place % 8
        for row in index:
            try:
                got = b"".join(read_member(BytesSource(bytes(content)), row))
            except ArchiveError:
                continue
            assert got == packed.files[row.name]


@pytest.mark.parametrize("writer", EVERY_KIND)
def test_a_container_that_is_cut_short_gives_an_error_and_no_wrong_member(writer: str) -> None:
    packed = pack(writer)
    size_bytes = len(packed.content)
    padding = size_bytes - len(packed.content.rstrip(b"\0"))
    for end in (0, 1, 511, 5000, size_bytes // 2, size_bytes - 1 - padding):
        found = {}
        with pytest.raises(ArchiveError):  # noqa: SIM117
            with open_stream(packed.container(), BytesSource(packed.content[:end])) as stream:
                for member in stream.members():
                    found[member.name] = b"".join(member.chunks())
        assert all(packed.files[name] == content for name, content in found.items())


@pytest.mark.parametrize("writer", EVERY)
def test_closing_gives_up_the_range_that_is_being_read(writer: str) -> None:
    packed = pack(writer)
    source = CountingSource(packed.content, chunk_bytes=1000)
    with open_stream(packed.container(), source) as stream:
        member = next(stream.members())
        next(member.chunks())
        assert source.num_open == 1
    assert source.num_open == 0
    assert source.given_bytes < len(packed.content) + 70_000


@pytest.mark.parametrize("writer", EVERY)
def test_no_byte_is_fetched_twice_but_a_zips_end(writer: str) -> None:
    packed = pack(writer)
    source = CountingSource(packed.content)
    with open_stream(packed.container(), source) as stream:
        read_all(stream)
    assert source.given_bytes <= len(packed.content) + (66_000 if packed.kind is ContainerKind.ZIP else 0)
    assert source.num_open == 0


@pytest.mark.parametrize("writer", EVERY)
def test_what_the_source_raises_passes_through(writer: str) -> None:
    packed = pack(writer)

    class Broken(BytesSource):
        def read(self, first_byte: int, end_byte: int) -> Iterator[bytes]:
            yield from super().read(first_byte, min(first_byte + 1000, end_byte))
            raise TimeoutError

    with pytest.raises(TimeoutError), open_stream(packed.container(), Broken(packed.content)) as stream:
        read_all(stream)


@pytest.mark.parametrize("writer", WITH_NAMES)
def test_names_that_collide_once_normalised_are_members_of_their_own(writer: str) -> None:
    files = {"a/b.mp4": b"first" * 100, "./a//b.mp4": b"second" * 100, "a/B.mp4": b"third" * 100}
    packed = pack(writer, files)
    with open_stream(packed.container(), BytesSource(packed.content)) as stream:
        assert read_all(stream) == files
        index = stream.index()
    assert index.find_all("a/b.mp4") == [0, 1]
    assert b"".join(read_member(BytesSource(packed.content), index.row(1))) == b"second" * 100


@pytest.mark.parametrize("writer", WITH_NAMES)
def test_hostile_names_come_as_packed_and_lead_nowhere(writer: str) -> None:
    names = ["/etc/passwd", "../../up.mp4", "a/../../b.mp4", "C:/x.mp4", "con\tx\x07.mp4"]
    packed = pack(writer, dict.fromkeys(names, b"x" * 700))
    with open_stream(packed.container(), BytesSource(packed.content)) as stream:
        assert sorted(read_all(stream)) == sorted(names)


@pytest.mark.parametrize("writer", EVERY_KIND)
def test_a_container_without_members_is_empty(writer: str) -> None:
    packed = pack(writer, {"empty.mp4": b""} if writer == "file" else {})
    with open_stream(packed.container(), BytesSource(packed.content)) as stream:
        assert read_all(stream) == packed.files
        index = stream.index()
    assert stream.complete
    assert len(decode_index(encode_index(index))) == len(packed.files)


def tar_with(*infos: tarfile.TarInfo, kind: str) -> Packed:
    content = io.BytesIO()
    files = {"a.mp4": media(1, 90_000), "z.mp4": media(2, 90_000)}
    with tarfile.open(fileobj=content, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, info_list in (("a.mp4", infos), ("z.mp4", ())):
            info = tarfile.TarInfo(name)
            info.size = len(files[name])
            tar.addfile(info, io.BytesIO(files[name]))
            for each in info_list:
                tar.addfile(each)
    if kind == "tar.gz":
        return Packed(ContainerKind.TAR_GZ, gzip.compress(content.getvalue(), mtime=0), files)
    return Packed(ContainerKind.TAR, content.getvalue(), files)


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


@pytest.mark.parametrize("kind", ["tar.gz", "tar"])
def test_a_hard_link_names_its_target_whose_bytes_are_its_own(kind: str) -> None:
    packed = tar_with(special("b.mp4", tarfile.LNKTYPE, "./a.mp4"), kind=kind)
    source = BytesSource(packed.content)
    with open_stream(packed.container(), source) as stream:
        members = {member.name: member.link_target for member in stream.members()}
        index = stream.index()
    assert members == {"a.mp4": None, "b.mp4": "./a.mp4", "z.mp4": None}
    index = decode_index(encode_index(index))
    number = index.find("b.mp4")
    assert number is not None
    assert index.row(number).kind is MemberKind.HARD_LINK
    held = index.holding(number)
    assert held is not None
    assert b"".join(read_member(source, index.row(held))) == packed.files["a.mp4"]


@pytest.mark.parametrize("kind", ["tar.gz", "tar"])
def test_links_and_devices_of_a_tar_have_a_problem_and_no_row(kind: str) -> None:
    specials = {
        "link": special("link", tarfile.SYMTYPE, "/etc/passwd"),
        "device": special("device", tarfile.CHRTYPE),
        "fifo": special("fifo", tarfile.FIFOTYPE),
    }
    packed = tar_with(*specials.values(), kind=kind)
    with open_stream(packed.container(), BytesSource(packed.content)) as stream:
        problems = {member.name: member.problem for member in stream.members()}
        index = stream.index()
    assert problems["link"] == "a symbolic link to /etc/passwd"
    assert problems["device"] == problems["fifo"] == "not a regular file"
    assert [row.name for row in index] == ["a.mp4", "z.mp4"]
    assert index.complete


ODD_ENTRIES = {
    "locked": (RawEntry(b"locked", b"x" * 40, flags=1), "encrypted"),
    "aes": (RawEntry(b"aes", b"x" * 40, method=99), "encrypted"),
    "hidden": (RawEntry(b"hidden", b"x" * 40, flags=1 << 13), "encrypted"),
    "bz": (RawEntry(b"bz", b"x" * 40, method=12), "compressed by bzip2, which is not read here"),
    "odd": (RawEntry(b"odd", b"x" * 40, method=77), "compressed by method 77, which is not read here"),
    "link": (RawEntry(b"link", b"/etc/passwd", mode=0o120777), "a symbolic link"),
    "device": (RawEntry(b"device", mode=0o020666), "not a regular file"),
    "elsewhere": (RawEntry(b"elsewhere", b"x" * 40, disk=3), "in another part of a split zip"),
    "outside": (RawEntry(b"outside", b"x", offset=0xF000_0000), "its directory places it over another member, or"),
    "over": (RawEntry(b"over", b"x" * 40, packed_bytes=4000, size_bytes=4000), "its directory places it over another"),
    "two sizes": (RawEntry(b"two sizes", b"x" * 40, size_bytes=90_000), "its directory names two sizes"),
    "huge": (RawEntry(b"huge", b"x" * 40, method=8, size_bytes=0xF000_0000), "its directory claims more bytes"),
}


def test_members_of_a_zip_that_cannot_be_had_have_a_problem_and_others_are_served() -> None:
    good = {"a.mp4": media(1, 90_000), "z.mp4": media(2, 90_000)}
    entries = [
        RawEntry(b"a.mp4", good["a.mp4"]),
        *(entry for entry, _ in ODD_ENTRIES.values()),
        RawEntry(b"z.mp4", good["z.mp4"], method=8),
    ]
    packed = zip_of(raw_zip(entries))
    source = BytesSource(packed.content)
    problems, found = {}, {}
    with open_stream(packed.container(), source) as stream:
        for member in stream.members():
            problems[member.name] = member.problem
            if member.problem is None:
                found[member.name] = b"".join(member.chunks())
            else:
                assert (member.size_bytes, list(member.chunks())) == (0, [])
        assert stream.complete
        index = stream.index()
    assert found == good
    assert [row.name for row in index] == ["a.mp4", "z.mp4"]
    for name, (_, problem) in ODD_ENTRIES.items():
        assert (problems[name] or "").startswith(problem), name
    directory = read_directory(packed.container(), source)
    assert directory is not None
    assert {each.name: each.problem for each in directory.unserved} == {
        name: problem for name, problem in problems.items() if problem
    }


def huge_tar() -> bytes:
    info = tarfile.TarInfo("huge.mp4")
    info.size = 1 << 45
    return pack_tar({"a.mp4": b"x" * 700})[:1536] + info.tobuf(tarfile.GNU_FORMAT) + bytes(5120)


HUGE = {
    "tar.gz": Packed(ContainerKind.TAR_GZ, gzip.compress(huge_tar()), {}),
    "tar": Packed(ContainerKind.TAR, huge_tar(), {}),
    "zip": zip_of(raw_zip([RawEntry(b"a", b"x", packed_bytes=0xF000_0000, size_bytes=0xF000_0000)])),
    "zip deflated": zip_of(raw_zip([RawEntry(b"a", bytes(40_000_000), method=8, size_bytes=41_000_000)])),
}


@pytest.mark.parametrize("kind", HUGE)
def test_a_huge_declared_size_costs_an_error_and_no_memory(kind: str) -> None:
    packed = HUGE[kind]
    source = BytesSource(packed.content)
    tracemalloc.start()
    try:
        with open_stream(packed.container(), source) as stream:
            problems = []
            for member in stream.members():
                for chunk in member.chunks():
                    assert len(chunk) <= 1 << 18
                problems.append(member.problem)
        assert any(problems)
    except ArchiveError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8_000_000


def test_a_file_that_is_shorter_than_the_hub_says_is_cut_short() -> None:
    packed = pack("file")
    container = packed.container(size_bytes=1 << 50)
    with pytest.raises(ArchiveError, match="end before"), open_stream(container, BytesSource(packed.content)) as stream:
        read_all(stream)


@pytest.mark.parametrize("kind", ["zip stored", "zip deflated"])
def test_a_zip_goes_on_behind_a_member_that_fails(kind: str) -> None:
    packed = pack(kind)
    index = learned(packed)
    content = bytearray(packed.content)
    content[index.row(0).compressed_end - 5000] ^= 1
    found = {}
    failed = []
    with open_stream(packed.container(), BytesSource(bytes(content))) as stream:
        for member in stream.members():
            try:
                found[member.name] = b"".join(member.chunks())
            except ArchiveError:
                failed.append(member.name)
        assert stream.complete
    assert failed == ["source/first.mp4"]
    assert found == {name: content for name, content in packed.files.items() if name not in failed}


def test_what_follows_the_end_mark_of_a_tar_is_not_passed_over_in_silence() -> None:
    content = bytearray(pack_tar(clip_files()))
    second = content.index(b"source/Zo")
    content[second : second + 512] = bytes(512)
    packed = Packed(ContainerKind.TAR, bytes(content), {})
    with open_stream(packed.container(with_sha256=False), BytesSource(packed.content)) as stream:
        found = []
        with pytest.raises(ArchiveError, match="more than padding"):
            for member in stream.members():
                found.append(member.name)  # noqa: PERF401 - it raises in the middle
        assert found == ["source/first.mp4", "source/empty.mp4"]
        assert not stream.index().complete


@pytest.mark.parametrize("kind", ["tar.gz", "tar"])
def test_an_archive_that_is_not_the_published_one_fails_at_its_end(kind: str) -> None:
    packed = pack(kind)
    other = Packed(packed.kind, pack(kind, clip_files() | {"one": b"y"}).content, {})
    container = Container(kind=packed.kind, identity=packed.container().identity)
    with open_stream(container, BytesSource(other.content)) as stream:
        with pytest.raises(ArchiveChecksumError, match="SHA-256"):
            read_all(stream)
        assert stream.index().verification is Verification.FAILED


def test_the_digest_of_a_loose_file_is_the_one_that_the_hub_names() -> None:
    packed = pack("file")
    for with_sha256, kind in ((True, DigestKind.SHA256), (False, DigestKind.NONE)):
        directory = read_directory(packed.container(with_sha256=with_sha256), BytesSource(packed.content))
        assert directory is not None
        row = directory.index.row(0)
        assert row.digest_kind is kind
        assert row.digest == (hashlib.sha256(packed.content).digest()[:16] if with_sha256 else b"")
        other = bytes(len(packed.content))
        if with_sha256:
            with pytest.raises(ArchiveChecksumError):
                list(read_member(BytesSource(other), row))
        else:
            assert b"".join(read_member(BytesSource(other), row)) == other


def test_zips_of_other_tools_read_the_same() -> None:
    files = clip_files()
    assert read_all(open_stream(zip_of(pack_zip(files)).container(), BytesSource(pack_zip(files)))) == files
