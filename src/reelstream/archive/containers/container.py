"""What must be known of a container before it is read."""

from __future__ import annotations

from dataclasses import dataclass

from reelstream.archive.seek.index import ArchiveIdentity, ArchiveIndex
from reelstream.types import Archive, ContainerKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One published container: what it is, and which bytes."""

    kind: ContainerKind
    identity: ArchiveIdentity
    file_name: str = ""
    """What the only member of a loose file is called; of no use for others."""

    @classmethod
    def of(cls, archive: Archive) -> Container:
        """Return the container that an archive of a repository is."""
        return cls(
            kind=archive.kind,
            identity=ArchiveIdentity(size_bytes=archive.size_bytes, sha256=archive.file.sha256),
            file_name=archive.path_in_subset,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnservedMember:
    """A member whose bytes cannot be had."""

    name: str
    header_offset: int
    """Where it lies among the others."""
    problem: str
    """Why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """What a container says of its members before any of them is read."""

    index: ArchiveIndex
    """Those that can be read; complete, and provisional: each is proven by its own digest when it is read."""
    unserved: tuple[UnservedMember, ...] = ()
    """Those that cannot, in the order they lie; folders are neither."""
