"""tar.gz, plain tar, zip and loose files under one protocol.

Those who read them need three things, the same for all four: to stream the members of a whole container and learn where
they lie (`open_stream`), to know the members beforehand where the container names them (`read_directory`), and to read
members by ranges (`reelstream.archive.read_rows`).
"""

from reelstream.archive.containers.container import Container, Directory, UnservedMember
from reelstream.archive.containers.learning_stream import WholeDigest
from reelstream.archive.containers.opening import open_stream, read_directory
from reelstream.archive.containers.stream import MemberStream
from reelstream.types import ContainerKind

__all__ = [
    "Container",
    "ContainerKind",
    "Directory",
    "MemberStream",
    "UnservedMember",
    "WholeDigest",
    "open_stream",
    "read_directory",
]
