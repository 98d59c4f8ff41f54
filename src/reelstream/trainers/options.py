"""Which of a trainer's options work against a streamed dataset, and what to set instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reelstream.errors import ConfigError
from reelstream.units import count

_STOCK_COLLATORS = frozenset({"default_data_collator", "DataCollatorWithPadding", "DataCollatorForLanguageModeling"})


def refuse_wrong_options(trainer: Any, *, world_size: int | None = None) -> None:
    """Refuse a trainer's options that would lose, repeat or read samples again, all of them at once.

    Args:
        trainer: Of transformers or TRL.
        world_size: The dataset's ranks, once they are known.

    Raises:
        ConfigError: With what to set, and why, for each that is wrong.
    """
    wrong = [*_wrong_loading(trainer.args), *_wrong_steps(trainer), *_wrong_saving(trainer.args)]
    if world_size is not None:
        wrong += _wrong_ranks(trainer, world_size)
    if wrong:
        raise ConfigError(
            f"{count(len(wrong), 'option')} of {type(trainer).__name__} cannot be used with a streamed dataset",
            "\n".join(f"- {sentence}" for sentence in wrong),
        )


def _wrong_loading(args: Any) -> Iterator[str]:
    if args.dataloader_num_workers:
        yield (
            f"set dataloader_num_workers=0, not {args.dataloader_num_workers}: the dataset downloads and decodes in "
            "threads of its own, and worker processes would keep the place of what they fetched, not of what was used"
        )
    if args.accelerator_config.split_batches:
        yield (
            "leave split_batches out of accelerator_config: each rank fetches its own samples, and "
            "per_device_train_batch_size is what each of them takes"
        )
    if args.train_sampling_strategy in ("group_by_length", "batch_rebalance"):
        yield (
            f'leave train_sampling_strategy="{args.train_sampling_strategy}" out: the order is the dataset\'s, by its '
            "seed"
        )


def _wrong_steps(trainer: Any) -> Iterator[str]:
    args = trainer.args
    if args.auto_find_batch_size:
        yield (
            "set auto_find_batch_size=False: a step that ran out of memory has taken its samples already, and a resume "
            "needs the same batch size"
        )
    if args.n_gpu > 1:
        yield (
            f"start with torchrun or accelerate launch, one process a GPU: in one process {args.n_gpu} GPUs would "
            "split batches of flat patches at the wrong places"
        )
    collator = trainer.data_collator
    name = getattr(collator, "__name__", type(collator).__name__)
    if name in _STOCK_COLLATORS:
        yield (
            f"give data_collator=collate(family) or one of your own, not {name}: clips differ in frames and size, and "
            "a sample holds text and a position, which are no tensors"
        )


def _wrong_saving(args: Any) -> Iterator[str]:
    saves = str(getattr(args.save_strategy, "value", args.save_strategy)) != "no"
    if saves and (args.save_total_limit is None or args.save_total_limit < 1):
        yield (
            "set save_total_limit to how many checkpoints stay, such as 1: they are counted into the dataset's "
            "disk_budget, and without a limit no budget holds"
        )


def _wrong_ranks(trainer: Any, world_size: int) -> Iterator[str]:
    sharing = trainer.get_tp_size() * trainer.get_cp_size() * trainer.get_sp_size()
    expected = trainer.args.world_size // sharing
    if world_size == expected:
        return
    if sharing > 1:
        yield (
            f"give the dataset rank= and world_size={expected}: {sharing} ranks share a model's layers or sequences "
            f"and must see the same samples, but the dataset has {count(world_size, 'rank')}"
        )
    else:
        yield (
            f"leave rank and world_size of the dataset out, or give it those of the trainer, which has "
            f"{count(expected, 'rank')}: the dataset has {count(world_size, 'rank')}"
        )
