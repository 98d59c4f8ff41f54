from __future__ import annotations

from pathlib import Path

import pytest

from reelstream.errors import ConfigError
from reelstream.train.remote.options import RemoteOptions
from reelstream.train.remote.place import FolderPlace, HubPlace, parse_place


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("me/run", HubPlace(repo_id="me/run")),
        ("hf://me/run", HubPlace(repo_id="me/run")),
        ("hf://models/me/run", HubPlace(repo_id="me/run")),
        ("hf://me/run/a/b/", HubPlace(repo_id="me/run", folder="a/b")),
        ("/mnt/drive", FolderPlace(path=Path("/mnt/drive"))),
        ("./runs/backup", FolderPlace(path=Path("runs/backup"))),
    ],
)
def test_a_place_is_a_repository_or_a_path(text: str, place: HubPlace | FolderPlace) -> None:
    assert parse_place(text, "remote.push") == place


def test_a_home_is_found() -> None:
    assert parse_place("~/x", "remote.push") == FolderPlace(path=Path.home() / "x")


@pytest.mark.parametrize(
    "text",
    ["", "run", "a/b/c", "hf://me", "hf://datasets/me/run", "hf://me/run/../other", "me/../x", "s3://a/b", "a b/c"],
)
def test_what_could_be_either_or_neither_is_refused_with_the_setting(text: str) -> None:
    with pytest.raises(ConfigError, match=r"remote\.push"):
        RemoteOptions(push=text)


def test_a_resume_looks_where_it_is_told_or_where_it_pushes() -> None:
    assert RemoteOptions().source is None
    assert RemoteOptions(push="me/a").source == "me/a"
    assert RemoteOptions(push="me/a", pull="me/b").source == "me/b"


def test_keeping_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"remote\.keep"):
        RemoteOptions(keep=0)
