"""Published archives in memory, sources that count, and a run's books, for the tests of `reelstream.indexes`."""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from archive_entry_kit import media
from reelstream.archive import ArchiveIdentity, ArchiveIndex, BytesSource, IndexingPass, Verification
from reelstream.archive.containers import Container, open_stream
from reelstream.archive.cuts.cut import CutReader
from reelstream.cache import Account, DiskBudget
from reelstream.cache.budget import BLOCK_BYTES
from reelstream.cancel import Cancelled
from reelstream.indexes import LearnedCut
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import Event, Notice
from reelstream.testing import pack_tar
from reelstream.types import Archive, RepositoryFile


def archive_of(content: bytes, path: str = "shorts/videos_1.tar.gz", *, with_sha256: bool = True) -> Archive:
    sha256 = hashlib.sha256(content).hexdigest() if with_sha256 else None
    file = RepositoryFile(path=path, size_bytes=len(content), sha256=sha256)
    return Archive(subset=path.partition("/")[0], file=file)


def tar_gz(files: Mapping[str, bytes]) -> bytes:
    return gzip.compress(pack_tar(dict(files)), 6, mtime=0)


def clips(num_clips: int, *, seed: int = 0, size_bytes: int = 60_000) -> dict[str, bytes]:
    """Return the members of an archive by name; no two seeds share any."""
    return {f"clips/{seed}-{number}.mp4": media(1000 * seed + number, size_bytes) for number in range(num_clips)}


def index_of(
    content: bytes, verification: Verification = Verification.CHECKSUM, *, complete: bool = True
) -> ArchiveIndex:
    """Return the index of a tar.gz, said to be as well known as asked for."""
    one_pass = IndexingPass(iter([content]), "a.tar.gz")
    for _ in one_pass.members():
        pass
    assert not one_pass.problem
    identity = ArchiveIdentity(size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    columns = one_pass.index().columns
    return ArchiveIndex(identity=identity, verification=verification, complete=complete, columns=columns)


def index_of_tar(content: bytes) -> ArchiveIndex:
    """Return the index of a plain tar."""
    archive = archive_of(content, "s/1.tar")
    with open_stream(Container.of(archive), BytesSource(content)) as stream:
        for _ in stream.members():
            pass
        return stream.index()


class CountingSource:
    """A file in memory that notes each range asked for, and the bytes taken of it."""

    def __init__(self, content: bytes, path: str = "shorts/videos_1.tar.gz", *, chunk_bytes: int = 20_000) -> None:
        self.content = content
        self.path = path
        self.ranges: list[tuple[int, int]] = []
        self.taken_bytes = 0
        self.stop_at: int | None = None
        self.stop_by: Exception = Cancelled()
        self._chunk_bytes = chunk_bytes

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    def read(self, first_byte: int, end_byte: int) -> Iterator[bytes]:
        self.ranges.append((first_byte, end_byte))
        for start in range(first_byte, end_byte, self._chunk_bytes):
            if self.stop_at is not None and self.taken_bytes >= self.stop_at:
                raise self.stop_by
            chunk = self.content[start : min(start + self._chunk_bytes, end_byte)]
            self.taken_bytes += len(chunk)
            yield chunk


class Told:
    """Keeps the notices."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.telemetry = Telemetry(self)

    def receive(self, wall_s: float, event: Event) -> None:
        if isinstance(event, Notice):
            self.messages.append(event.message)


def account_of(set_aside_bytes: int) -> Account:
    """Return the account of a run that sets so many bytes aside for indexes."""
    account = DiskBudget(1_000_000_000).account("indexes")
    account.set_aside(set_aside_bytes)
    return account


def room_for(num_blocks: int) -> int:
    """Return the room of so many files of one block each, and of the folder."""
    return (num_blocks + 1) * BLOCK_BYTES


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def read_cuts(content: bytes, first_bytes: tuple[int, ...]) -> list[LearnedCut]:
    """Return what a reader for each of these cuts learns, by itself."""
    source = BytesSource(content)
    learned = []
    for first_byte in first_bytes:
        later = [byte for byte in first_bytes if byte > first_byte]
        with CutReader(source, first_byte, later, learn=True) as reader:
            for _ in reader.members():
                pass
            rows = [each.row for each in reader.take_rows(now=True)]
            assert rows, "this archive cannot be cut so"
            learned.append(LearnedCut(first_byte=first_byte, report=reader.reports[0], rows=rows))
    return learned


def begin_cut(content: bytes, num_members: int) -> LearnedCut:
    """Return what a reader from the archive's beginning has learned when it has read so many members."""
    with CutReader(BytesSource(content), 0, learn=True) as reader:
        members = reader.members()
        for _ in range(num_members + 1):
            next(members)
        learned = reader.take_rows(now=True)[:num_members]
    return LearnedCut(first_byte=0, report=None, rows=[each.row for each in learned], bookmark=learned[-1].bookmark)


def tar(files: Mapping[str, bytes]) -> bytes:
    return pack_tar(dict(files))


def zipped(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


class Shelf:
    """Published archives in memory, opened as from a Hub; counts what is asked of each."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self.contents = dict(contents)
        self.archives = [archive_of(content, path) for path, content in contents.items()]
        self.opened: dict[str, list[CountingSource]] = {path: [] for path in contents}
        self.stop_at: dict[str, tuple[int, Exception]] = {}
        """By path: after so many bytes of a source, what it raises."""

    def open(self, archive: Archive) -> CountingSource:
        source = CountingSource(self.contents[archive.path], archive.path)
        if archive.path in self.stop_at:
            source.stop_at, source.stop_by = self.stop_at[archive.path]
        self.opened[archive.path].append(source)
        return source

    def taken_bytes(self, path: str) -> int:
        return sum(source.taken_bytes for source in self.opened[path])

    def num_ranges(self, path: str) -> int:
        return sum(len(source.ranges) for source in self.opened[path])

    def forget(self) -> None:
        """Count anew, and stop nothing any more."""
        self.opened = {path: [] for path in self.contents}
        self.stop_at.clear()
