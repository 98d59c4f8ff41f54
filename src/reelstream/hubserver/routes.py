"""What a URL of the Hub names, read from the path as it came over the wire.

The path is split before it is decoded: a revision such as `refs/pr/1` and the folder of a tree come as one piece with
`%2F` in it, and a router that decodes first cannot tell them apart.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from urllib.parse import unquote

MODELS_FOLDER = ".models"
"""Folder of the root that holds the models, and first part of their ids in this package: no owner's name has a dot
there, so that a model and a dataset may have the same name."""


class RouteKind(enum.Enum):
    """The endpoints that are served."""

    INFO = "info"
    TREE = "tree"
    PATHS_INFO = "paths-info"
    REFS = "refs"
    AUTH_CHECK = "auth-check"
    RESOLVE = "resolve"
    PREUPLOAD = "preupload"
    LFS_BATCH = "lfs-batch"
    LFS_VERIFY = "lfs-verify"
    COMMIT = "commit"


QUESTIONS = frozenset({RouteKind.PATHS_INFO})
"""What is asked by POST, and changes nothing."""

CHANGES = frozenset({RouteKind.PREUPLOAD, RouteKind.LFS_BATCH, RouteKind.LFS_VERIFY, RouteKind.COMMIT})
"""What leads to a commit; by POST, on a writable hub only."""

CREATE_PATH = "/api/repos/create"
_KINDS = {"datasets": "", "models": f"{MODELS_FOLDER}/"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One endpoint of one repository."""

    kind: RouteKind
    repo_id: str
    """`org/name`, of a model `.models/org/name`; not checked."""
    revision: str = "main"
    path: str = ""
    """Path in the repository, decoded; not checked."""


def parse_hub_path(raw_path: str) -> Route | None:
    """Return what a path on the hub's port names; None where that is no endpoint."""
    match decode_segments(raw_path):
        case ["api", kind, org, name, *rest] if kind in _KINDS:
            return _parse_api_path(f"{_KINDS[kind]}{org}/{name}", rest)
        case ["datasets", org, name, *rest]:
            return _parse_file_path(org, name, rest, prefix="")
        case [org, name, *rest] if org not in {"api", "datasets"}:
            return _parse_file_path(org, name, rest, prefix=f"{MODELS_FOLDER}/")
    return None


def _parse_file_path(org: str, name: str, rest: list[str], *, prefix: str) -> Route | None:
    git_id = f"{prefix}{org}/{name.removesuffix('.git')}"
    match rest:
        case ["resolve", revision, *path] if path:
            return Route(
                kind=RouteKind.RESOLVE, repo_id=f"{prefix}{org}/{name}", revision=revision, path="/".join(path)
            )
        case ["info", "lfs", "objects", "batch"] if name.endswith(".git"):
            return Route(kind=RouteKind.LFS_BATCH, repo_id=git_id)
        case ["info", "lfs", "objects", "verify"] if name.endswith(".git"):
            return Route(kind=RouteKind.LFS_VERIFY, repo_id=git_id)
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
        case ["preupload", revision]:
            kind = RouteKind.PREUPLOAD
        case ["commit", revision]:
            kind = RouteKind.COMMIT
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
        case [folder, org, name, *path] if folder == MODELS_FOLDER and path:
            return f"{folder}/{org}/{name}", "/".join(path)
        case [org, name, *path] if path:
            return f"{org}/{name}", "/".join(path)
    return None


def decode_segments(raw_path: str) -> list[str]:
    """Return the decoded pieces between the slashes; nothing where they are not UTF-8."""
    try:
        return [unquote(segment, errors="strict") for segment in raw_path.removeprefix("/").split("/")]
    except UnicodeDecodeError:
        return []
