from __future__ import annotations

import pytest

from reelstream.catalog.paths import folder_suffixes, normalise_path, path_hash


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("a/b.mp4", "a/b.mp4"),
        ("./a/b.mp4", "a/b.mp4"),
        ("a//b.mp4", "a/b.mp4"),
        ("a/./b", "a/b"),
        (".\\a\\b.mp4", "a/b.mp4"),
        (".hidden/__v.mp4", ".hidden/__v.mp4"),
        ("a..b/c...mp4", "a..b/c...mp4"),
        ("vidéo/日本 1.mp4", "vidéo/日本 1.mp4"),
        ("a/b/", "a/b"),
        ("talk 12:30.mp4", "talk 12:30.mp4"),
    ],
)
def test_paths_take_one_form(written: str, normal: str) -> None:
    assert normalise_path(written) == normal


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("/etc/passwd", "absolute"),
        ("\\\\host\\share\\a.mp4", "absolute"),
        ("C:\\videos\\a.mp4", "absolute"),
        ("https://example.org/a.mp4", "absolute"),
        ("../a.mp4", "points outside"),
        ("a/../b.mp4", "points outside"),
        ("a\\..\\..\\b.mp4", "points outside"),
        ("./", "empty"),
        ("a\x00b.mp4", "control character"),
        ("a\nb.mp4", "control character"),
    ],
)
def test_paths_that_lead_elsewhere_are_refused(written: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        normalise_path(written)


def test_the_hash_is_part_of_the_format() -> None:
    assert path_hash("source/a.mp4") == 0xFF6C94385489AC82
    # A name in an archive that is no Unicode.
    assert path_hash("a\udcff.mp4") != path_hash("a.mp4")


def test_suffixes_keep_a_folder() -> None:
    assert list(folder_suffixes("a/b/c/d.mp4")) == ["b/c/d.mp4", "c/d.mp4"]
    assert list(folder_suffixes("c/d.mp4")) == []
    assert list(folder_suffixes("d.mp4")) == []
