"""What a seek index costs and brings, for each writer of gzip that is found and for clips of several sizes.

    python benchmarks/archive_index.py [--clip-mb 0.2 1.5 12] [--total-mb 60] [--rounds 4]

For each archive: the pass without an index (`GunzipReader`, and the same zlib that the index uses) and with it, in CPU
time, best of the rounds taken in turn; the index as a share of the archive; the bytes of each member's one range over
its own compressed bytes; and whether each member's SHA-256, read by range, is that of what GNU tar unpacks.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import io
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reelstream.archive.gunzip import GunzipReader
from reelstream.archive.inflation import Inflation
from reelstream.archive.seek.index import ArchiveIndex
from reelstream.archive.seek.index_format import encode_index
from reelstream.archive.seek.indexing import IndexingPass
from reelstream.archive.seek.inflate import (
    BlockInflater,
    BlockInflation,
    InflateLibrary,
    block_inflation,
    named_inflation,
)
from reelstream.archive.seek.member_range import read_member
from reelstream.archive.source import FileSource
from reelstream.archive.tar import read_members
from reelstream.sampledata import SampleOptions, make_sample

CHUNK_BYTES = 1 << 18


class DirectInflation(Inflation):
    """The zlib that the index uses, without a thought for blocks, so that only the index makes the difference."""

    def __init__(self, library: InflateLibrary) -> None:
        super().__init__()
        self._blocks = BlockInflater(library)

    def close(self) -> None:
        self._blocks.close()

    def _begin_data(self, window: bytes = b"") -> None:
        assert not window

    def _decompress(self, most_bytes: int) -> bytes:
        blocks = self._blocks
        if self._given and not blocks.left_bytes:
            blocks.feed(self._given)
            self._given = b""
        piece = blocks.step(most_bytes, stop_at_block=False)
        self._maybe_pending = bool(blocks.left_bytes or self._given) or len(piece) == most_bytes
        if blocks.stream_ended:
            self._end_data(blocks.take_rest() + self._given)
        return piece


@dataclass(frozen=True, kw_only=True)
class Result:
    writer: str
    library: str
    archive_bytes: int
    num_members: int
    streamed_s: float
    same_library_s: float
    indexed_s: float
    index_share: float
    ratio_mean: float
    ratio_max: float
    num_wrong: int

    def line(self) -> str:
        size = self.archive_bytes / 1e6
        return (
            f"| {self.writer} | {self.library} | {self.num_members} | {size / self.streamed_s:.0f} "
            f"| {size / self.same_library_s:.0f} | {size / self.indexed_s:.0f} "
            f"| {self.same_library_s / self.indexed_s:.2f} | {self.streamed_s / self.indexed_s:.2f} "
            f"| {100 * self.index_share:.4f} % | {self.index_share * self.archive_bytes / self.num_members:.0f} B "
            f"| {self.ratio_mean:.4f} ({self.ratio_max:.3f}) | {self.num_wrong} |"
        )


HEADINGS = (
    "| writer | zlib | members | `GunzipReader` MB/s | same zlib MB/s | indexed MB/s | of same zlib "
    "| of `GunzipReader` | index | a member | range / own, mean (max) | wrong |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def make_clips(folder: Path, clip_bytes: int, total_bytes: int) -> None:
    """Encode H.264 clips of about that size, and unpack them into `folder`."""
    num_clips = max(4, total_bytes // clip_bytes)
    duration_s = min(25.0, max(2.0, clip_bytes / 300_000))
    options = SampleOptions(
        num_clips=num_clips,
        num_archives=2,
        num_heldout=0,
        clip_bytes=clip_bytes,
        min_duration_s=duration_s * 0.8,
        max_duration_s=duration_s * 1.2,
    )
    with tempfile.TemporaryDirectory() as sample:
        make_sample(Path(sample), options)
        for archive in sorted(Path(sample).rglob("*.tar.gz")):
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")


def writers() -> dict[str, Callable[[Path, Path], None]]:
    """Return what packs a plain tar, by name: what is installed."""
    found: dict[str, Callable[[Path, Path], None]] = {
        "stored": lambda tar, target: write_gzip(tar, target, 0),
        "Python 6": lambda tar, target: write_gzip(tar, target, 6),
        "Python 9": lambda tar, target: write_gzip(tar, target, 9),
        "gzip members of 1 MiB": write_members,
    }
    for name, command in (
        *((f"gzip -{level}", ["gzip", f"-{level}", "-c"]) for level in (1, 6, 9)),
        *((f"pigz -{level}", ["pigz", f"-{level}", "-c"]) for level in (6, 9)),
        ("bgzip", ["bgzip", "-c"]),
    ):
        if shutil.which(command[0]):
            found[name] = lambda tar, target, command=command: run_writer(command, tar, target)  # type: ignore[misc]
    with contextlib.suppress(ImportError):
        import deflate  # type: ignore[import-not-found]  # noqa: PLC0415 - a writer to try where it is installed

        found["libdeflate 6"] = lambda tar, target: write_whole(target, deflate.gzip_compress(tar.read_bytes(), 6))
        found["libdeflate 12"] = lambda tar, target: write_whole(target, deflate.gzip_compress(tar.read_bytes(), 12))
    with contextlib.suppress(ImportError):
        from isal import igzip  # type: ignore[import-not-found]  # noqa: PLC0415

        found["isal 1"] = lambda tar, target: write_whole(target, igzip.compress(tar.read_bytes(), 1))
    return found


def run_writer(command: list[str], tar: Path, target: Path) -> None:
    with target.open("wb") as file:
        subprocess.run([*command, str(tar)], stdout=file, check=True)


def write_whole(target: Path, packed: bytes) -> None:
    target.write_bytes(packed)


def write_gzip(tar: Path, target: Path, level: int) -> None:
    with tar.open("rb") as content, gzip.open(target, "wb", compresslevel=level) as packed:
        shutil.copyfileobj(content, packed, CHUNK_BYTES)


def write_members(tar: Path, target: Path) -> None:
    content = tar.read_bytes()
    target.write_bytes(b"".join(gzip.compress(content[at : at + (1 << 20)]) for at in range(0, len(content), 1 << 20)))


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def pass_over(members: Iterator[object]) -> None:
    for member in members:
        for _ in member.chunks():  # type: ignore[attr-defined]
            pass


def measure(writer: str, archive: Path, inflation: BlockInflation, digests: dict[str, str], rounds: int) -> Result:
    """Time the passes in turn, then read each member by range."""
    source = FileSource(archive)
    library = inflation.library
    assert library is not None

    def chunks() -> Iterator[bytes]:
        return source.read(0, source.size_bytes)

    def indexed() -> IndexingPass:
        one_pass = IndexingPass(chunks(), source.path, inflation=inflation)
        pass_over(one_pass.members())
        return one_pass

    def direct() -> None:
        with contextlib.closing(DirectInflation(library)) as plain:
            pass_over(read_members(GunzipReader(chunks(), source.path, plain), source.path))

    work: dict[str, Callable[[], object]] = {
        "streamed": lambda: pass_over(read_members(GunzipReader(chunks(), source.path), source.path)),
        "same": direct,
        "indexed": indexed,
    }
    times = {name: [cpu_seconds(each)] for name, each in work.items()}
    for _ in range(rounds - 1):
        for name, each in work.items():
            times[name].append(cpu_seconds(each))
    index = indexed().index(etag="benchmark")
    ratios, num_wrong = read_all(source, index, digests)
    return Result(
        writer=writer,
        library=library.name,
        archive_bytes=source.size_bytes,
        num_members=len(index),
        streamed_s=min(times["streamed"]),
        same_library_s=min(times["same"]),
        indexed_s=min(times["indexed"]),
        index_share=len(encode_index(index)) / source.size_bytes,
        ratio_mean=statistics.mean(ratios),
        ratio_max=max(ratios),
        num_wrong=num_wrong,
    )


def read_all(source: FileSource, index: ArchiveIndex, digests: dict[str, str]) -> tuple[list[float], int]:
    """Read each member by range; return range over own compressed bytes, and how many differ from GNU tar's."""
    ratios, num_wrong, end_before = [], len(digests) - len(index), 0
    for row in index:
        digest = hashlib.sha256()
        for some in read_member(source, row):
            digest.update(some)
        num_wrong += digest.hexdigest() != digests[row.name]
        ratios.append(row.range_bytes / (row.compressed_end - end_before))
        end_before = row.compressed_end
    return ratios, num_wrong


def unpacked_digests(tar: Path, folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each member as GNU tar unpacks it."""
    folder.mkdir()
    subprocess.run(["tar", "-xf", str(tar), "-C", str(folder)], check=True)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(
    clip_bytes: int, total_bytes: int, rounds: int, only: list[str], out: io.TextIOBase | None = None
) -> list[Result]:
    """Measure all writers with clips of one size; print a line each."""
    results = []
    libraries = [each for each in (named_inflation("zlib-ng"), named_inflation("zlib")) if each.library is not None]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_clips(folder / "clips", clip_bytes, total_bytes)
        tar = folder / "clips.tar"
        files = sorted(str(path.relative_to(folder / "clips")) for path in (folder / "clips").rglob("*.mp4"))
        subprocess.run(["tar", "-cf", str(tar), "-C", str(folder / "clips"), *files], check=True)
        digests = unpacked_digests(tar, folder / "unpacked")
        for writer, write in writers().items():
            if only and writer not in only:
                continue
            archive = folder / "archive.tar.gz"
            write(tar, archive)
            for inflation in libraries:
                result = measure(writer, archive, inflation, digests, rounds)
                print(result.line(), file=out or sys.stdout, flush=True)
                results.append(result)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip-mb", type=float, nargs="+", default=[0.2, 1.5, 12])
    parser.add_argument("--total-mb", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--writers", nargs="+", default=[])
    options = parser.parse_args()
    print(
        f"Python {sys.version.split()[0]}, zlib {zlib.ZLIB_RUNTIME_VERSION}, {block_inflation().problem or 'indexed'}"
    )
    for clip_mb in options.clip_mb:
        print(f"\nClips of about {clip_mb:g} MB\n\n{HEADINGS}")
        run(round(clip_mb * 1e6), round(options.total_mb * 1e6), options.rounds, options.writers)


if __name__ == "__main__":
    main()
