import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from reelstream.cache import ClipCache, ClipFile, DiskBudget, RunFolder, allocated_bytes
from reelstream.errors import BudgetTooSmallError, DiskError


def make_cache(folder: Path, total_bytes: int = 1 << 20) -> tuple[DiskBudget, ClipCache]:
    budget = DiskBudget(total_bytes)
    return budget, ClipCache(folder, budget.account("clips"))


def put(cache: ClipCache, data: bytes) -> ClipFile:
    assert cache.try_reserve(len(data))
    return cache.write(len(data), [data])


def test_accounts_share_one_budget() -> None:
    budget = DiskBudget(100)
    clips, logs = budget.account("clips"), budget.account("logs")
    clips.reserve(60)
    assert not logs.try_reserve(41)
    assert logs.try_reserve(40)
    clips.release(60)
    assert (budget.used_bytes, budget.free_bytes, budget.high_water_bytes) == (40, 60, 100)
    logs.resize(10)
    assert budget.by_account() == {"clips": 0, "logs": 10}


def test_a_budget_that_is_too_small_names_one_that_would_do() -> None:
    account = DiskBudget(5 * 10**6).account("checkpoints")
    account.reserve(4 * 10**6)
    with pytest.raises(BudgetTooSmallError, match=r"checkpoints need 3.20 MB more.*\n.*disk_budget to 8MB") as caught:
        account.reserve(3_200_000)
    assert pickle.loads(pickle.dumps(caught.value)).fact == caught.value.fact


def test_files_count_as_whole_blocks() -> None:
    assert [allocated_bytes(n) for n in (0, 1, 4096, 4097)] == [0, 4096, 4096, 8192]


def test_a_clip_is_reserved_published_leased_and_deleted(tmp_path: Path) -> None:
    budget, cache = make_cache(tmp_path)
    clip = put(cache, b"x" * 5000)
    assert budget.used_bytes == 8192
    assert cache.check() == []
    with cache.lease(clip) as lease:
        cache.delete(clip)
        assert lease.path.read_bytes() == b"x" * 5000
        assert budget.used_bytes == 8192
    assert budget.used_bytes == 0
    assert list(tmp_path.iterdir()) == []


def test_a_broken_download_leaves_no_file_and_no_reservation(tmp_path: Path) -> None:
    budget, cache = make_cache(tmp_path)

    def broken() -> Iterator[bytes]:
        yield b"abc"
        raise ConnectionResetError

    assert cache.try_reserve(10)
    with pytest.raises(ConnectionResetError):
        cache.write(10, broken())
    assert (budget.used_bytes, list(tmp_path.iterdir()), cache.check()) == (0, [], [])


def test_no_room_means_no_reservation(tmp_path: Path) -> None:
    budget, cache = make_cache(tmp_path, total_bytes=10_000)
    put(cache, b"x" * 5000)
    assert not cache.try_reserve(5000)
    assert budget.used_bytes == 8192


def test_check_finds_what_others_did(tmp_path: Path) -> None:
    _, cache = make_cache(tmp_path)
    gone, cut = put(cache, b"x" * 10), put(cache, b"y" * 10)
    gone.path.unlink()
    cut.path.write_bytes(b"y")
    (tmp_path / "stranger").write_bytes(b"")
    assert cache.check() == [
        "clip-0 is booked and not on disk",
        "stranger is on disk and not booked",
        "clip-1 has 1 bytes on disk, 10 in the books",
    ]


def test_what_processes_share_of_the_hub_is_no_clip(tmp_path: Path) -> None:
    _, cache = make_cache(tmp_path)
    (tmp_path / "hub.json").write_bytes(b"{}")
    assert cache.check() == []


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    budget, cache = make_cache(tmp_path)
    assert cache.try_reserve(10)
    tmp_path.rmdir()
    with pytest.raises(DiskError, match="cannot be written"):
        cache.write(10, [b"x" * 10])
    assert budget.used_bytes == 0


def test_a_run_folder_is_gone_after_the_run(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "cache") as folder:
        (folder.path / "clip-0").write_bytes(b"x")
        (folder.path / "clip-1.part").write_bytes(b"x")
        (folder.path / "hub.json").write_bytes(b"{}")
    assert list(tmp_path.iterdir()) == []


def test_a_dead_runs_leftovers_are_reclaimed_and_strangers_files_stay(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from reelstream.cache import RunFolder\n"
        "folder = RunFolder(Path(sys.argv[1]))\n"
        "(folder.path / 'clip-0').write_bytes(b'x' * 5000); (folder.path / 'clip-1.part').write_bytes(b'x')\n"
        "if len(sys.argv) > 2: (folder.path / 'thesis.txt').write_text('mine')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    for arguments in ([], ["stranger"]):
        subprocess.run([sys.executable, "-c", code, str(tmp_path), *arguments], check=False)
    with RunFolder(tmp_path) as folder:
        assert folder.reclaimed_bytes == 8192 + 4096, "the first was reclaimed by the second"
        others = [entry for entry in folder.path.parent.iterdir() if entry != folder.path]
        assert [[file.name for file in entry.iterdir()] for entry in others] == [["thesis.txt"]]


def test_a_living_runs_folder_is_left_alone(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as first:
        (first.path / "clip-0").write_bytes(b"x")
        with RunFolder(tmp_path) as second:
            assert second.reclaimed_bytes == 0
            assert first.path != second.path
        assert (first.path / "clip-0").exists()


def test_an_unusable_cache_folder_is_refused_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match=r"cannot be used: Not a directory\nname one"):
        RunFolder(tmp_path / "file" / "cache")


def test_concurrent_writers_never_pass_the_budget(tmp_path: Path) -> None:
    budget, cache = make_cache(tmp_path, total_bytes=20 * 4096)
    barrier = threading.Barrier(4)

    def write_and_delete() -> None:
        barrier.wait()
        for _ in range(50):
            if cache.try_reserve(9000):
                cache.delete(cache.write(9000, [b"x" * 9000]))

    threads = [threading.Thread(target=write_and_delete) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (budget.used_bytes, cache.check()) == (0, [])
    assert budget.high_water_bytes <= 20 * 4096


class CacheMachine(RuleBasedStateMachine):
    """Any sequence of writes, leases, ends and deletions keeps books, disk and budget together."""

    clips = Bundle("clips")
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name)
        self.budget, self.cache = make_cache(self.folder, total_bytes=64 * 1024)

    @rule(target=clips, size_bytes=st.integers(0, 30_000))
    def write(self, size_bytes: int) -> ClipFile | None:
        if not self.cache.try_reserve(size_bytes):
            return None
        return self.cache.write(size_bytes, [b"x" * size_bytes])

    @rule(size_bytes=st.integers(1, 30_000), part=st.floats(0, 1))
    def break_a_write(self, size_bytes: int, part: float) -> None:
        def broken() -> Iterator[bytes]:
            yield b"x" * int(size_bytes * part)
            raise TimeoutError

        if self.cache.try_reserve(size_bytes):
            with pytest.raises(TimeoutError):
                self.cache.write(size_bytes, broken())

    @rule(target=leases, clip=clips)
    def lease(self, clip: ClipFile | None) -> object:
        return None if clip is None or clip.deleted else self.cache.lease(clip)

    @rule(lease=consumes(leases))
    def end(self, lease: object) -> None:
        if lease is not None:
            lease.end()  # type: ignore[attr-defined]

    @rule(clip=clips)
    def delete(self, clip: ClipFile | None) -> None:
        if clip is not None:
            self.cache.delete(clip)

    @invariant()
    def books_and_disk_agree(self) -> None:
        assert self.cache.check() == []
        on_disk = sum(entry.stat().st_blocks * 512 for entry in self.folder.iterdir())
        assert on_disk <= self.budget.used_bytes <= self.budget.total_bytes

    def teardown(self) -> None:
        self.temporary.cleanup()


CacheMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestCacheMachine = CacheMachine.TestCase
