"""What was measured, as JSON and as Markdown tables; and the tables in the page that shows them."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from archive_parts.clips import WHAT_THEY_ARE
from archive_parts.entries import EntryResult
from archive_parts.passes import PassResult
from archive_parts.writers import Writer
from reelstream.archive.cuts.entry import ENTRY_RULE_VERSION
from reelstream.archive.seek.inflate import block_inflation

BEGIN = "<!-- written by benchmarks/archive.py: begin -->"
END = "<!-- written by benchmarks/archive.py: end -->"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was measured of one archive."""

    clip_mb: float
    writer: str
    archive_bytes: int
    num_members: int
    passed: PassResult
    entered: EntryResult

    @property
    def group(self) -> str:
        return f"{self.clip_mb:g} MB"


def as_json(results: Sequence[Result], writers: Sequence[Writer], missing: Sequence[str]) -> str:
    """Return everything that was measured, and on what."""
    record = {
        "machine": _machine(),
        "entry_rule": ENTRY_RULE_VERSION,
        "clips": WHAT_THEY_ARE,
        "writers": {writer.name: writer.version for writer in writers},
        "missing_writers": list(missing),
        "results": [dataclasses.asdict(result) for result in results],
    }
    return json.dumps(record, indent=1) + "\n"


def _machine() -> dict[str, str | int | None]:
    library = block_inflation().library
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "index_zlib": library.name if library else None,
    }


def as_markdown(results: Sequence[Result], missing: Sequence[str]) -> str:
    """Return the tables with a line on what was measured."""
    machine = _machine()
    measured_on = (
        f"{machine['machine']}, {machine['cores']} cores that other work shared, Python {machine['python']}, "
        f"zlib {machine['zlib']}, the index by {machine['index_zlib']}; CPU time. {WHAT_THEY_ARE} "
        f"Not installed, so not measured: {', '.join(missing) or 'none'}."
    )
    about_passes = (
        "Passes: MB/s of compressed input, nothing done with the members. *Same zlib* is a pass without an index by "
        "the zlib that learns it. *Range*: bytes fetched for one member over its own compressed bytes."
    )
    about_entries = (
        "Entries at random bytes. *Next block* is the distance to where a block begins at all. The last two columns "
        "are what both readers fetch at a border."
    )
    parts = [
        measured_on,
        about_passes,
        _table([_pass_cells(one) for one in results]),
        about_entries,
        _table([_entry_cells(one) for one in results]),
    ]
    return "\n\n".join(parts)


def _pass_cells(result: Result) -> dict[str, str]:
    one = result.passed
    return {
        "clips": result.group,
        "writer": result.writer,
        "without": f"{one.without_mb_s:.0f}",
        "same zlib": f"{one.same_zlib_mb_s:.0f}",
        "with": f"{one.with_mb_s:.0f}",
        "of without": f"{one.ratio:.2f}",
        "of same zlib": f"{one.same_zlib_ratio:.2f}",
        "index": f"{100 * one.index_bytes / result.archive_bytes:.4f} %",
        "a member": f"{one.index_bytes / result.num_members:.0f} B",
        "range, mean (max)": f"{one.range_ratio_mean:.3f} ({one.range_ratio_max:.3f})",
        "requests": f"{one.requests_mean:.2f}",
        "as GNU tar's": f"NOT {one.num_wrong}" if one.num_wrong else f"all {result.num_members}",
    }


def _entry_cells(result: Result) -> dict[str, str]:
    one = result.entered
    return {
        "clips": result.group,
        "writer": result.writer,
        "entered": f"{one.entered}/{one.tried}",
        "right": f"{one.right}/{one.entered}",
        "searched kB, mean (max)": f"{one.searched_mean_bytes / 1000:.1f} ({one.searched_max_bytes / 1000:.1f})",
        "next block kB, mean (max)": f"{one.to_block_mean_bytes / 1000:.1f} ({one.to_block_max_bytes / 1000:.1f})",
        "CPU ms (max)": f"{1000 * one.cpu_mean_s:.0f} ({1000 * one.cpu_max_s:.0f})",
        "read kB": f"{one.read_mean_bytes / 1000:.0f}",
        "cuts": f"{one.num_cuts}, {'right' if one.cuts_right else 'WRONG'}",
        "a border, kB": f"{one.border_mean_bytes / 1000:.0f}",
        "in clips": f"{one.border_mean_bytes * result.num_members / result.archive_bytes:.1f}",
    }


def _table(rows: Sequence[dict[str, str]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def put_into(page: Path, markdown: str) -> None:
    """Replace what stands between the two marks of a page.

    Raises:
        ValueError: Where the page lacks the marks.
    """
    text = page.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no two marks to write between: {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{markdown}\n\n{END}{after}", "utf-8")
