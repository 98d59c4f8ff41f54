from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from catalog_kit import MadeRepository, record
from reelstream.catalog import build_subset, catalog_folder, open_catalog
from reelstream.errors import AnnotationError, BudgetTooSmallError, DiskError, NetworkError
from reelstream.types import RepositoryFile

ROWS = [record(f"d{row % 7}/v{row % 50}.mp4", answer=f"Answer {row}: {row * 7919 % 1000}.") for row in range(3000)]


def made() -> MadeRepository:
    return MadeRepository({"s/s_cap.json": ROWS, "s/s_mc.json": ROWS[:10]})


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_complete_catalog_is_opened_again_without_the_network(tmp_path: Path) -> None:
    repository = made()
    first = repository.prepare(tmp_path, "s").fingerprint
    assert repository.opened == ["s/s_cap.json", "s/s_mc.json"]
    assert repository.prepare(tmp_path, "s").fingerprint == first
    assert repository.opened == ["s/s_cap.json", "s/s_mc.json"]


@pytest.mark.parametrize("name", ["clips.arrow", "samples.arrow"])
@pytest.mark.parametrize(
    "tear",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
    ],
    ids=["gone", "empty", "tail lost", "half", "zeros"],
)
def test_a_torn_catalog_is_refused_and_built_again(tmp_path: Path, name: str, tear: Callable[[Path], object]) -> None:
    repository = made()
    with repository.prepare(tmp_path, "s") as catalog:
        fingerprint = catalog.fingerprint
    folder = catalog_folder(repository.layout("s"), tmp_path)
    tear(folder / name)
    with pytest.raises(DiskError, match="no whole catalog"):
        open_catalog([folder])
    with repository.prepare(tmp_path, "s") as catalog:
        assert catalog.fingerprint == fingerprint
        assert catalog.num_samples == 3010
        assert catalog.annotation(3009).conversations
    assert len(repository.opened) == 4


def test_another_version_of_the_format_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = made()
    repository.prepare(tmp_path, "s").close()
    monkeypatch.setattr("reelstream.catalog.format.FORMAT_VERSION", 2)
    with pytest.raises(DiskError, match="version 1"):
        open_catalog(list(tmp_path.iterdir()))
    repository.prepare(tmp_path, "s").close()
    assert len(list(tmp_path.iterdir())) == 2


def test_the_folder_tells_commit_and_kinds_apart(tmp_path: Path) -> None:
    here = made()
    there = MadeRepository({"s/s_cap.json": ROWS, "s/s_mc.json": ROWS[:10]}, commit="f" * 40)
    folders = {
        catalog_folder(here.layout("s"), tmp_path),
        catalog_folder(there.layout("s"), tmp_path),
        catalog_folder(here.layout("s", kinds=["cap"]), tmp_path),
        catalog_folder(here.layout("s", kinds=["mc", "cap"]), tmp_path),
    }
    assert len(folders) == 4


def test_room_is_asked_for_before_bytes_are_written_and_adds_up_to_what_is_on_disk(tmp_path: Path) -> None:
    granted: list[int] = []

    def reserve(size_bytes: int) -> None:
        on_disk = sum(-(-path.stat().st_size // 4096) * 4096 for path in tmp_path.rglob("*") if path.is_file())
        assert on_disk <= sum(granted)
        granted.append(size_bytes)

    rows = [record(f"v{row}.mp4", answer=f"{row * 7919**9 % 10**60}" * 4) for row in range(40_000)]
    repository = MadeRepository({"s/s_cap.json": rows})
    with repository.prepare(tmp_path, "s", reserve=reserve) as catalog:
        assert sum(granted) == catalog.size_bytes
        assert len(granted) > 4
        assert max(granted) <= 2**20 + 4096
    again: list[int] = []
    repository.prepare(tmp_path, "s", reserve=again.append).close()
    assert sum(again) == sum(granted)


class Interrupt:
    """Raises at its n-th call."""

    def __init__(self, error: BaseException, calls: int) -> None:
        self.error, self.calls = error, calls

    def __call__(self, _: object) -> None:
        self.calls -= 1
        if self.calls <= 0:
            raise self.error


@pytest.mark.parametrize("error", [BudgetTooSmallError("no room"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("calls", [1, 2, 3])
def test_whatever_stops_the_reservation_passes_and_leaves_nothing(
    tmp_path: Path, error: BaseException, calls: int
) -> None:
    with pytest.raises(type(error)) as caught:
        made().prepare(tmp_path, "s", reserve=Interrupt(error, calls))
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("calls", [1, 100])
def test_ctrl_c_while_reading_leaves_nothing_and_closes_the_stream(tmp_path: Path, calls: int) -> None:
    repository = made()
    closed: list[str] = []

    def open_file(file: RepositoryFile) -> Iterator[bytes]:
        try:
            yield from repository.open_file(file)
        finally:
            closed.append(file.path)

    with pytest.raises(KeyboardInterrupt):
        build_subset(
            repository.layout("s"),
            tmp_path / "catalog",
            open_file=open_file,
            reserve=lambda _: None,
            progress=Interrupt(KeyboardInterrupt(), calls),
        )
    assert closed == ["s/s_cap.json"]
    assert list(tmp_path.iterdir()) == []


def test_a_broken_network_passes_and_leaves_what_was_whole(tmp_path: Path) -> None:
    repository = MadeRepository({"a/a_cap.json": ROWS, "b/b_cap.json": ROWS})

    def open_file(file: RepositoryFile) -> Iterator[bytes]:
        if file.path.startswith("b/"):
            raise NetworkError("no answer")
        yield repository.data[file.path]

    a, b = repository.layouts("a", "b")
    build_subset(a, tmp_path / "a", open_file=open_file, reserve=lambda _: None)
    with pytest.raises(NetworkError, match="no answer"):
        build_subset(b, tmp_path / "b", open_file=open_file, reserve=lambda _: None)
    assert files_in(tmp_path) == ["clips.arrow", "samples.arrow"]


def test_a_wrong_row_leaves_nothing(tmp_path: Path) -> None:
    repository = MadeRepository({"s/s_cap.json": [*ROWS, record("../x.mp4")]})
    with pytest.raises(AnnotationError, match=r"Row 3,000 of s/s_cap\.json"):
        repository.prepare(tmp_path, "s")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DiskError, match=r"Cannot write .*file.*: Not a directory") as caught:
        made().prepare(tmp_path / "file", "s")
    assert "cache folder" in caught.value.hint


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reelstream.catalog.storage.os.write", full)
    with pytest.raises(DiskError, match=r"Cannot write .*arrow: No space left on device") as caught:
        made().prepare(tmp_path, "s")
    assert "Free some space" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_build_are_removed_and_other_files_are_not(tmp_path: Path) -> None:
    repository = made()
    folder = catalog_folder(repository.layout("s"), tmp_path)
    folder.mkdir()
    (folder / ".samples.arrow.0123456789abcdef.partial").write_bytes(b"half")
    (folder / "notes.txt").write_text("the user's own")
    repository.prepare(tmp_path, "s").close()
    assert files_in(folder) == ["clips.arrow", "notes.txt", "samples.arrow"]


def test_progress_counts_the_bytes_of_the_annotations(tmp_path: Path) -> None:
    repository = made()
    read: list[int] = []
    layout = repository.layout("s")
    build_subset(layout, tmp_path / "x", open_file=repository.open_file, reserve=lambda _: None, progress=read.append)
    assert sum(read) == layout.annotation_size_bytes


def test_the_files_are_plain_arrow_with_uncompressed_buffers_and_a_header(tmp_path: Path) -> None:
    repository = made()
    repository.prepare(tmp_path, "s").close()
    folder = catalog_folder(repository.layout("s"), tmp_path)
    before = pa.total_allocated_bytes()
    with pa.memory_map(str(folder / "samples.arrow")) as source:
        table = pa.ipc.open_file(source).read_all()
        assert table.schema.names == ["file", "row", "id", "text"]
        assert table.num_rows == 3010
        # Mapped, not copied.
        assert pa.total_allocated_bytes() - before < 10_000
    schema = pa.ipc.open_file(folder / "clips.arrow").schema
    assert schema.names == ["path", "hash", "samples"]
    header = json.loads(schema.metadata[b"reelstream"])
    assert (header["format"], header["version"]) == ("reelstream-catalog", 1)
    assert [len(dictionary) > 1000 for dictionary in header["dictionaries"]] == [True, False]


def test_short_texts_are_compressed_by_the_dictionary_of_their_file(tmp_path: Path) -> None:
    repository = made()
    repository.prepare(tmp_path, "s").close()
    batches = pa.ipc.open_file(catalog_folder(repository.layout("s"), tmp_path) / "samples.arrow").read_all()
    stored_bytes = sum(map(len, batches.column("text").to_pylist())) / 3010
    published_bytes = sum(len(json.dumps(row["conversations"])) for row in ROWS) / 3000
    assert stored_bytes < published_bytes / 3
