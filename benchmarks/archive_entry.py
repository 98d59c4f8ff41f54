"""Entering archives without an index: right or wrong, bytes searched, CPU seconds; and what cuts cost. For each writer.

    python benchmarks/archive_entry.py [--clip-mb 0.2 1.5 12] [--total-mb 60] [--entries 40]
    python benchmarks/archive_entry.py --quick    some seconds, as the tests run it

An entry is right where a reader that comes from the archive's beginning sees the same 32 KiB there, and a header where
the entry's border is; and where the first two members from the border on are neighbours in the archive, by name and
SHA-256. Entries behind which no member begins have the first check only, and are counted ("none").

The clips are bytes like a video's: an index that shrinks, then payload that does not. `--folder` takes files of your
own instead.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import random
import shutil
import statistics
import struct
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reelstream.archive.cuts.cut import CutReader, settled
from reelstream.archive.cuts.entry import Entry, find_entry
from reelstream.archive.cuts.piece import pieces_are_true
from reelstream.archive.source import FileSource

Members = list[tuple[str, str]]


class CountedFile(FileSource):
    """A local file that counts what is read of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.read_bytes = 0
        self.num_ranges = 0

    def read(self, first_byte: int, end_byte: int) -> Iterator[bytes]:
        self.num_ranges += 1
        for chunk in super().read(first_byte, end_byte):
            # In small pieces, as a network's: what is not taken was not read.
            for start in range(0, len(chunk), 1 << 14):
                piece = chunk[start : start + (1 << 14)]
                self.read_bytes += len(piece)
                yield piece


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was measured of one archive."""

    writer: str
    clip_mb: float
    tried: int
    entered: int
    right: int
    without_member: int
    """Entries behind which no member begins, so that only their bytes could be checked."""
    searched: list[int]
    read_bytes: float
    num_ranges: float
    cpu_ms: float
    cuts_right: bool
    cut_bytes: float


def clip(seed: int, size_bytes: int) -> bytes:
    draw = random.Random(seed)
    table = b"".join(struct.pack(">II", 1, draw.randrange(40_000)) for _ in range(size_bytes // 400))
    content = bytearray(b"\0\0\0\x18ftypmp42" + table)
    while len(content) < size_bytes:
        payload = draw.randbytes(draw.randrange(1000, 7000))
        content += struct.pack(">I", 2 + len(payload)) + b"\x41\x9a" + payload
    return bytes(content[:size_bytes])


def pack(files: Iterator[tuple[str, bytes]], path: Path) -> Members:
    """Write a tar; return its members."""
    members = []
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
            members.append((name, hashlib.sha256(content).hexdigest()))
    return members


def writers() -> dict[str, Callable[[Path, Path], None]]:
    """The writers that this machine has: each compresses a file to another."""

    def program(*command: str) -> Callable[[Path, Path], None]:
        def write(tar: Path, packed: Path) -> None:
            with packed.open("wb") as out:
                subprocess.run([*command, str(tar)], stdout=out, check=True)

        return write

    def python(level: int) -> Callable[[Path, Path], None]:
        def write(tar: Path, packed: Path) -> None:
            with tar.open("rb") as source, gzip.open(packed, "wb", level) as out:
                shutil.copyfileobj(source, out, 1 << 20)

        return write

    def several(tar: Path, packed: Path) -> None:
        with tar.open("rb") as source, packed.open("wb") as out:
            while some := source.read(3_000_000):
                out.write(gzip.compress(some, 6))

    found = {
        "python -9": python(9),
        "stored": python(0),
        "several gzip members": several,
    }
    programs = [("gzip", "-1"), ("gzip", "-6"), ("gzip", "-9"), ("pigz", "-6"), ("bgzip",)]
    programs += [("libdeflate-gzip", "-6"), ("libdeflate-gzip", "-12")]
    for command in programs:
        if shutil.which(command[0]):
            found[" ".join(command)] = program(*command, "-c")
    return found


def measure(writer: str, clip_mb: float, packed: Path, members: Members, *, entries: int, num_cuts: int) -> Result:
    """Enter an archive at random places, and read it in cuts, the last one first."""
    source = CountedFile(packed)
    draw = random.Random(0)
    size = source.size_bytes
    entered, right, without_member, searched = 0, 0, 0, []
    places = [draw.randrange(size) for _ in range(entries)]
    started_s = time.process_time()
    found = [find_entry(source, place) for place in places]
    cpu_ms = 1000 * (time.process_time() - started_s) / entries
    read_bytes, num_ranges = source.read_bytes / entries, source.num_ranges / entries
    astray = _astray(source, places)
    for place, entry in zip(places, found, strict=True):
        if isinstance(entry, Entry):
            entered += 1
            searched.append(entry.searched_bytes)
            first = _first_two(source, place)
            without_member += not first
            right += place not in astray and (not first or first == _neighbours(first[0], members))
    source.read_bytes = 0
    cuts = [0, *sorted(draw.sample(range(1, size), num_cuts - 1))]
    reports, delivered = [], {}
    for number in reversed(range(num_cuts)):
        with CutReader(source, cuts[number], cuts[number + 1 :]) as reader:
            delivered[cuts[number]] = _taken(reader)
            reports += reader.reports
    chain = settled(reports)
    joined = [member for report in chain for member in delivered[report.first_byte]]
    return Result(
        writer=writer,
        clip_mb=clip_mb,
        tried=entries,
        entered=entered,
        right=right,
        without_member=without_member,
        searched=searched,
        read_bytes=read_bytes,
        num_ranges=num_ranges,
        cpu_ms=cpu_ms,
        cuts_right=joined == members and pieces_are_true(report.piece for report in chain),
        cut_bytes=source.read_bytes / size,
    )


def _taken(reader: CutReader) -> Members:
    return [
        (member.name, hashlib.sha256(b"".join(member.chunks())).hexdigest())
        for member in reader.members()
        if member.problem is None
    ]


def _astray(source: CountedFile, places: list[int]) -> set[int]:
    """Return the places at which a reader would begin wrongly, by one who reads the archive from its beginning."""
    with CutReader(source, 0, sorted(set(places))) as reader:
        while not reader.finished:
            for _ in reader.members():
                pass
        return {byte for report in reader.reports for byte in report.false_borders}


def _first_two(source: CountedFile, place: int) -> Members:
    """Return the first two members that a reader delivers who begins at a place."""
    first: Members = []
    with CutReader(source, place) as reader:
        for member in reader.members():
            first.append((member.name, hashlib.sha256(b"".join(member.chunks())).hexdigest()))
            if len(first) == 2:
                break
    return first


def _neighbours(member: tuple[str, str], members: Members) -> Members:
    start = members.index(member) if member in members else len(members)
    return members[start : start + 2]


def table(results: list[Result]) -> str:
    """Return the results as Markdown."""
    lines = [
        (
            "| clips | writer | entered | right | none | searched kB, mean (most) "
            "| read kB | ranges | CPU ms | cuts | bytes |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.clip_mb:g} MB | {one.writer} | {one.entered}/{one.tried} | {one.right}/{one.entered} "
        f"| {one.without_member} "
        f"| {statistics.mean(one.searched or [0]) / 1000:.0f} ({max(one.searched, default=0) / 1000:.0f}) "
        f"| {one.read_bytes / 1000:.0f} | {one.num_ranges:.2f} | {one.cpu_ms:.1f} "
        f"| {'right' if one.cuts_right else 'WRONG'} | {one.cut_bytes:.3f} |"
        for one in results
    ]
    return "\n".join(lines)


def main() -> None:
    """Make the archives, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--clip-mb", type=float, nargs="+", default=[0.2, 1.5, 12])
    parser.add_argument("--total-mb", type=float, default=60)
    parser.add_argument("--entries", type=int, default=40)
    parser.add_argument("--cuts", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="pack these files instead of made ones")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.clip_mb, arguments.total_mb, arguments.entries = [0.1], 2.5, 5
    results = []
    with tempfile.TemporaryDirectory() as made:
        tar, packed = Path(made) / "clips.tar", Path(made) / "clips.tar.gz"
        for clip_mb in arguments.clip_mb:
            sizes = [round(clip_mb * 1e6)] * max(3, round(arguments.total_mb / clip_mb))
            files = ((f"videos/clip_{number}.mp4", clip(number, size)) for number, size in enumerate(sizes))
            if arguments.folder:
                paths = sorted(path for path in arguments.folder.rglob("*") if path.is_file())
                files = ((path.name, path.read_bytes()) for path in paths)
            members = pack(files, tar)
            for writer, write in writers().items():
                write(tar, packed)
                results.append(
                    measure(writer, clip_mb, packed, members, entries=arguments.entries, num_cuts=arguments.cuts)
                )
    print(table(results))


if __name__ == "__main__":
    main()
