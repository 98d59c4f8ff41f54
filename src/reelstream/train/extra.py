"""The optional dependencies of this package, and quiet around them."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from typing import Any

from reelstream.errors import MissingExtraError

_NEEDED = ("transformers", "tokenizers", "safetensors")


def require_train_extra(*modules: str) -> None:
    """Raise `MissingExtraError` where a module that training needs is not installed; imports nothing.

    Args:
        *modules: Names to look for; those of every training run, where none is given.
    """
    for module in modules or _NEEDED:
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(
                f"training needs {module}, which is not installed", "pip install 'reelstream[train]'"
            )


def transformers_module() -> Any:
    """Return the module transformers, imported at the first call: seconds that other commands should not pay.

    Raises:
        MissingExtraError: Where it is not installed.
    """
    require_train_extra("transformers")
    import transformers  # noqa: PLC0415 - an optional dependency

    return transformers


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' advice and progress bars off the terminal as long as the block runs.

    Its warnings speak of options of its own classes, which our users never see; its errors pass.
    """
    foreign_logging = transformers_module().utils.logging
    verbosity = foreign_logging.get_verbosity()
    bars = foreign_logging.is_progress_bar_enabled()
    foreign_logging.set_verbosity(logging.ERROR)
    foreign_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        foreign_logging.set_verbosity(verbosity)
        if bars:
            foreign_logging.enable_progress_bar()
