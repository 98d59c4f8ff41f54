"""Pages lead to each other, and name nothing of the machine they were written on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.docs_kit import REPOSITORY, anchors_of, links_of, name_of, pages

_MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|home|root|tmp|Users|mnt|private)/")
_TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for line, target in links_of(page):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        inside = file.is_relative_to(REPOSITORY)
        if not (inside and file.exists()) or (anchor and anchor not in anchors_of(file)):
            broken.append(f"line {line}: {target}")
    assert not broken


@pytest.mark.parametrize("page", [*pages(), *sorted((REPOSITORY / "configs").glob("*.yaml"))], ids=name_of)
def test_pages_name_no_path_of_a_machine(page: Path) -> None:
    assert not _MACHINE_PATH.findall(page.read_text(encoding="utf-8"))


def test_every_page_is_reached_from_the_index() -> None:
    index = REPOSITORY / "docs" / "index.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for _, target in links_of(index)}
    assert set((REPOSITORY / "docs").rglob("*.md")) - {index} <= linked


def test_the_readme_leads_to_the_index() -> None:
    assert "docs/index.md" in {target for _, target in links_of(REPOSITORY / "README.md")}


def test_make_targets_that_pages_name_exist() -> None:
    targets = set(_TARGET.findall((REPOSITORY / "Makefile").read_text(encoding="utf-8")))
    named = {
        target
        for page in pages()
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {"demo", "test"} <= named <= targets
