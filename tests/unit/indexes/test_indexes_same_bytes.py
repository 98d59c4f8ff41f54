from __future__ import annotations

import io
import tarfile

from archive_index_kit import media
from indexes_kit import archive_of, index_of_tar, tar_gz
from indexes_kit import index_of as index_of_tar_gz
from reelstream.archive import ArchiveIndex
from reelstream.indexes.same_bytes import same_bytes
from reelstream.types import Archive

DOG, CAT, FOX = (media(number, 60_000) for number in range(3))


def tar_gz_index(path: str, files: dict[str, bytes]) -> tuple[Archive, ArchiveIndex]:
    content = tar_gz(files)
    return archive_of(content, path), index_of_tar_gz(content)


def names_of(*indexes: tuple[Archive, ArchiveIndex]) -> list[list[str]]:
    return [[f"{member.archive.subset}/{member.name}" for member in group] for group in same_bytes(indexes)]


def test_members_of_equal_bytes_are_found_over_archives_whatever_their_names() -> None:
    one = tar_gz_index("a/1.tar.gz", {"x/dog.mp4": DOG, "cat.mp4": CAT, "hound.mp4": DOG})
    two = tar_gz_index("b/1.tar.gz", {"fox.mp4": FOX, "cat.mp4": CAT})
    assert names_of(one, two) == [["a/x/dog.mp4", "a/hound.mp4"], ["a/cat.mp4", "b/cat.mp4"]]


def test_empty_members_are_no_pair() -> None:
    assert names_of(tar_gz_index("a/1.tar.gz", {"x.mp4": b"", "y.mp4": b"", "dog.mp4": DOG})) == []


def test_a_hard_link_has_the_bytes_of_its_target() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, target in (("dog.mp4", None), ("cat.mp4", None), ("hound.mp4", "dog.mp4"), ("lost.mp4", "gone.mp4")):
            info = tarfile.TarInfo(name)
            content = {"dog.mp4": DOG, "cat.mp4": CAT}.get(name, b"")
            info.size = len(content)
            if target is not None:
                info.type, info.linkname = tarfile.LNKTYPE, target
            tar.addfile(info, io.BytesIO(content))
    content = packed.getvalue()
    assert names_of((archive_of(content, "a/1.tar"), index_of_tar(content))) == [["a/dog.mp4", "a/hound.mp4"]]


def test_without_indexes_nothing_is_claimed() -> None:
    assert same_bytes([]) == []
