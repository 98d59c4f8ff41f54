"""From what a person writes to members of archives, and from members to few ranged reads: nothing is read here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reelstream.archive import ArchiveIndex, IndexRow, RequestCosts, plan_rows
from reelstream.archive.seek.index import normal_name
from reelstream.errors import ConfigError
from reelstream.indexes.known import FoundMember, KnownArchive, NamePattern
from reelstream.types import Archive

_MOST_NAMED = 5


@dataclass(slots=True)
class Resolution:
    """What patterns stand for, as far as members are known."""

    found: list[FoundMember] = field(default_factory=list)
    """Each name once, in the order of the patterns."""
    missing: list[NamePattern] = field(default_factory=list)
    """Patterns that no known member matches."""
    elsewhere: list[FoundMember] = field(default_factory=list)
    """Further members of the names found, in other archives or again in the same one: left aside."""


def resolve(patterns: Iterable[NamePattern], known: Sequence[KnownArchive]) -> Resolution:
    """Return the members that patterns stand for.

    A pattern without `*`, `?` or `[...]` stands for one member: the one of that very name, or else the one whose name
    ends so. Of several members of one name the first one counts, as it does in training.

    Raises:
        ConfigError: Where such a pattern fits members of several names.
    """
    patterns = list(patterns)
    resolution = Resolution()
    taken: set[str] = set()
    for pattern, all_matches in zip(patterns, _matches(patterns, known), strict=True):
        matches = _meant(pattern, all_matches)
        if not matches:
            resolution.missing.append(pattern)
        here: set[str] = set()
        for found in matches:
            name = normal_name(found.name)
            if name in here:
                resolution.elsewhere.append(found)
            elif name not in taken:
                resolution.found.append(found)
            here.add(name)
        taken |= here
    return resolution


def _matches(patterns: Sequence[NamePattern], known: Sequence[KnownArchive]) -> list[list[FoundMember]]:
    """Return the members that each pattern means, in one pass over all that are known, however many patterns."""
    matches: list[list[FoundMember]] = [[] for _ in patterns]
    literal: dict[str, list[int]] = {}
    others = []
    for place, pattern in enumerate(patterns):
        if pattern.is_literal:
            literal.setdefault(normal_name(pattern.text), []).append(place)
        else:
            others.append(place)
    for each in known:
        for index in each.indexes:
            for number in range(len(index)):
                name = normal_name(index.name(number))
                places = [place for end in _ends(name) for place in literal.get(end, ())]
                for place in places + [place for place in others if patterns[place].matches(name)]:
                    matches[place].append(FoundMember(archive=each.archive, index=index, number=number))
    return matches


def _ends(name: str) -> Iterator[str]:
    """Yield a name, and what follows each slash in it."""
    yield name
    while (slash := name.find("/")) >= 0:
        name = name[slash + 1 :]
        yield name


def _meant(pattern: NamePattern, matches: list[FoundMember]) -> list[FoundMember]:
    if not pattern.is_literal:
        return matches
    meant = [found for found in matches if pattern.is_whole_name(found.name)] or matches
    names = list(dict.fromkeys(normal_name(found.name) for found in meant))
    if len(names) > 1:
        shown = ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")
        raise ConfigError(
            f"{pattern.text} fits members of {len(names)} names: {shown}",
            f"write more of the path, or '*/{pattern.text}' to take all of them",
        )
    return meant


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedMember:
    """A member, and where its bytes go."""

    found: FoundMember
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRead:
    """One ranged read of an archive."""

    archive: Archive
    rows: tuple[IndexRow, ...]
    """What it brings, in the order of the archive."""
    paths: tuple[tuple[Path, ...], ...]
    """Where each row's bytes go: to several places where hard links share them."""
    size_bytes: int
    """Compressed bytes that it fetches."""


def plan_reads(wanted: Sequence[WantedMember], costs: RequestCosts) -> list[PlannedRead]:
    """Return the ranged reads that bring all that is wanted, neighbours together.

    Args:
        wanted: Members whose bytes are held by a known row.
        costs: What a request and a byte cost.
    """
    by_index: dict[int, tuple[Archive, ArchiveIndex, dict[int, list[Path]]]] = {}
    for each in wanted:
        found = each.found
        held = found.holding
        assert held is not None, "nothing is known of the bytes of this hard link"
        _, _, paths = by_index.setdefault(id(found.index), (found.archive, found.index, {}))
        paths.setdefault(held, []).append(each.path)
    return [
        PlannedRead(
            archive=archive,
            rows=tuple(index.row(number) for number in request.numbers),
            paths=tuple(tuple(paths[number]) for number in request.numbers),
            size_bytes=request.size_bytes,
        )
        for archive, index, paths in by_index.values()
        for request in plan_rows(index, paths, costs)
    ]
