"""Where a run computes, and in which arithmetic."""

from __future__ import annotations

import contextlib
import hashlib
import random
from dataclasses import dataclass

import numpy as np
import torch

from reelstream.errors import ConfigError
from reelstream.ranks import ALONE, RankPlace
from reelstream.train.options import Precision, TrainOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """A device and the arithmetic of forward and backward on it."""

    device: torch.device
    use_bfloat16: bool
    """Weights and optimizer are float32 either way."""

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Return the context in which the model is called."""
        if not self.use_bfloat16:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def choose_compute(options: TrainOptions, place: RankPlace = ALONE) -> Compute:
    """Return the device and arithmetic that the options name.

    Args:
        options: Which.
        place: Of this rank: of several on a node each takes a GPU of its own.

    Raises:
        ConfigError: Where this machine does not have the device, or the device not the arithmetic.
    """
    device = _choose_device(_own_device(options.device, place))
    return Compute(device=device, use_bfloat16=_choose_bfloat16(options.precision, device))


def _own_device(name: str, place: RankPlace) -> str:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if place.world_size == 1 or not name.startswith("cuda"):
        return name
    if name != "cuda":
        raise ConfigError(
            f"train.device is {name}, and each of {place.world_size} ranks needs a GPU of its own",
            "set train.device to auto or cuda; CUDA_VISIBLE_DEVICES chooses among the GPUs",
        )
    return f"cuda:{place.local_rank}"


def _choose_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        # The only way to know whether this machine has it.
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"train.device {name!r} cannot be used: {reason}", "set train.device to auto or cpu"
        ) from error
    return device


def _choose_bfloat16(precision: Precision, device: torch.device) -> bool:
    if precision == "float32":
        return False
    # CPUs have it too, most of them slowly; there it must be asked for.
    on_gpu = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bfloat16" and device.type == "cuda" and not on_gpu:
        raise ConfigError("train.precision is bfloat16, which this GPU does not have", "set train.precision to auto")
    return on_gpu or precision == "bfloat16"


def seed_of(*words: int) -> int:
    """Return a seed that numbers make together: of a run, a step and a rank, say; other numbers, another seed."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seed_everything(seed: int) -> None:
    """Seed the generators that a model may draw from: Python's, NumPy's and torch's."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the global generator is what foreign code draws from
    torch.manual_seed(seed)
