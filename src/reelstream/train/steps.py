"""What is trained on in a batch: the answers' tokens, or what a user's own function says.

The contract of both is one function:

```python
def train_step(model, batch: dict[str, Tensor]) -> Tensor:
    ...
```

It returns a one-dimensional tensor of losses that the weights can be trained on: one for each token, or whatever else
it trains on, and none at all where the batch holds nothing of the kind. A step's loss is their mean over all batches of
all ranks that make the step: they are summed here and divided once, so that batches count by what they hold.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor

from reelstream.errors import ConfigError
from reelstream.train.loss import token_losses

_CONTRACT = "return a one-dimensional float tensor of losses: of each trained token, not their mean"


class TrainStep(Protocol):
    """The forward pass of a batch.

    It is called with the model on its device and in training mode, under autocast where the run's precision says so, as
    often as there are batches with a labelled token on any rank; backward and update are the loop's.
    """

    def __call__(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        """Return the losses, of shape (N,), N from 0 upwards; their mean over the step is minimised.

        Args:
            model: The conditional generation model; its parts may be called one by one.
            batch: As the family's `collate` returns it, `labels` included, on the model's device.
        """
        ...


def answer_token_losses(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return the cross entropy of each token of the answers: the step where the user names none."""
    return token_losses(model, batch).losses


class StepModule(torch.nn.Module):
    """A model whose forward pass is a train step: what DDP and FSDP2 wrap, since they work at calls of a module."""

    def __init__(self, model: Any, step: TrainStep) -> None:
        super().__init__()
        self.model = model
        self._step = step

    def forward(self, batch: dict[str, Tensor] | None) -> Tensor | None:
        """Return the losses of a batch, (N,); None for none, which calls nothing.

        Raises:
            ConfigError: Where the step gives something else.
        """
        if batch is None:
            return None
        losses = self._step(self.model, batch)
        if not isinstance(losses, Tensor) or losses.dim() != 1 or not losses.is_floating_point():
            raise ConfigError(f"train.step returned {_described(losses)}, not losses of shape (N,)", _CONTRACT)
        if not losses.requires_grad:
            raise ConfigError("train.step returned losses that no weight has a part in", "compute them from the model")
        return losses


def _described(value: object) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"a {value.dtype} tensor of shape {tuple(value.shape)}"


def load_step(reference: str | None, *, trusted: bool) -> TrainStep:
    """Return the step that `train.step` names.

    Args:
        reference: `package.module:function` or `path/to/file.py:function`; None is the answers' tokens.
        trusted: Whether the user has said that code may be imported.

    Raises:
        ConfigError: Where it was not said, or there is no such function, or importing it failed.
    """
    if reference is None:
        return answer_token_losses
    if not trusted:
        raise ConfigError(
            f"train.step names code to run, {reference}, and nobody said that it may",
            "look at it, then start with --trust-imports",
        )
    where, _, name = reference.rpartition(":")
    module = _import_file(Path(where)) if where.endswith(".py") else _import_module(where)
    step = getattr(module, name, None)
    if not callable(step):
        raise ConfigError(
            f"train.step names {name}, and {where} has no such function", "check the word behind the colon"
        )
    return step  # type: ignore[no-any-return]


def _import_module(name: str) -> ModuleType:
    # As python -m does: a module beside the configuration is found from the folder where the run is started.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise _not_imported(name, error) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"train.step names {path}, which is no file", "a path is taken from the folder of the start")
    spec = importlib.util.spec_from_file_location(f"reelstream_step_{path.stem}", path)
    assert spec is not None, "a file that ends in .py has a loader"
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickling look their module up there.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _not_imported(str(path), error) from error
    return module


def _not_imported(name: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"train.step names {name}, which cannot be imported: {type(error).__name__}: {error}",
        "see that python can import it by itself",
    )
