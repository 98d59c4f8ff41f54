"""Files of a model's repository, on the Hub or in a folder, with errors in our words."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from reelstream.errors import AccessDeniedError, ConfigError, HubError, NetworkError, NotFoundOnHubError
from reelstream.train.extra import quiet_transformers, transformers_module

SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
)
"""What a model's folder holds beside its weights, as far as the families here use it."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


class FileSource:
    """A model's repository, or a folder in its layout. A context manager, so that advice stays quiet meanwhile.

    Args:
        name: Repository of the Hub, or path of a folder.
        revision: Commit, tag or branch; None is the main branch.
    """

    def __init__(self, name: str, revision: str | None) -> None:
        self.name = name
        self.revision = revision
        self._quiet = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._quiet.enter_context(quiet_transformers())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._quiet.close()

    def path(self, file_name: str, *, required: bool = False) -> Path | None:
        """Return where a file lies on this machine, fetched if need be; None where the repository lacks it.

        Without a network, one that is not `required` and not on this machine is taken for one that does not exist:
        whoever loaded the model before may never have asked for it.
        """
        cached_file = transformers_module().utils.hub.cached_file
        with translated_errors(self):
            found = cached_file(
                self.name, file_name, revision=self.revision, _raise_exceptions_for_missing_entries=required
            )
        return None if found is None else Path(found)

    def json(self, file_name: str, *, required: bool = False) -> dict[str, Any] | None:
        """Return the object in a file; None where the repository lacks it.

        Raises:
            ConfigError: Where the file is not a JSON object.
        """
        path = self.path(file_name, required=required)
        if path is None:
            return None
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{file_name} of the model {self.name} is not JSON: {error}") from error
        self.refuse_unless(isinstance(value, dict), f"has a {file_name} that is no JSON object")
        return dict(value)

    def config(self) -> dict[str, Any]:
        """Return the object in `config.json`, which every model has."""
        value = self.json("config.json", required=True)
        if value is None:
            raise NotFoundOnHubError(
                f"the model {self.name} has no config.json", "check model.name: it must be a model of transformers"
            )
        return value

    def pin(self) -> str | None:
        """Stay at the commit that the revision names now, whatever is published meanwhile; return it, None of a folder.

        transformers does not tell it; the Hub client's cache has a folder for each.
        """
        path = self.path("config.json", required=True)
        if path is None or path.parent.parent.name != "snapshots" or not _COMMIT.fullmatch(path.parent.name):
            return None
        self.revision = path.parent.name
        return self.revision

    def read_small_files(self) -> dict[str, bytes]:
        """Return the contents of those of `SMALL_FILES` that there are."""
        paths = {name: self.path(name) for name in SMALL_FILES}
        return {name: path.read_bytes() for name, path in paths.items() if path is not None}

    def refuse_unless(self, condition: bool, predicate: str) -> None:
        """Raise `ConfigError` with a sentence about this model where `condition` does not hold."""
        if not condition:
            raise ConfigError(f"the model {self.name} {predicate}", "set model.name or model.family")


@contextlib.contextmanager
def translated_errors(source: FileSource) -> Iterator[None]:
    """Turn transformers' errors about a model into ours; others pass.

    transformers wraps the client's errors in `OSError` with advice in prose; what happened is told by the wrapped one.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, HubError | ConfigError):
            raise
        raise _translate(error, source) from error


def _translate(error: Exception, source: FileSource) -> Exception:
    causes = {type(cause).__name__ for cause in _chain(error)}
    named = f"the model {source.name}" + (f" at {source.revision}" if source.revision else "")
    if "GatedRepoError" in causes:
        return AccessDeniedError(
            f"{named} is gated, and this token has no access",
            f"ask for access at https://huggingface.co/{source.name} and set HF_TOKEN",
        )
    if "RevisionNotFoundError" in causes:
        return NotFoundOnHubError(f"{named}: the Hub has no such revision", "check model.revision")
    if causes & {"RepositoryNotFoundError", "HFValidationError"}:
        return NotFoundOnHubError(
            f"{named} is not on the Hub, or private", "check model.name; for a private model set HF_TOKEN"
        )
    network = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectTimeout", "ReadTimeout",
               "ConnectionError", "TimeoutError", "NetworkError", "ReadError"}  # fmt: skip
    if causes & network:
        return NetworkError(
            f"{named} is not on this machine, and the Hub cannot be reached",
            "check the network, or set model.name to a local folder, or leave it out for the tiny model",
        )
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ConfigError(f"{named} cannot be loaded: {first_line}", "check model.name and model.revision")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
