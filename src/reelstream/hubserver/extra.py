"""The optional dependency of this package."""

from __future__ import annotations

import importlib.util

from reelstream.errors import MissingExtraError


def require_aiohttp() -> None:
    """Raise `MissingExtraError` where aiohttp is not installed; does not import it."""
    if importlib.util.find_spec("aiohttp") is None:
        raise MissingExtraError(
            "the local hub needs aiohttp, which is not installed", "pip install 'reelstream[serve]'"
        )
