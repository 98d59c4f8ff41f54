"""Names of places that keep checkpoints: a repository on the Hub, or a folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from reelstream.errors import ConfigError

_SCHEME = "hf://"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HINT = "write owner/name, hf://owner/name/folder, or a folder that begins with /, ./ or ~"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubPlace:
    """A folder of a model repository."""

    repo_id: str
    folder: str = ""
    """Path in the repository; empty for the top."""

    def __str__(self) -> str:
        return f"{_SCHEME}{self.repo_id}" + (f"/{self.folder}" if self.folder else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderPlace:
    """A folder of this machine, mounted from elsewhere as a rule."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


Place: TypeAlias = HubPlace | FolderPlace


def parse_place(text: str, setting: str) -> Place:
    """Return the place that `text` names.

    Args:
        text: `owner/name`, `hf://owner/name`, `hf://owner/name/folder`, or a path that begins with `/`, `./`, `../` or
            `~`: without that beginning nobody could tell a folder from a repository.
        setting: What to call it in errors.

    Raises:
        ConfigError: Where it names none.
    """
    if text.startswith(("/", "./", "../", "~")) or text in {".", ".."}:
        return FolderPlace(path=Path(text).expanduser())
    parts = text.removeprefix(_SCHEME).rstrip("/").split("/")
    if parts[:1] == ["models"] and text.startswith(_SCHEME):
        parts = parts[1:]
    if text.startswith(_SCHEME) and parts[:1] in (["datasets"], ["spaces"]):
        raise ConfigError(f"{setting} names no model repository: {text}", "checkpoints go to model repositories")
    repo_id, folders = "/".join(parts[:2]), parts[2:]
    is_plain = not {"", ".", ".."} & {*folders}
    if _REPOSITORY.fullmatch(repo_id) and is_plain and (not folders or text.startswith(_SCHEME)):
        return HubPlace(repo_id=repo_id, folder="/".join(folders))
    raise ConfigError(f"{setting} is no place for checkpoints: {text!r}", _HINT)
