"""What is known of archives' members without reading the archives: whole indexes, learned cuts, directories."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from reelstream.archive import ArchiveIndex, Verification
from reelstream.archive.containers import Container, read_directory
from reelstream.archive.seek.index import IndexBuilder, normal_name
from reelstream.errors import ArchiveError
from reelstream.indexes.cut_file import LearnedCut
from reelstream.indexes.sources import OpenSource
from reelstream.indexes.store import IndexStore, identity_of
from reelstream.types import Archive, ContainerKind


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownArchive:
    """An archive, and the members of it that are known."""

    archive: Archive
    indexes: tuple[ArchiveIndex, ...]
    """The complete index, or one for each learned cut."""
    complete: bool
    """Whether all members are known."""
    problem: ArchiveError | None = None
    """Why nothing is known of a zip, although it should say what it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundMember:
    """A member whose place is known."""

    archive: Archive
    index: ArchiveIndex
    number: int
    """Its row in the index."""

    @property
    def name(self) -> str:
        """As packed."""
        return self.index.name(self.number)

    @property
    def holding(self) -> int | None:
        """The row that holds its bytes; None for a hard link whose target is not known."""
        return self.index.holding(self.number)

    @property
    def size_bytes(self) -> int:
        """The size of its bytes, a hard link's target's; 0 where that is not known."""
        held = self.holding
        return 0 if held is None else int(self.index.columns.sizes[held])


class NamePattern:
    """What a person writes to name members: a whole name, or the end of one from a folder's border on.

    `*`, `?` and `[...]` stand for any characters, slashes included. `./` and doubled slashes make no difference.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._name = normal_name(text)
        self._matches = re.compile(f"(?s:.*/)?{fnmatch.translate(self._name)}").match

    @property
    def is_literal(self) -> bool:
        """Whether it names one member, rather than any that are alike."""
        return not any(character in self._name for character in "*?[")

    def matches(self, name: str) -> bool:
        """Return whether a member's name is meant."""
        name = normal_name(name)
        # A bracket may also be part of a name.
        return self._matches(name) is not None or name == self._name or name.endswith(f"/{self._name}")

    def is_whole_name(self, name: str) -> bool:
        """Return whether the text is all of a member's name."""
        return normal_name(name) == self._name


def known_archives(
    archives: Sequence[Archive], store: IndexStore, open_source: OpenSource, *, connections: int = 4
) -> list[KnownArchive]:
    """Return what is known of each archive, as `known_archive`; of a zip without a directory, its problem.

    Raises:
        HubError: Where a zip's directory cannot be had.
        DiskError: Where it cannot be kept.
    """

    def known(archive: Archive) -> KnownArchive:
        try:
            return known_archive(archive, store, open_source)
        except ArchiveError as error:
            return KnownArchive(archive=archive, indexes=(), complete=False, problem=error)

    with ThreadPoolExecutor(max_workers=connections, thread_name_prefix="reelstream-known") as workers:
        return list(workers.map(known, archives))


def known_archive(archive: Archive, store: IndexStore, open_source: OpenSource) -> KnownArchive:
    """Return what is known of an archive.

    A tar is not read for it. Of a zip whose directory is not kept that is fetched, by a few small ranges, and kept.

    Raises:
        ArchiveError: Where a zip's directory makes no sense.
        HubError: Where a zip's directory cannot be had.
        DiskError: Where it cannot be kept.
    """
    index = store.find(archive) if archive.kind is not ContainerKind.FILE else None
    if index is None and archive.kind in {ContainerKind.ZIP, ContainerKind.FILE}:
        directory = read_directory(Container.of(archive), open_source(archive))
        assert directory is not None, "zips and loose files say what they hold"
        index = directory.index
        if archive.kind is ContainerKind.ZIP:
            store.save(index)
    if index is not None:
        return KnownArchive(archive=archive, indexes=(index,), complete=True)
    cuts = chained(store.cuts(archive))
    return KnownArchive(archive=archive, indexes=tuple(_index_of(archive, cut) for cut in cuts), complete=False)


def chained(cuts: Sequence[LearnedCut]) -> list[LearnedCut]:
    """Return the cuts whose rows count, from the archive's beginning on, the last one perhaps not read to its end.

    The first cut's reader knows what it reads, and at whose border it stopped; and so on (see `cuts.settled`). Of cuts
    behind a gap nobody knows whether they began at a true border.
    """
    by_first_byte = {cut.first_byte: cut for cut in cuts}
    chain: list[LearnedCut] = []
    first_byte = 0
    while (cut := by_first_byte.pop(first_byte, None)) is not None:
        if cut.report is not None and cut.report.owns_none is not None:
            break
        chain.append(cut)
        if cut.report is None:
            break
        first_byte = cut.report.served_until
    return chain


def search(known: Sequence[KnownArchive], pattern: NamePattern) -> Iterator[FoundMember]:
    """Yield the known members that a pattern means, in the order of the archives and in theirs."""
    for each in known:
        for index in each.indexes:
            for number in range(len(index)):
                if pattern.matches(index.name(number)):
                    yield FoundMember(archive=each.archive, index=index, number=number)


def _index_of(archive: Archive, cut: LearnedCut) -> ArchiveIndex:
    builder = IndexBuilder()
    for row in cut.rows:
        builder.add(row)
    identity = identity_of(archive)
    assert identity is not None, "cuts are kept of archives with an identity"
    return builder.build(identity, Verification.PROVISIONAL, complete=False)
