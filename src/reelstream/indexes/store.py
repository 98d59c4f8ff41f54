"""The store of archive indexes and learned cuts on this machine."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path

from reelstream.archive import (
    ArchiveIdentity,
    ArchiveIndex,
    Verification,
    encode_index,
    index_file_name,
    read_index,
)
from reelstream.archive.seek.index_format import SUFFIX as INDEX_SUFFIX
from reelstream.cache import Account
from reelstream.errors import ArchiveError, DiskError
from reelstream.indexes.cut_file import MOST_FILE_BYTES, LearnedCut, decode_cut, encode_cut
from reelstream.indexes.files import (
    KeptFile,
    cut_name,
    disk_bytes_of,
    folder_bytes,
    is_kept_name,
    kept_files,
    plan_removals,
    remove_file,
    remove_leftovers,
    touch_file,
    write_file,
)
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import Notice
from reelstream.types import Archive
from reelstream.units import format_bytes

_BYTES_A_CLIP = 256
_BYTES_AN_ARCHIVE = 16 << 10

# Indexes held in memory, in rows of some 100 bytes each; the one that was used last is held whatever its size.
_MOST_ROWS_HELD = 1_000_000

_CHARGING = threading.Lock()

INDEX_FOLDER = "indexes"
"""Where a store lies in a cache folder."""


def set_aside_bytes(num_clips: int, archives_bytes: int, num_archives: int) -> int:
    """Return the room that a run sets aside for indexes: a function of its dataset alone.

    So the clip budget, and with it the order, does not depend on what earlier runs have learned. Twice what indexes of
    videos take (some 100 bytes a member, 0.03 % of an archive of the worst writer), since the learned cuts of an
    archive lie beside its index for a moment; and whole blocks for each archive.

    Args:
        num_clips: Clips of all subsets.
        archives_bytes: Compressed size of all archives that an index is kept of.
        num_archives: How many these are.
    """
    return _BYTES_A_CLIP * num_clips + archives_bytes * 3 // 10_000 + _BYTES_AN_ARCHIVE * num_archives


def identity_of(archive: Archive) -> ArchiveIdentity | None:
    """Return by what an archive's index is found again; None where the Hub names no SHA-256: then none is kept."""
    if archive.file.sha256 is None:
        return None
    return ArchiveIdentity(size_bytes=archive.size_bytes, sha256=archive.file.sha256)


class IndexStore:
    """Indexes and learned cuts, in one folder that several runs may share. Thread-safe.

    What another run removes is missing; what is damaged, or of another archive than its name says, is deleted with a
    notice and counts as missing. Each store counts the whole folder, so that those of one run share an account.

    Args:
        folder: Where the files lie; made when the first one is written.
        account: Has room for them set aside, and is charged for all that is in the folder; None counts nothing, and
            has no limit.
        telemetry: Where notices go.
    """

    def __init__(self, folder: Path, account: Account | None = None, *, telemetry: Telemetry | None = None) -> None:
        self._folder = folder
        self._account = account
        self._telemetry = telemetry or Telemetry()
        self._writing = threading.Lock()  # of the folder and its books
        self._memory = threading.Lock()  # of what follows
        self._held: OrderedDict[str, ArchiveIndex] = OrderedDict()
        self._told: set[str] = set()
        self._ours: set[str] | None = None

    def open(self, archives: Iterable[Archive]) -> None:
        """Count what the folder holds, once room is set aside; call it before the first clip is written.

        Where the room does not hold all, files of other archives are removed, the ones unused for longest first; then,
        where that does not suffice, learned cuts and indexes of these archives. Leftovers of killed runs are removed.

        Args:
            archives: Those of this run. Called again, they are added.

        Raises:
            DiskError: Where the folder cannot be listed.
        """
        stems = {_stem(identity) for archive in archives if (identity := identity_of(archive)) is not None}
        with self._writing:
            self._ours = stems | (self._ours or set())
            remove_leftovers(self._folder)
            if self._account is not None:
                if not self._make_room(0, keep=lambda _: False):  # there is none at all
                    for file in kept_files(self._folder):
                        remove_file(file.path)
                self._charge(0)

    def clear(self) -> None:
        """Remove all that is kept, and the folder where nothing else is in it."""
        with self._writing:
            for file in kept_files(self._folder):
                remove_file(file.path)
            remove_leftovers(self._folder)
            # Fails where somebody else's file is inside, or where there is no folder.
            with contextlib.suppress(OSError):
                self._folder.rmdir()

    def take_from(self, other: IndexStore, archives: Iterable[Archive], *, mirror: bool) -> bool:
        """Copy what another store knows of some archives; return whether all of it is here now.

        Files are copied as they are: they are checked when they are used.

        Args:
            other: Where they come from.
            archives: Which of it.
            mirror: Whether to follow the other store: its learned cuts take the place of those here, and what is gone
                there is removed here. Without, what is here stays.

        Raises:
            DiskError: Where they cannot be written here.
        """
        stems = {_stem(identity) for archive in archives if (identity := identity_of(archive)) is not None}
        here = {file.path.name: file for file in kept_files(self._folder) if file.stem in stems}
        there = {file.path.name: file for file in kept_files(other._folder) if file.stem in stems}
        with self._writing:
            for name in here.keys() - there.keys() if mirror else ():
                remove_file(here[name].path)
            taken = [self._take_file(file, here.get(name), mirror=mirror) for name, file in there.items()]
            return all(taken)

    def names(self, archives: Iterable[Archive]) -> list[str]:
        """Return the names of the files that are kept of some archives; learned cuts beside a whole index apart."""
        stems = {_stem(identity) for archive in archives if (identity := identity_of(archive)) is not None}
        files = [file for file in kept_files(self._folder) if file.stem in stems]
        whole = {file.stem for file in files if file.first_byte is None}
        return [file.path.name for file in files if file.first_byte is None or file.stem not in whole]

    def size_bytes(self, name: str) -> int:
        """Return the size of a file that `names` named; 0 where it is gone."""
        try:
            return (self._folder / name).stat().st_size
        except OSError:
            return 0

    def content(self, name: str) -> bytes | None:
        """Return a file that `names` named; None where it is gone."""
        try:
            return (self._folder / name).read_bytes()
        except OSError:
            return None

    def put(self, name: str, content: bytes) -> bool:
        """Keep a file of another store as it is, to be checked when it is used; return whether there was room.

        Raises:
            ValueError: Where a store would not give it this name.
            DiskError: Where it cannot be written.
        """
        if not is_kept_name(name):
            raise ValueError(f"{name!r} is no name of an index or a learned cut")
        with self._writing:
            return self._write(self._folder / name, content, durable=True)

    def _take_file(self, file: KeptFile, known: KeptFile | None, *, mirror: bool) -> bool:
        # An index is complete; cuts grow.
        if known is not None and (file.first_byte is None or not mirror or known.used_ns == file.used_ns):
            return True
        try:
            content = file.path.read_bytes()
        except OSError:  # another run has removed it
            return True
        target = self._folder / file.path.name
        if not self._write(target, content, durable=True):
            return False
        with contextlib.suppress(OSError):
            os.utime(target, ns=(file.used_ns, file.used_ns))
        return True

    # ------------------------------------------------------------------ complete indexes

    def find(self, archive: Archive) -> ArchiveIndex | None:
        """Return the complete index of an archive; None where there is none that can be used."""
        identity = identity_of(archive)
        return None if identity is None else self._complete(identity)

    def save(self, index: ArchiveIndex) -> bool:
        """Keep an index; return whether it, or one that is at least as good, is kept now.

        A complete index replaces one that is not, and a better verified one a worse; never the other way round. The
        index of an archive that failed its checksum is not kept. Where the room set aside does not hold it, it is not
        kept either, and a notice says so.

        Raises:
            DiskError: Where it cannot be written.
        """
        if index.verification is Verification.FAILED or index.identity.sha256 is None:
            return False
        path = self._folder / index_file_name(index.identity)
        with self._writing:
            known = self._on_disk(path, index.identity)
            if known is None or _goodness(known) < _goodness(index):
                if not self._write(path, encode_index(index), durable=True):
                    return False
                known = index
        if known.complete:
            self._hold(path.name, known)
        return True

    def _complete(self, identity: ArchiveIdentity) -> ArchiveIndex | None:
        path = self._folder / index_file_name(identity)
        with self._memory:
            held = self._held.get(path.name)
        index = held or self._on_disk(path, identity)
        if index is None or not index.complete:
            return None
        touch_file(path)
        self._hold(path.name, index)
        return index

    def _on_disk(self, path: Path, identity: ArchiveIdentity) -> ArchiveIndex | None:
        try:
            return read_index(path.parent, identity)
        except ArchiveError as error:
            self._drop_damaged(path, error)
        except DiskError as error:
            self._tell(error.fact)
        return None

    def _hold(self, name: str, index: ArchiveIndex) -> None:
        with self._memory:
            self._held[name] = index
            self._held.move_to_end(name)
            num_rows = sum(len(held) for held in self._held.values())
            while num_rows > _MOST_ROWS_HELD and len(self._held) > 1:
                num_rows -= len(self._held.popitem(last=False)[1])

    # ------------------------------------------------------------------ learned cuts

    def find_cut(self, archive: Archive, first_byte: int) -> LearnedCut | None:
        """Return what is known of the cut of an archive that begins at a byte; None where nothing is."""
        identity = identity_of(archive)
        if identity is None:
            return None
        return self._read_cut(identity, first_byte)

    def cuts(self, archive: Archive) -> list[LearnedCut]:
        """Return all learned cuts of an archive, by their first bytes."""
        identity = identity_of(archive)
        if identity is None:
            return []
        first_bytes = sorted(file.first_byte for file in self._cut_files(identity) if file.first_byte is not None)
        found = (self._read_cut(identity, first_byte) for first_byte in first_bytes)
        return [cut for cut in found if cut is not None]

    def save_cut(self, archive: Archive, cut: LearnedCut) -> bool:
        """Keep a learned cut in place of what was known of it; return whether it is kept, as `save` does.

        It only saves bytes: after a crash of the machine it may be gone.

        Raises:
            DiskError: Where it cannot be written.
        """
        identity = identity_of(archive)
        if identity is None:
            return False
        content = encode_cut(identity, cut)
        with self._writing:
            return self._write(self._folder / cut_name(_stem(identity), cut.first_byte), content, durable=False)

    def drop_cuts(self, archive: Archive, first_bytes: Container[int] | None = None) -> None:
        """Remove the learned cuts of an archive: those that begin at these bytes, or all."""
        identity = identity_of(archive)
        if identity is None:
            return
        with self._writing:
            for file in self._cut_files(identity):
                if first_bytes is None or file.first_byte in first_bytes:
                    remove_file(file.path)
            if self._account is not None:
                self._charge(0)

    def _cut_files(self, identity: ArchiveIdentity) -> Iterator[KeptFile]:
        stem = _stem(identity)
        return (file for file in kept_files(self._folder) if file.stem == stem and file.first_byte is not None)

    def _read_cut(self, identity: ArchiveIdentity, first_byte: int) -> LearnedCut | None:
        path = self._folder / cut_name(_stem(identity), first_byte)
        try:
            with path.open("rb") as file:
                content = file.read(MOST_FILE_BYTES + 1)
            return decode_cut(content, identity, first_byte, str(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            self._tell(f"the learned cut {path} cannot be read ({error.strerror or error})")
        except ArchiveError as error:
            self._drop_damaged(path, error)
        return None

    # ------------------------------------------------------------------ the folder and its books

    def _write(self, path: Path, content: bytes, *, durable: bool) -> bool:
        """Write a file within the room that is set aside; return whether there was room."""
        if self._account is None:
            write_file(path, content, durable=durable)
            return True
        size_bytes = disk_bytes_of(self._folder, len(content))
        # The old one stays until the new one is whole: both take room.
        if not self._make_room(size_bytes, keep=lambda file: self._is_kept_for(path, file)):
            self._tell(
                f"the room set aside for archive indexes ({format_bytes(self._limit_bytes)}) is full: no more are kept "
                "in this run; what they would have saved is fetched again",
                once="full",
            )
            return False
        self._charge(size_bytes)
        try:
            write_file(path, content, durable=durable)
        finally:
            self._charge(0)
        return True

    def _is_kept_for(self, new: Path, file: KeptFile) -> bool:
        """Return whether a file must stay though a new one needs room: this run's own, but cuts that it replaces."""
        replaced = file.first_byte is not None and new.name == file.stem + INDEX_SUFFIX
        return not replaced and self._is_ours(file)

    def _is_ours(self, file: KeptFile) -> bool:
        return self._ours is None or file.stem in self._ours

    def _make_room(self, size_bytes: int, *, keep: Callable[[KeptFile], bool]) -> bool:
        """Remove files until so much more fits; return False, with nothing removed, where it cannot."""
        files = kept_files(self._folder)
        candidates = self._by_use(file for file in files if not keep(file))
        removed = plan_removals(candidates, self._total_bytes(files) + size_bytes - self._limit_bytes)
        for file in removed or ():
            remove_file(file.path)
        return removed is not None

    def _by_use(self, files: Iterable[KeptFile]) -> list[KeptFile]:
        """Return files, the one first that is missed the least."""
        return sorted(files, key=lambda file: (self._is_ours(file), file.first_byte is None, file.used_ns))

    @property
    def _limit_bytes(self) -> int:
        assert self._account is not None
        return self._account.set_aside_bytes

    def _total_bytes(self, files: Iterable[KeptFile]) -> int:
        return folder_bytes(self._folder) + sum(file.disk_bytes for file in files)

    def _charge(self, new_bytes: int) -> None:
        """Reserve what the folder holds now and a new file, in place of what was reserved."""
        assert self._account is not None
        # Two datasets of a run have a store each, of one folder and account.
        with _CHARGING:
            wanted_bytes = self._total_bytes(kept_files(self._folder)) + new_bytes
            # What other runs write here in the meantime must not draw on the room that clips were promised.
            self._account.resize(min(wanted_bytes, self._limit_bytes))

    def _drop_damaged(self, path: Path, error: ArchiveError) -> None:
        self._tell(f"{error.fact}; it is deleted and learned anew")
        remove_file(path)

    def _tell(self, message: str, *, once: str | None = None) -> None:
        key = once or message
        with self._memory:
            if key in self._told:
                return
            self._told.add(key)
        self._telemetry.emit(Notice(message=message))


def _stem(identity: ArchiveIdentity) -> str:
    return index_file_name(identity).removesuffix(INDEX_SUFFIX)


def _goodness(index: ArchiveIndex) -> tuple[bool, Verification]:
    return index.complete, index.verification
