"""The books of the index store against the disk, whatever is kept, dropped, removed or torn, by two stores at once."""

from __future__ import annotations

import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from indexes_kit import archive_of, begin_cut, clips, index_of, tar_gz
from reelstream.archive import Verification
from reelstream.cache import DiskBudget
from reelstream.indexes import IndexStore, LearnedCut

CONTENTS = [tar_gz(clips(3, seed=100 + number, size_bytes=9_000)) for number in range(4)]
ARCHIVES = [archive_of(content, f"s/{number}.tar.gz") for number, content in enumerate(CONTENTS)]
INDEXES = {
    (number, verification): index_of(CONTENTS[number], verification)
    for number in range(4)
    for verification in (Verification.CHECKSUM, Verification.SHA256)
}
BEGUN = [begin_cut(content, 2) for content in CONTENTS]

NUMBERS = st.integers(0, 3)
STORES = st.integers(0, 1)


class TwoStores(RuleBasedStateMachine):
    """Two datasets of a run: archives 0 and 1, and 2 and 3; a folder and an account for both."""

    def __init__(self) -> None:
        super().__init__()
        self._temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self._temporary.name) / "indexes"

    @initialize(num_blocks=st.integers(0, 9))
    def begin(self, num_blocks: int) -> None:
        self.account = DiskBudget(1_000_000).account("indexes")
        self.account.set_aside(num_blocks * 4096)
        self.stores = [IndexStore(self.folder, self.account) for _ in range(2)]
        for number, store in enumerate(self.stores):
            store.open(ARCHIVES[2 * number : 2 * number + 2])

    @rule(store=STORES, number=NUMBERS, verification=st.sampled_from([Verification.CHECKSUM, Verification.SHA256]))
    def save(self, store: int, number: int, verification: Verification) -> None:
        if self.stores[store].save(INDEXES[number, verification]):
            found = self.stores[store].find(ARCHIVES[number])
            assert found is not None
            assert found.verification >= verification

    @rule(store=STORES, number=NUMBERS, first_byte=st.sampled_from([0, 100]))
    def save_cut(self, store: int, number: int, first_byte: int) -> None:
        cut = BEGUN[number] if first_byte == 0 else LearnedCut(first_byte=first_byte, report=None, rows=[])
        if self.stores[store].save_cut(ARCHIVES[number], cut):
            found = self.stores[store].find_cut(ARCHIVES[number], first_byte)
            assert found is not None
            assert [row.name for row in found.rows] == [row.name for row in cut.rows]

    @rule(store=STORES, number=NUMBERS)
    def drop_cuts(self, store: int, number: int) -> None:
        self.stores[store].drop_cuts(ARCHIVES[number])
        assert self.stores[1 - store].cuts(ARCHIVES[number]) == []

    @rule(store=STORES, number=NUMBERS)
    def find(self, store: int, number: int) -> None:
        found = self.stores[store].find(ARCHIVES[number])
        if found is not None:
            assert found.identity.sha256 == ARCHIVES[number].file.sha256
            assert len(found) == 3
        for cut in self.stores[store].cuts(ARCHIVES[number]):
            assert len(cut.rows) in {0, 2}

    @rule(data=st.data(), tear=st.booleans())
    def vanish_or_tear(self, data: st.DataObject, tear: bool) -> None:
        names = sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []
        if not names:
            return
        path = self.folder / data.draw(st.sampled_from(names))
        if tear:
            path.write_bytes(path.read_bytes()[:-3])
        else:
            path.unlink()

    @rule(store=STORES)
    def open_again(self, store: int) -> None:
        self.stores[store] = IndexStore(self.folder, self.account)
        self.stores[store].open(ARCHIVES[2 * store : 2 * store + 2])

    @invariant()
    def never_more_than_is_set_aside(self) -> None:
        if not hasattr(self, "account"):
            return
        assert self.account.used_bytes <= self.account.set_aside_bytes
        if self.folder.exists():
            on_disk_bytes = sum(path.stat().st_blocks * 512 for path in self.folder.iterdir())
            assert on_disk_bytes <= self.account.used_bytes
            assert not list(self.folder.glob(".*"))

    def teardown(self) -> None:
        self._temporary.cleanup()


TestTwoStores = TwoStores.TestCase
TestTwoStores.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
