"""From the name of a place to a `Remote`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from reelstream.train.remote.folder import FolderRemote
from reelstream.train.remote.hub import HubRemote
from reelstream.train.remote.place import FolderPlace, parse_place
from reelstream.train.remote.remote import Remote


@contextlib.contextmanager
def opened_remote(text: str, *, setting: str, endpoint: str | None, private: bool = True) -> Iterator[Remote]:
    """Yield the place that `text` names; nothing is asked of it yet.

    Args:
        text: As `parse_place` takes it.
        setting: What to call it in errors.
        endpoint: The Hub; None takes `HF_ENDPOINT`, or else the public one.
        private: Whether a repository that has to be made is private.

    Raises:
        ConfigError: Where it names no place.
    """
    place = parse_place(text, setting)
    if isinstance(place, FolderPlace):
        yield FolderRemote(place.path)
        return
    with HubRemote(place, endpoint=endpoint, private=private) as remote:
        yield remote
