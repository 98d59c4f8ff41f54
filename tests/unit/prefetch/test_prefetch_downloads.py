"""Archives fetched whole: refused with numbers where they do not fit, gone on with after a stop, never torn."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reelstream.cache import DiskBudget
from reelstream.cancel import Cancellation, Cancelled
from reelstream.errors import BudgetTooSmallError, DiskError, HubError, NetworkError
from reelstream.prefetch.downloads import Downloads, file_name_of
from reelstream.telemetry import Telemetry, events
from reelstream.types import Archive, Repository, RepositoryFile

MB = 10**6
REPOSITORY = Repository(repo_id="somebody/videos", commit="c" * 40, files=())


class FakeHub:
    """Files in memory, and a record of what was read of them."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents
        self.read: list[tuple[str, int, int]] = []
        self.on_chunk: Callable[[str, int], None] = lambda path, position: None

    def archives(self, *, with_digests: bool = True) -> list[Archive]:
        return [
            Archive(
                subset="subset",
                file=RepositoryFile(
                    path=path,
                    size_bytes=len(content),
                    sha256=hashlib.sha256(content).hexdigest() if with_digests else None,
                ),
            )
            for path, content in self.contents.items()
        ]

    def open(self, archive: Archive) -> FakeFile:
        return FakeFile(self, archive)


class FakeFile:
    def __init__(self, hub: FakeHub, archive: Archive) -> None:
        self._hub = hub
        self.path = archive.path
        self.size_bytes = archive.size_bytes

    def read(self, first_byte: int, end_byte: int, cancellation: Cancellation) -> Iterator[bytes]:
        self._hub.read.append((self.path, first_byte, end_byte))
        for position in range(first_byte, end_byte, 10_000):
            cancellation.raise_if_cancelled()
            self._hub.on_chunk(self.path, position)
            yield self._hub.contents[self.path][position : min(position + 10_000, end_byte)]


class Notices:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.telemetry = Telemetry(self)

    def receive(self, wall_s: float, event: events.Event) -> None:
        if isinstance(event, events.Notice):
            self.lines.append(event.message)


@pytest.fixture
def hub() -> FakeHub:
    return FakeHub({f"subset/{name}.tar.gz": os.urandom(size) for name, size in (("a", 100_000), ("b", 45_000))})


def downloads_of(
    hub: FakeHub,
    folder: Path,
    *,
    budget: DiskBudget | None = None,
    with_digests: bool = True,
    notices: Notices | None = None,
    connections: int = 2,
) -> Downloads:
    return Downloads(
        folder,
        hub.archives(with_digests=with_digests),
        REPOSITORY,
        open_file=hub.open,
        budget=budget or DiskBudget(10 * MB),
        connections=connections,
        telemetry=(notices or Notices()).telemetry,
    )


def fetched(hub: FakeHub, folder: Path, **options: object) -> Downloads:
    downloads = downloads_of(hub, folder, **options)  # type: ignore[arg-type]
    downloads.claim(least_others_bytes=MB)
    downloads.fetch(Cancellation())
    return downloads


# ---------------------------------------------------------------------- fetching


@pytest.mark.parametrize("with_digests", [True, False])
def test_what_is_fetched_is_read_as_from_the_hub(hub: FakeHub, tmp_path: Path, with_digests: bool) -> None:
    downloads = fetched(hub, tmp_path, with_digests=with_digests)
    for archive in hub.archives(with_digests=with_digests):
        file = downloads.open(archive)
        assert (file.path, file.size_bytes) == (archive.path, archive.size_bytes)
        content = hub.contents[archive.path]
        assert b"".join(file.read(0, len(content), Cancellation())) == content
        assert b"".join(file.read(12_345, 40_000, Cancellation())) == content[12_345:40_000]
    assert not list(tmp_path.glob("*.part"))


def test_a_second_start_fetches_nothing(hub: FakeHub, tmp_path: Path) -> None:
    assert fetched(hub, tmp_path).take_fetched_bytes() == 145_000
    hub.read.clear()
    again = fetched(hub, tmp_path)
    assert hub.read == []
    assert again.take_fetched_bytes() == 0


def test_bytes_that_were_fetched_are_told_once(hub: FakeHub, tmp_path: Path) -> None:
    downloads = fetched(hub, tmp_path)
    assert [downloads.take_fetched_bytes(), downloads.take_fetched_bytes()] == [145_000, 0]


def test_archives_of_the_same_bytes_are_one_file(tmp_path: Path) -> None:
    content = os.urandom(20_000)
    hub = FakeHub({"subset/a.tar": content, "subset/b.tar": content})
    downloads = fetched(hub, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert downloads.total_bytes == 20_000
    for archive in hub.archives():
        assert b"".join(downloads.open(archive).read(0, 20_000, Cancellation())) == content


def test_without_a_digest_the_commit_tells_archives_apart(hub: FakeHub) -> None:
    archive = hub.archives(with_digests=False)[0]
    other = Repository(repo_id=REPOSITORY.repo_id, commit="d" * 40, files=())
    assert file_name_of(archive, REPOSITORY) != file_name_of(archive, other)
    known = hub.archives()[0]
    assert file_name_of(known, REPOSITORY) == file_name_of(known, other)


def test_a_download_that_was_called_off_is_gone_on_with(hub: FakeHub, tmp_path: Path) -> None:
    cancellation = Cancellation()

    def call_off(path: str, position: int) -> None:
        if (path, position) == ("subset/a.tar.gz", 50_000):
            cancellation.cancel()

    hub.on_chunk = call_off
    downloads = downloads_of(hub, tmp_path, connections=1)
    downloads.claim(least_others_bytes=MB)
    with pytest.raises(Cancelled):
        downloads.fetch(cancellation)
    hub.on_chunk = lambda path, position: None
    hub.read.clear()
    fetched(hub, tmp_path, connections=1)
    firsts = {path: first_byte for path, first_byte, _ in hub.read}
    # The chunk that was under way came to its end.
    assert firsts == {"subset/a.tar.gz": 60_000, "subset/b.tar.gz": 0}


def test_an_error_ends_the_others_and_keeps_what_came(hub: FakeHub, tmp_path: Path) -> None:
    def fail(path: str, position: int) -> None:
        if (path, position) == ("subset/a.tar.gz", 90_000):
            raise NetworkError("the line is dead")

    hub.on_chunk = fail
    downloads = downloads_of(hub, tmp_path)
    downloads.claim(least_others_bytes=MB)
    with pytest.raises(NetworkError, match="the line is dead"):
        downloads.fetch(Cancellation())
    assert any(file.stat().st_size == 90_000 for file in tmp_path.glob("*.part"))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reelstream-download")]


def test_bytes_that_a_power_failure_has_torn_are_fetched_again(hub: FakeHub, tmp_path: Path) -> None:
    archive = hub.archives()[0]
    (tmp_path / f"{file_name_of(archive, REPOSITORY)}.part").write_bytes(b"\0" * 70_000)
    downloads = fetched(hub, tmp_path)
    content = hub.contents[archive.path]
    assert b"".join(downloads.open(archive).read(0, len(content), Cancellation())) == content
    assert [read for read in hub.read if read[0] == archive.path] == [
        (archive.path, 70_000, 100_000),
        (archive.path, 0, 100_000),
    ]


def test_bytes_that_are_not_what_the_hub_names_are_refused(hub: FakeHub, tmp_path: Path) -> None:
    downloads = downloads_of(hub, tmp_path)
    downloads.claim(least_others_bytes=MB)
    hub.contents["subset/b.tar.gz"] = b"?" * 45_000
    with pytest.raises(HubError, match=r"subset/b\.tar\.gz came twice with other bytes"):
        downloads.fetch(Cancellation())
    assert not any(file.stat().st_size == 45_000 for file in tmp_path.iterdir())


def test_an_archive_that_another_process_fetches_is_waited_for(hub: FakeHub, tmp_path: Path) -> None:
    archive = hub.archives()[0]
    target = tmp_path / file_name_of(archive, REPOSITORY)
    part = target.with_name(f"{target.name}.part")
    part.write_bytes(hub.contents[archive.path])
    descriptor = os.open(part, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    told = threading.Event()

    class Waiting(Notices):
        def receive(self, wall_s: float, event: events.Event) -> None:
            super().receive(wall_s, event)
            if "waiting for it" in self.lines[-1]:
                told.set()

    def finish_elsewhere() -> None:
        told.wait(30)
        part.rename(target)
        os.close(descriptor)

    other = threading.Thread(target=finish_elsewhere)
    other.start()
    fetched(hub, tmp_path, notices=Waiting())
    other.join()
    assert [path for path, _, _ in hub.read] == ["subset/b.tar.gz"]


def test_a_downloaded_file_that_was_cut_short_is_told(hub: FakeHub, tmp_path: Path) -> None:
    downloads = fetched(hub, tmp_path)
    archive = hub.archives()[0]
    os.truncate(tmp_path / file_name_of(archive, REPOSITORY), 30_000)
    with pytest.raises(DiskError, match=r"ends at byte 30000 of 100000"):
        list(downloads.open(archive).read(0, 100_000, Cancellation()))
    (tmp_path / file_name_of(archive, REPOSITORY)).unlink()
    with pytest.raises(DiskError, match="cannot be read"):
        list(downloads.open(archive).read(0, 100_000, Cancellation()))


# ---------------------------------------------------------------------- whether they fit


def test_a_budget_that_cannot_hold_them_is_refused_with_one_that_can(hub: FakeHub, tmp_path: Path) -> None:
    budget = DiskBudget(1_000_000)
    budget.account("logs").reserve(200_000)
    with pytest.raises(BudgetTooSmallError, match=r"2 archives \(145 kB\) must lie on disk") as caught:
        downloads_of(hub, tmp_path, budget=budget).claim(least_others_bytes=MB)
    match = re.search(r"set disk_budget to (\d+)MB", caught.value.hint)
    assert match
    roomy = DiskBudget(int(match.group(1)) * MB)
    roomy.account("logs").reserve(200_000)
    downloads_of(hub, tmp_path, budget=roomy).claim(least_others_bytes=MB)
    assert hub.read == []


def test_a_disk_that_cannot_hold_them_is_refused_with_the_numbers(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_100_000))
    with pytest.raises(DiskError, match=r"145 kB of them are not there yet, .* has 1\.10 MB free") as caught:
        downloads_of(hub, tmp_path).claim(least_others_bytes=MB)
    assert "free 45.0 kB there" in caught.value.hint
    assert "streaming_mode" in caught.value.hint


def test_what_is_there_already_needs_no_free_disk(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched(hub, tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_100_000))
    downloads_of(hub, tmp_path).claim(least_others_bytes=MB)


def test_room_is_set_aside_before_and_counted_as_it_is_taken(hub: FakeHub, tmp_path: Path) -> None:
    budget = DiskBudget(10 * MB)
    downloads = downloads_of(hub, tmp_path, budget=budget)
    downloads.claim(least_others_bytes=MB)
    in_blocks = 102_400 + 45_056
    assert (budget.used_bytes, budget.free_bytes) == (0, 10 * MB - in_blocks)
    downloads.fetch(Cancellation())
    assert (budget.used_bytes, budget.free_bytes) == (in_blocks, 10 * MB - in_blocks)


def test_a_dataset_that_is_opened_twice_in_a_run_is_counted_once(hub: FakeHub, tmp_path: Path) -> None:
    budget = DiskBudget(1_200_000)
    fetched(hub, tmp_path, budget=budget)
    used_bytes = budget.used_bytes
    fetched(hub, tmp_path, budget=budget)
    assert budget.used_bytes == used_bytes


# ---------------------------------------------------------------------- telling


def test_how_far_it_is_is_told_every_ten_seconds(hub: FakeHub, tmp_path: Path) -> None:
    class Watch:
        now_s = 0.0

        def monotonic(self) -> float:
            self.now_s += 1.0
            return self.now_s

        def wall(self) -> float:
            return 0.0

        def wait(self, event: threading.Event, seconds: float) -> bool:
            return event.is_set()

    notices = Notices()
    downloads = Downloads(
        tmp_path,
        hub.archives(),
        REPOSITORY,
        open_file=hub.open,
        budget=DiskBudget(10 * MB),
        connections=1,
        telemetry=notices.telemetry,
        clock=Watch(),
    )
    downloads.claim(least_others_bytes=MB)
    downloads.fetch(Cancellation())
    assert notices.lines == [
        "downloading: 100 kB of 145 kB are on disk (68 %)",
        f"2 archives (145 kB) on disk, 145 kB of that fetched now; they stay in {tmp_path} until you delete them",
    ]
