"""Each container that can hold any files keeps the contract; test_container_contract.py asks more of all of them."""

from __future__ import annotations

from collections.abc import Mapping

from reelstream.archive import ArchiveIdentity, ByteSource
from reelstream.archive.containers import Container, ContainerKind, MemberStream, open_stream
from reelstream.testing import pack_tar, pack_tar_gz, pack_zip
from reelstream.testing.contracts import MemberStreamContract


def opened(kind: ContainerKind, source: ByteSource) -> MemberStream:
    return open_stream(Container(kind=kind, identity=ArchiveIdentity(size_bytes=source.size_bytes)), source)


class TestTarGz(MemberStreamContract):
    def pack(self, files: Mapping[str, bytes]) -> bytes:
        return pack_tar_gz(files)

    def open_stream(self, source: ByteSource) -> MemberStream:
        return opened(ContainerKind.TAR_GZ, source)


class TestTar(MemberStreamContract):
    def pack(self, files: Mapping[str, bytes]) -> bytes:
        return pack_tar(files)

    def open_stream(self, source: ByteSource) -> MemberStream:
        return opened(ContainerKind.TAR, source)


class TestZip(MemberStreamContract):
    def pack(self, files: Mapping[str, bytes]) -> bytes:
        return pack_zip(files)

    def open_stream(self, source: ByteSource) -> MemberStream:
        return opened(ContainerKind.ZIP, source)
