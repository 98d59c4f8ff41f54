from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from catalog_kit import MadeRepository, record
from reelstream.cache import DiskBudget
from reelstream.catalog import Catalog, catalog_folder
from reelstream.catalog.storage import size_on_disk
from reelstream.errors import AnnotationError, BudgetTooSmallError
from reelstream.prefetch.catalogs import opened_catalog, remove_unused
from reelstream.telemetry import Telemetry

ROWS = [record(video=f"source/{number}.mp4") for number in range(20)]
REPOSITORY = MadeRepository({"one/one_oe.json": ROWS, "two/two_oe.json": ROWS[:5], "bad/bad_oe.json": b'{"id": 1}'})


@contextmanager
def opened(parent: Path, *names: str, budget: DiskBudget, repository: MadeRepository = REPOSITORY) -> Iterator[Catalog]:
    with opened_catalog(
        repository.layouts(*names),
        parent,
        budget=budget,
        open_file=repository.open_file,
        progress=None,
        telemetry=Telemetry(),
    ) as catalog:
        yield catalog


def folder_of(parent: Path, name: str) -> Path:
    return catalog_folder(REPOSITORY.layout(name), parent)


def on_disk(parent: Path) -> int:
    return sum(size_on_disk(folder) for folder in parent.iterdir())


def test_what_lies_on_disk_is_counted_while_it_is_open_and_after(tmp_path: Path) -> None:
    budget = DiskBudget(10**7)
    with opened(tmp_path, "one", "two", budget=budget) as catalog:
        assert catalog.num_samples == 25
        assert budget.used_bytes == on_disk(tmp_path) > 0
    assert budget.used_bytes == on_disk(tmp_path)
    with opened(tmp_path, "one", budget=budget), opened(tmp_path, "two", budget=budget):
        assert budget.used_bytes == on_disk(tmp_path)


def test_catalogs_that_nobody_uses_are_removed_and_counted_no_more(tmp_path: Path) -> None:
    budget = DiskBudget(10**7)
    with opened(tmp_path, "one", budget=budget):
        pass
    with opened(tmp_path, "two", budget=budget):
        remove_unused(tmp_path, budget=budget, keep=[folder_of(tmp_path, "two")])
        assert list(tmp_path.iterdir()) == [folder_of(tmp_path, "two")]
        assert budget.used_bytes == on_disk(tmp_path)


def test_a_catalog_that_somebody_holds_stays(tmp_path: Path) -> None:
    with opened(tmp_path, "one", budget=DiskBudget(10**7)) as catalog:
        remove_unused(tmp_path, budget=DiskBudget(10**7), keep=[])
        assert folder_of(tmp_path, "one").is_dir()
        assert catalog.annotation(3).conversations
    remove_unused(tmp_path, budget=DiskBudget(10**7), keep=[])
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_not_ours_stay(tmp_path: Path) -> None:
    budget = DiskBudget(10**7)
    with opened(tmp_path, "one", budget=budget):
        pass
    mine = folder_of(tmp_path, "one")
    (mine / "notes.txt").write_text("mine")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "clips.arrow").write_text("mine")
    (tmp_path / "x-0123456789abcdef").write_text("mine")
    elsewhere = tmp_path.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "clips.arrow").write_text("mine")
    (tmp_path / "link-0123456789abcdef").symlink_to(elsewhere)
    remove_unused(tmp_path, budget=budget, keep=[])
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]
    assert (tmp_path / "one" / "clips.arrow").exists()
    assert (tmp_path / "x-0123456789abcdef").exists()
    assert (elsewhere / "clips.arrow").exists()


def test_nothing_is_removed_where_there_is_no_folder(tmp_path: Path) -> None:
    remove_unused(tmp_path / "none", budget=DiskBudget(10), keep=[])


def test_leftovers_make_room_for_a_catalog_that_is_built(tmp_path: Path) -> None:
    with opened(tmp_path, "one", budget=DiskBudget(10**7)):
        size_bytes = on_disk(tmp_path)
    # No room for both: the old one goes before the new one's first byte that would not fit.
    budget = DiskBudget(size_bytes + 4096)
    with opened(tmp_path, "two", budget=budget):
        assert not folder_of(tmp_path, "one").exists()
        assert budget.used_bytes == on_disk(tmp_path)


def test_a_catalog_that_does_not_fit_leaves_nothing_behind(tmp_path: Path) -> None:
    budget = DiskBudget(8192)
    with pytest.raises(BudgetTooSmallError, match="catalog one-"), opened(tmp_path, "one", budget=budget):
        pass
    assert budget.used_bytes == 0
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_annotation_file_gives_back_what_was_reserved(tmp_path: Path) -> None:
    budget = DiskBudget(10**7)
    with pytest.raises(AnnotationError), opened(tmp_path, "one", "bad", budget=budget):
        pass
    assert budget.used_bytes == on_disk(tmp_path)


def test_a_catalog_of_another_commit_is_another_one(tmp_path: Path) -> None:
    newer = MadeRepository({"one/one_oe.json": ROWS[:3]}, commit="f" * 40)
    budget = DiskBudget(10**7)
    with opened(tmp_path, "one", budget=budget):
        pass
    with opened(tmp_path, "one", budget=budget, repository=newer) as catalog:
        assert catalog.num_samples == 3
        remove_unused(tmp_path, budget=budget, keep=[catalog_folder(newer.layout("one"), tmp_path)])
        assert len(list(tmp_path.iterdir())) == 1
        assert budget.used_bytes == on_disk(tmp_path)


def test_a_catalog_that_vanished_between_building_and_holding_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reelstream.prefetch import catalogs

    build, times = catalogs.build_subset, []  # type: ignore[attr-defined]

    def build_and_lose(*arguments: object, **options: object) -> None:
        build(*arguments, **options)  # type: ignore[arg-type]
        times.append(1)
        if len(times) == 1:
            remove_unused(tmp_path, budget=DiskBudget(10**7), keep=[])

    monkeypatch.setattr(catalogs, "build_subset", build_and_lose)
    budget = DiskBudget(10**7)
    with opened(tmp_path, "one", budget=budget) as catalog:
        assert catalog.num_samples == 20
        assert budget.used_bytes == on_disk(tmp_path)
    assert len(times) == 2
