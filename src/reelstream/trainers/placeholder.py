"""What stands for a streamed dataset where a trainer insists on a dataset of the library `datasets`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reelstream.data import StreamingVideoDataset
from reelstream.errors import ConfigError, MissingExtraError


def for_trl(dataset: StreamingVideoDataset) -> Any:
    """Return what TRL's trainers take as `train_dataset`, until `attach(trainer, dataset)` puts the stream there.

    TRL refuses datasets of torch, and looks at a first sample to learn what kind of dataset it is. Nothing is opened or
    fetched for that: it is shown the shape of a sample.

    Args:
        dataset: The stream.

    Raises:
        MissingExtraError: Where `datasets` is not installed.
    """
    try:
        import datasets  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise MissingExtraError(
            "TRL needs datasets, which is not installed", "pip install 'reelstream[trainers]'"
        ) from error

    class Placeholder(datasets.IterableDataset):  # type: ignore[misc] # untyped
        """Shows one sample's shape, and refuses to be trained on."""

        stream = dataset

        def __iter__(self) -> Iterator[dict[str, Any]]:
            yield {"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]}
            raise ConfigError(
                "the stream is not attached to this trainer",
                "call attach(trainer, dataset) between the trainer's construction and trainer.train()",
            )

        def __len__(self) -> int:
            # Only that there is one; how long an epoch is, the trainer hears once the stream is attached.
            return 1

    empty = datasets.IterableDataset.from_generator(_nothing)
    return Placeholder(empty._ex_iterable, info=empty.info)  # noqa: SLF001 - the constructor asks for it


def _nothing() -> Iterator[dict[str, Any]]:
    yield from ()


def stands_for(candidate: object, dataset: StreamingVideoDataset) -> bool:
    """Return whether an object is the dataset, or what `for_trl` returned for it."""
    return candidate is dataset or getattr(candidate, "stream", None) is dataset
