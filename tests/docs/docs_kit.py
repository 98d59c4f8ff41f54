"""The project's pages, taken apart: fenced blocks with what stands before them, links, headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

RUNNABLE = frozenset({"python", "console", "bash", "sh"})
"""Languages of blocks that run, unless excused."""

_FENCE = re.compile(r"^\s*(`{3,}|~{3,})\s*([\w-]*)\s*$")
_COMMENT = re.compile(r"^\s*<!--\s*(not run|file):\s*(\S.*?)\s*-->\s*$")
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_MARKUP = re.compile(r"[`*]|\[([^\]]*)\]\([^)]*\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    """Line of its first character, from 1."""
    language: str
    code: str
    excuse: str | None = None
    """Why it does not run, from `<!-- not run: ... -->` right before it."""
    file: str | None = None
    """The file that the page's reader puts it into, from `<!-- file: ... -->` right before it."""

    @property
    def place(self) -> str:
        """`docs/page.md:12`."""
        return f"{name_of(self.page)}:{self.line}"


def pages() -> list[Path]:
    """Return all pages of the project."""
    tops = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    return [*tops, *sorted((REPOSITORY / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    """Return a page's path in the repository."""
    return page.relative_to(REPOSITORY).as_posix()


def blocks_of(page: Path) -> list[Block]:
    """Return a page's fenced blocks, in order.

    Raises:
        ValueError: Where a fence is not closed.
    """
    blocks: list[Block] = []
    fence, language, start, before = "", "", 0, ""
    lines: list[str] = []
    for number, text in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        match = _FENCE.match(text)
        if fence:
            if match and match.group(1).startswith(fence) and not match.group(2):
                blocks.append(_block(page, start, language, lines, before))
                fence, before = "", ""
            else:
                lines.append(text)
        elif match:
            fence, language, start, lines = match.group(1), match.group(2), number + 1, []
        elif text.strip():
            before = text
    if fence:
        raise ValueError(f"{name_of(page)}:{start}: the fence is not closed")
    return blocks


def _block(page: Path, line: int, language: str, lines: list[str], before: str) -> Block:
    match = _COMMENT.match(before)
    kind, words = (match.group(1), match.group(2)) if match else (None, None)
    return Block(
        page=page,
        line=line,
        language=language,
        code="\n".join(lines) + "\n",
        excuse=words if kind == "not run" else None,
        file=words if kind == "file" else None,
    )


def prose_of(page: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines outside of fenced blocks."""
    fence = ""
    for number, text in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        match = _FENCE.match(text)
        if match and (not fence or match.group(1).startswith(fence)):
            fence = "" if fence else match.group(1)
        elif not fence:
            yield number, text


def links_of(page: Path) -> Iterator[tuple[int, str]]:
    """Yield line and target of each link."""
    for number, text in prose_of(page):
        for match in _LINK.finditer(text):
            yield number, match.group(1)


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as they are made on GitHub."""
    anchors: set[str] = set()
    for _, text in prose_of(page):
        match = _HEADING.match(text)
        if match:
            words = _MARKUP.sub(lambda found: found.group(1) or "", match.group(1)).lower()
            anchors.add(re.sub(r"[^\w\- ]", "", words).replace(" ", "-"))
    return anchors


def section_of(page: Path, heading: str) -> str:
    """Return the text from a heading to the next one of its level or above."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start = lines.index(heading)
    level = len(heading) - len(heading.lstrip("#"))
    upto = re.compile(rf"^#{{1,{level}}}\s")
    ends = (number for number in range(start + 1, len(lines)) if upto.match(lines[number]))
    return "\n".join(lines[start : next(ends, len(lines))])
