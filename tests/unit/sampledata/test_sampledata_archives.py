from __future__ import annotations

import gzip
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from reelstream.errors import DiskError
from reelstream.sampledata.archives import open_archive
from reelstream.sampledata.options import Packing


def _write(path: Path, packing: Packing = "tar.gz", prefix: str = "") -> bytes:
    with open_archive(path, packing, prefix=prefix) as archive:
        archive.add("source/a/one.mp4", b"1" * 3000)
        archive.add("source/a/Zoë.mp4", b"2")
        archive.add(f"source/b/{'long' * 30}.mp4", b"3" * 700)
    return path.read_bytes()


@pytest.fixture(params=["gzip", "python"])
def _compressor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "python":
        monkeypatch.setattr(shutil, "which", lambda name: None)
    elif shutil.which("gzip") is None:
        pytest.skip("this machine has no gzip program")


@pytest.mark.usefixtures("_compressor")
def test_members_read_back_with_folders_before_their_files(tmp_path: Path) -> None:
    _write(tmp_path / "a.tar.gz")
    with tarfile.open(tmp_path / "a.tar.gz", "r|gz") as tar:
        members = [(member.name, member.isdir(), member.size) for member in tar]
    assert members == [
        ("source", True, 0),
        ("source/a", True, 0),
        ("source/a/one.mp4", False, 3000),
        ("source/a/Zoë.mp4", False, 1),
        ("source/b", True, 0),
        (f"source/b/{'long' * 30}.mp4", False, 700),
    ]


@pytest.mark.usefixtures("_compressor")
def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    content = _write(tmp_path / "a.tar.gz")
    assert content == _write(tmp_path / "b.tar.gz")
    # No name, no time; one gzip member that is whole.
    assert content[3:8] == b"\0\0\0\0\0"
    assert len(gzip.decompress(content)) % 10240 == 0


def test_a_prefix_stands_before_each_name(tmp_path: Path) -> None:
    content = gzip.decompress(_write(tmp_path / "a.tar.gz", prefix="./"))
    assert content.startswith(b"./source/\0")
    assert b"./source/a/one.mp4\0" in content


def test_a_plain_tar_is_what_is_compressed_otherwise(tmp_path: Path) -> None:
    plain = _write(tmp_path / "a.tar", "tar")
    assert plain == gzip.decompress(_write(tmp_path / "a.tar.gz"))
    with tarfile.open(tmp_path / "a.tar", "r:") as tar:
        assert len(tar.getmembers()) == 6


def test_a_zip_stores_the_same_members_with_a_prefix_where_told(tmp_path: Path) -> None:
    content = _write(tmp_path / "a.zip", "zip", prefix="./")
    assert content == _write(tmp_path / "b.zip", "zip", prefix="./")
    with zipfile.ZipFile(tmp_path / "a.zip") as packed:
        assert packed.testzip() is None
        assert [(entry.filename, entry.is_dir(), entry.file_size) for entry in packed.infolist()] == [
            ("./source/", True, 0),
            ("./source/a/", True, 0),
            ("./source/a/one.mp4", False, 3000),
            ("./source/a/Zoë.mp4", False, 1),
            ("./source/b/", True, 0),
            (f"./source/b/{'long' * 30}.mp4", False, 700),
        ]
        assert {entry.compress_type for entry in packed.infolist()} == {zipfile.ZIP_STORED}


def test_a_loose_file_is_its_only_member(tmp_path: Path) -> None:
    with open_archive(tmp_path / "below" / "one.mp4", "files") as archive:
        archive.add("one.mp4", b"1" * 3000)
    assert (tmp_path / "below" / "one.mp4").read_bytes() == b"1" * 3000


@pytest.mark.usefixtures("_compressor")
def test_an_interrupted_archive_passes_the_interrupt_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_archive(tmp_path / "a.tar.gz") as archive:
        archive.add("one.mp4", b"1" * 1_000_000)
        raise KeyboardInterrupt


def test_a_compressor_that_fails_is_a_disk_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = tmp_path / "gzip"
    failing.write_text("#!/bin/sh\necho 'gzip: stdout: No space left on device' >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(failing))
    with pytest.raises(DiskError, match="No space left on device"):
        _write(tmp_path / "small.tar.gz")
    with (
        pytest.raises(DiskError, match="No space left on device"),
        open_archive(tmp_path / "large.tar.gz") as archive,
    ):
        archive.add("one.mp4", bytes(5_000_000))


def test_a_folder_that_is_gone_is_a_disk_error(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="could not be written"):
        _write(tmp_path / "gone" / "a.tar.gz")
