"""Whether a trainer divides a dataset's samples among the ranks, though each rank fetches its own already."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from reelstream.errors import ConfigError

# Where accelerate asks a dataset for samples on behalf of several ranks, and how many these are. transformers' Trainer
# and TRL's go the same way.
_DIVIDERS: dict[str, Callable[[Any], int]] = {
    "IterableDatasetShard.__iter__": lambda shard: int(shard.num_processes),
    "DataLoaderDispatcher._fetch_batches": lambda dispatcher: int(dispatcher.state.num_processes),
}
_MODULE = "accelerate.data_loader"


def refuse_second_division() -> None:
    """Refuse to be iterated for others to divide what comes, over several ranks.

    Called by the dataset's iterator when its first sample is asked for. accelerate wraps a dataset without telling it,
    so that who asks, which the stack says, is the only thing to know it by. This has to come before the dataset is
    opened: where one rank reads for all, the others would never come to open theirs.

    Raises:
        ConfigError: Where accelerate would divide the samples among several ranks.
    """
    if _MODULE not in sys.modules:
        return
    frame = sys._getframe(1)  # noqa: SLF001 - what the language has for it
    while (caller := frame.f_back) is not None:
        frame = caller
        name = frame.f_code.co_qualname
        if name in _DIVIDERS and frame.f_globals.get("__name__") == _MODULE:
            num_ranks = _DIVIDERS[name](frame.f_locals["self"])
            if num_ranks > 1:
                raise ConfigError(
                    f"accelerate ({name.partition('.')[0]}) would divide this dataset's samples among {num_ranks} "
                    "ranks, but each of them fetches its own already: samples would be lost",
                    "give accelerator.prepare a reelstream.trainers.StreamLoader in the place of the DataLoader; with "
                    "Trainer or SFTTrainer, call reelstream.trainers.attach(trainer, dataset) before trainer.train()",
                )
            return
