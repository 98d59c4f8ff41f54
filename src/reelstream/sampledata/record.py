"""What a sample dataset says about itself: `sample.json` in its folder.

```
{"format": 1, "options": {...}, "files": {path: size in bytes}, "summary": {...}}
```
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelstream.errors import DiskError
from reelstream.sampledata.flaws import Flaw, FlawKind
from reelstream.sampledata.options import SampleOptions
from reelstream.types import AnnotationKind

RECORD_NAME = "sample.json"
# Raised whenever the same options come to mean other clips or other text.
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetSummary:
    """One subset of a sample dataset."""

    name: str
    heldout: bool
    num_clips: int
    """Clips that rows refer to."""
    num_rows: dict[AnnotationKind, int]
    archives: tuple[str, ...]
    """Paths in the repository; where clips are files of their own, theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSummary:
    """A sample dataset that lies on disk."""

    folder: Path
    """The repository's folder: `<where it was asked for>/<organisation>/<name>`."""
    repo_id: str
    subsets: tuple[SubsetSummary, ...]
    size_bytes: int
    """Of all archives, compressed."""
    media_bytes: int
    """Of all clips in them."""
    flaws: tuple[Flaw, ...]
    """Empty unless flaws were asked for."""
    reused: bool
    """Whether it was there already."""

    @property
    def num_clips(self) -> int:
        """Clips that rows refer to, held-out ones among them."""
        return sum(subset.num_clips for subset in self.subsets)

    @property
    def num_rows(self) -> int:
        """Rows of all kinds and subsets."""
        return sum(sum(subset.num_rows.values()) for subset in self.subsets)

    @property
    def num_archives(self) -> int:
        """Archives of all subsets."""
        return sum(len(subset.archives) for subset in self.subsets)


def write_record(folder: Path, options: SampleOptions, summary: SampleSummary) -> None:
    """Write the record of the finished dataset in `folder`."""
    files = {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
    }
    values = dataclasses.asdict(summary)
    for known in ("folder", "reused", "repo_id"):
        del values[known]
    record = {"format": _FORMAT, "options": options.as_record(), "files": files, "summary": values}
    (folder / RECORD_NAME).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def find_existing(folder: Path, options: SampleOptions) -> SampleSummary | None:
    """Return the sample of these options in `folder`; `None` where the folder is empty or does not exist.

    Raises:
        DiskError: Where anything else is there: it is left as it is.
    """
    try:
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return None
        record = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
        known = record["format"], record["options"], record["files"], record["summary"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DiskError(
            f"{folder} holds something that is not a sample dataset.",
            "Choose another folder or repository id, or move away what is there.",
        ) from error
    found_format, found_options, files, values = known
    _refuse_other(folder, found_format, found_options, options)
    _refuse_damaged(folder, files)
    return _summary(folder, options, values)


def _refuse_other(folder: Path, found_format: int, found: dict[str, Any], options: SampleOptions) -> None:
    asked = options.as_record()
    # What was made before there was a choice.
    found = {"packing": "tar.gz"} | found
    differing = [
        f"{name} {found.get(name)} there, {asked[name]} asked for" for name in asked if found.get(name) != asked[name]
    ]
    if found_format != _FORMAT:
        differing.append(f"format {found_format} there, {_FORMAT} made now")
    if differing:
        raise DiskError(
            f"{folder} holds another sample dataset: {'; '.join(differing)}.",
            "Choose another folder or repository id, or delete that one.",
        )


def _refuse_damaged(folder: Path, files: dict[str, int]) -> None:
    for name, size_bytes in files.items():
        path = folder / name
        found_bytes = path.stat().st_size if path.is_file() else None
        if found_bytes != size_bytes:
            state = "is missing" if found_bytes is None else f"has {found_bytes} bytes instead of {size_bytes}"
            raise DiskError(
                f"The sample dataset in {folder} was changed: {name} {state}.", "Delete it to make it anew."
            )


def _summary(folder: Path, options: SampleOptions, values: dict[str, Any]) -> SampleSummary:
    subsets = tuple(SubsetSummary(**(subset | {"archives": tuple(subset["archives"])})) for subset in values["subsets"])
    flaws = tuple(Flaw(**(flaw | {"kind": FlawKind(flaw["kind"])})) for flaw in values["flaws"])
    return SampleSummary(
        folder=folder,
        repo_id=options.repo_id,
        subsets=subsets,
        size_bytes=values["size_bytes"],
        media_bytes=values["media_bytes"],
        flaws=flaws,
        reused=True,
    )
