"""What the pages show does what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.docs_kit import RUNNABLE, Block, blocks_of, name_of, pages
from docs.docs_runner import commands_of, run_blocks
from reelstream.config import load
from reelstream.train.run_options import RunOptions


def _runs(block: Block) -> bool:
    return block.language in RUNNABLE and block.excuse is None


# Marks what a program puts into a page.
_WRITTEN_BY = re.compile(r"<!-- written by \S+: (begin|end) -->")

PAGES_THAT_RUN = [page for page in pages() if any(map(_runs, blocks_of(page)))]


@pytest.mark.parametrize("page", PAGES_THAT_RUN, ids=name_of)
def test_blocks_of_a_page_run_in_order(page: Path, reader_folder: Path) -> None:
    run_blocks(blocks_of(page))


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_comments_before_blocks_say_something_that_is_heeded(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    comments = [line for line in lines if line.lstrip().startswith("<!--") and not _WRITTEN_BY.match(line)]
    heeded = [block for block in blocks_of(page) if block.excuse or block.file]
    assert len(comments) == len(heeded), "a comment is misspelt, or no block follows it"
    for block in heeded:
        assert block.excuse is None or block.language in RUNNABLE, f"{block.place} would not run anyway"


def _configurations() -> list[Block]:
    blocks = [block for page in pages() for block in blocks_of(page) if block.language in {"yaml", "yml"}]
    return [block for block in blocks if "repo_id:" in block.code]


@pytest.mark.parametrize("block", _configurations(), ids=lambda block: block.place)
def test_configurations_on_pages_are_accepted(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "page.yaml"
    path.write_text(block.code, encoding="utf-8")
    load(path, [], RunOptions)


def test_commands_are_taken_from_blocks_as_a_reader_types_them() -> None:
    def commands(language: str, code: str) -> list[str]:
        return commands_of(Block(page=Path("page.md"), line=1, language=language, code=code))

    assert commands("console", "$ one \\\n    two\nsaid this\n$ three\n") == ["one two", "three"]
    assert commands("bash", "# about\none\n\ntwo | three\n") == ["one", "two | three"]


def test_a_failing_block_is_found_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("Text.\n\n```python\nvalue = 1\nassert value == 2\n```\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError) as caught:
        run_blocks(blocks_of(page))
    assert caught.traceback[-1].lineno + 1 == 5
