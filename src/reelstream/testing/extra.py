"""The optional dependencies of this package."""

from __future__ import annotations

import importlib.util

from reelstream.errors import MissingExtraError


def require_testing_extra(module: str, purpose: str) -> None:
    """Raise `MissingExtraError` where a module is not installed; imports nothing.

    Args:
        module: `pytest` or `hypothesis`.
        purpose: What needs it, in the plural, as the beginning of a sentence.
    """
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(f"{purpose} need {module}, which is not installed", "pip install 'reelstream[testing]'")
