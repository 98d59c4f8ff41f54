from __future__ import annotations

import pytest

from reelstream.hubserver.large_files import LARGEST_DIRECT_BYTES, is_large


@pytest.mark.parametrize(
    "path", ["a_videos_1.tar.gz", "x/y.MP4", "a.tar.part-000", "t.parquet", "events.out.tfevents", "w.safetensors"]
)
def test_archives_and_media_are_large_whatever_their_size(path: str) -> None:
    assert is_large(path, 10)


@pytest.mark.parametrize("path", ["a.json", "README.md", ".gitattributes", "mp4", "a.mp4/list.txt", "a.gz.md5"])
def test_text_is_large_above_one_megabyte_only(path: str) -> None:
    assert not is_large(path, LARGEST_DIRECT_BYTES)
    assert is_large(path, LARGEST_DIRECT_BYTES + 1)
