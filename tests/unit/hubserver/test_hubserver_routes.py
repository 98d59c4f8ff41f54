from __future__ import annotations

import pytest

from reelstream.hubserver.routes import Route, RouteKind, parse_cdn_path, parse_hub_path


@pytest.mark.parametrize(
    ("raw_path", "expected"),
    [
        ("/api/datasets/o/n", Route(kind=RouteKind.INFO, repo_id="o/n")),
        ("/api/datasets/o/n/revision/abc", Route(kind=RouteKind.INFO, repo_id="o/n", revision="abc")),
        (
            "/api/datasets/o/n/revision/refs%2Fpr%2F1",
            Route(kind=RouteKind.INFO, repo_id="o/n", revision="refs/pr/1"),
        ),
        ("/api/datasets/o/n/tree/main", Route(kind=RouteKind.TREE, repo_id="o/n")),
        ("/api/datasets/o/n/tree/main/a%2Fb", Route(kind=RouteKind.TREE, repo_id="o/n", path="a/b")),
        ("/api/datasets/o/n/paths-info/main", Route(kind=RouteKind.PATHS_INFO, repo_id="o/n")),
        (
            "/datasets/o/n/resolve/main/a/%20vid%C3%A9o%3F.mp4",
            Route(kind=RouteKind.RESOLVE, repo_id="o/n", path="a/ vidéo?.mp4"),
        ),
        (
            "/datasets/o/n/resolve/main/../../x",
            Route(kind=RouteKind.RESOLVE, repo_id="o/n", path="../../x"),
        ),
    ],
)
def test_the_paths_of_the_real_client_are_understood(raw_path: str, expected: Route) -> None:
    assert parse_hub_path(raw_path) == expected


@pytest.mark.parametrize(
    "raw_path", ["/", "/api/datasets/o", "/api/spaces/o/n", "/datasets/o/n/resolve/main", "/api/datasets/o/n/x", "/%FF"]
)
def test_other_paths_are_none(raw_path: str) -> None:
    assert parse_hub_path(raw_path) is None


def test_an_address_on_the_cdn_names_repository_and_path() -> None:
    assert parse_cdn_path("/o/n/a/%C3%A9") == ("o/n", "a/é")
    assert parse_cdn_path("/o/n") is None
