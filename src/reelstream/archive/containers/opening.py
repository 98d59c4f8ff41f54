"""One door for each thing that is asked of a container, whichever kind it is."""

from __future__ import annotations

from reelstream.archive.containers.container import Container, Directory
from reelstream.archive.containers.known_stream import KnownStream
from reelstream.archive.containers.stream import MemberStream
from reelstream.archive.containers.tar_gz_stream import TarGzStream
from reelstream.archive.containers.tar_stream import TarStream
from reelstream.archive.containers.zip_directory import read_zip_directory
from reelstream.archive.cuts.bookmark import Bookmark
from reelstream.archive.seek.index import (
    Coding,
    DigestKind,
    IndexBuilder,
    IndexRow,
    MemberKind,
    Verification,
    plain_point,
)
from reelstream.archive.seek.row_kinds import DIGEST_BYTES
from reelstream.archive.source import ByteSource
from reelstream.types import ContainerKind


def open_stream(
    container: Container, source: ByteSource, *, learn: bool = True, resume: Bookmark | None = None
) -> MemberStream:
    """Return a stream over a container's members, from front to back or from a bookmark on.

    Args:
        container: What it is.
        source: Its bytes. A zip's directory is read from it at once.
        learn: Whether to learn where members lie, where that costs something.
        resume: The bookmark of a row of an earlier stream over the same bytes: that member comes first.

    Raises:
        ArchiveError: Where a zip has no directory.
    """
    if container.kind is ContainerKind.TAR_GZ:
        return TarGzStream(container, source, learn=learn, resume=resume)
    if container.kind is ContainerKind.TAR:
        return TarStream(container, source, learn=learn, resume=resume)
    directory = read_directory(container, source)
    assert directory is not None
    return KnownStream(source, directory, resume=resume)


def read_directory(container: Container, source: ByteSource) -> Directory | None:
    """Return what a container says of its members before any is read; None where only a pass over it can tell.

    A zip's is read from its end in one to three small ranges; for a loose file nothing is read.

    Raises:
        ArchiveError: Where a zip has no directory, or one that cannot be read to its end.
    """
    if container.kind is ContainerKind.ZIP:
        return read_zip_directory(container, source)
    if container.kind is ContainerKind.FILE:
        return _single_file(container)
    return None


def _single_file(container: Container) -> Directory:
    identity = container.identity
    builder = IndexBuilder()
    builder.add(
        IndexRow(
            name=container.file_name,
            kind=MemberKind.REGULAR,
            size_bytes=identity.size_bytes,
            header_offset=0,
            data_offset=0,
            compressed_end=identity.size_bytes,
            digest=bytes.fromhex(identity.sha256)[:DIGEST_BYTES] if identity.sha256 else b"",
            link_target=None,
            point=plain_point(0),
            coding=Coding.STORED,
            digest_kind=DigestKind.SHA256 if identity.sha256 else DigestKind.NONE,
        )
    )
    return Directory(index=builder.build(identity, Verification.PROVISIONAL, complete=True))
