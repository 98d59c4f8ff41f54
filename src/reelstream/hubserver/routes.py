"""What a URL of the Hub names, read from the path as it came over the wire.

The path is split before it is decoded: a revision such as `refs/pr/1` and the folder of a tree come as one piece with
`%2F` in it, and a router that decodes first cannot tell them apart.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from urllib.parse import unquote


class RouteKind(enum.Enum):
    """The endpoints that are served."""

    INFO = "info"
    TREE = "tree"
    PATHS_INFO = "paths-info"
    REFS = "refs"
    AUTH_CHECK = "auth-check"
    RESOLVE = "resolve"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One endpoint of one repository."""

    kind: RouteKind
    repo_id: str
    """`org/name`; not checked."""
    revision: str = "main"
    path: str = ""
    """Path in the repository, decoded; not checked."""


def parse_hub_path(raw_path: str) -> Route | None:
    """Return what a path on the hub's port names; None where that is no endpoint."""
    match decode_segments(raw_path):
        case ["datasets", org, name, "resolve", revision, *path] if path:
            return Route(kind=RouteKind.RESOLVE, repo_id=f"{org}/{name}", revision=revision, path="/".join(path))
        case ["api", "datasets", org, name, *rest]:
            return _parse_api_path(f"{org}/{name}", rest)
    return None


def _parse_api_path(repo_id: str, rest: list[str]) -> Route | None:
    revision, path = "main", ""
    match rest:
        case []:
            kind = RouteKind.INFO
        case ["revision", revision]:
            kind = RouteKind.INFO
        case ["tree", revision, *folders]:
            kind, path = RouteKind.TREE, "/".join(folders)
        case ["paths-info", revision]:
            kind = RouteKind.PATHS_INFO
        case ["refs"]:
            kind = RouteKind.REFS
        case ["auth-check"]:
            kind = RouteKind.AUTH_CHECK
        case _:
            return None
    return Route(kind=kind, repo_id=repo_id, revision=revision, path=path)


def parse_cdn_path(raw_path: str) -> tuple[str, str] | None:
    """Return repository and path that a path on the CDN's port names; None where it names none."""
    match decode_segments(raw_path):
        case [org, name, *path] if path:
            return f"{org}/{name}", "/".join(path)
    return None


def decode_segments(raw_path: str) -> list[str]:
    """Return the decoded pieces between the slashes; nothing where they are not UTF-8."""
    try:
        return [unquote(segment, errors="strict") for segment in raw_path.removeprefix("/").split("/")]
    except UnicodeDecodeError:
        return []
