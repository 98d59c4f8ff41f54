from __future__ import annotations

import pytest

from reelstream.catalog import select_media
from reelstream.errors import ConfigError, NotFoundOnHubError
from reelstream.types import Repository, RepositoryFile


def _repository(*paths: str) -> Repository:
    files = tuple(RepositoryFile(path=path, size_bytes=10, sha256=None) for path in sorted(paths))
    return Repository(repo_id="me/videos", commit="0" * 40, files=files)


MIXED = _repository(
    "README.md",
    "all.tar",
    "shorts/shorts_cap.json",
    "shorts/a.tar.gz",
    "shorts/more/b.mp4",
    "plain/c.zip",
    "loose/d.mp4",
    "texts/texts_cap.json",
)


def test_all_archives_are_media_and_the_videos_of_subsets() -> None:
    assert [(archive.subset, archive.path) for archive in select_media(MIXED)] == [
        ("", "all.tar"),
        ("plain", "plain/c.zip"),
        ("shorts", "shorts/a.tar.gz"),
        ("shorts", "shorts/more/b.mp4"),
    ]


def test_a_folder_needs_no_annotations() -> None:
    assert [archive.path for archive in select_media(MIXED, ["plain", "plain"])] == ["plain/c.zip"]


def test_a_folder_without_media_and_one_that_is_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match="texts"):
        select_media(MIXED, ["texts"])
    with pytest.raises(NotFoundOnHubError, match="no subset 'short'"):
        select_media(MIXED, ["short"])
    with pytest.raises(ConfigError, match="no archive and no video"):
        select_media(_repository("README.md", "a/a_cap.json"))
