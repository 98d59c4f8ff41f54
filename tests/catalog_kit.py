"""Repositories and annotation files made in memory, for the tests of the catalog."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reelstream.catalog import ANNOTATION_KINDS, Catalog, SubsetLayout, prepare_catalog, select_subsets
from reelstream.telemetry import Telemetry
from reelstream.types import AnnotationKind, Repository, RepositoryFile

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def record(video: Any = "source/a.mp4", question: str = "<image>\nWhat?", answer: str = "A cat.", **more: Any) -> Any:
    """One published row."""
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "7", "conversations": turns, "data_source": "made", "video": video} | more


def repository_file(path: str, data: bytes) -> RepositoryFile:
    """What a Hub says of `data`."""
    return RepositoryFile(path=path, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


class MadeRepository:
    """A repository whose annotations are given as rows, or as raw bytes; each subset has one archive."""

    def __init__(self, annotations: Mapping[str, Sequence[Any] | bytes], commit: str = COMMIT) -> None:
        self.data = {
            path: rows if isinstance(rows, bytes) else json.dumps(rows).encode() for path, rows in annotations.items()
        }
        self.opened: list[str] = []
        folders = {path.rpartition("/")[0] for path in self.data}
        archives = {f"{folder}/{folder}_videos_1.tar.gz": b"" for folder in folders}
        files = [repository_file(path, data) for path, data in {**self.data, **archives}.items()]
        self.repository = Repository(
            repo_id="made/repository", commit=commit, files=tuple(sorted(files, key=lambda file: file.path))
        )

    def open_file(self, file: RepositoryFile) -> Iterator[bytes]:
        """The bytes, in pieces that cut through everything."""
        self.opened.append(file.path)
        data = self.data[file.path]
        for start in range(0, len(data), 1000):
            yield data[start : start + 1000]

    def layouts(self, *names: str, kinds: Sequence[AnnotationKind] | None = None) -> tuple[SubsetLayout, ...]:
        """The layouts of the named subsets, with all kinds that they have unless told."""
        if kinds is None:
            paths = [path for path in self.data if path.rpartition("/")[0] in names]
            kinds = [kind for kind in ANNOTATION_KINDS if any(f"_{kind}" in path for path in paths)]
        return select_subsets(self.repository, names, kinds)

    def layout(self, name: str, kinds: Sequence[AnnotationKind] | None = None) -> SubsetLayout:
        """The layout of one subset."""
        return self.layouts(name, kinds=kinds)[0]

    def prepare(
        self,
        parent: Path,
        *names: str,
        kinds: Sequence[AnnotationKind] | None = None,
        reserve: Callable[[int], None] = lambda size_bytes: None,
        telemetry: Telemetry | None = None,
    ) -> Catalog:
        """The catalog of the named subsets."""
        return prepare_catalog(
            self.layouts(*names, kinds=kinds),
            parent,
            open_file=self.open_file,
            reserve=reserve,
            telemetry=telemetry,
        )
