"""Transformers' Trainer on a stream: one line more than for a local dataset.

python examples/hf_trainer.py lmms-lab/LLaVA-Video-178K 0_30_s_academic_v0_1
torchrun --nproc-per-node 2 examples/hf_trainer.py lmms-lab/LLaVA-Video-178K 0_30_s_academic_v0_1 --resume
python examples/hf_trainer.py --demo --ranks 2
"""

from __future__ import annotations

import os
from typing import Any

from demo import WithNames, arguments, tell
from transformers import Trainer, TrainingArguments

from reelstream.data import StreamingVideoDataset
from reelstream.train.models import load_model
from reelstream.train.options import ModelOptions
from reelstream.trainers import attach, collate
from reelstream.types import FrameSampling


class TellingTrainer(Trainer):
    """A Trainer that says what it computes the loss of; yours need not."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **settings: Any) -> Any:
        """Compute the loss as ever."""
        tell(self.state.global_step + 1, inputs.pop("names"))
        return super().compute_loss(model, inputs, *args, **settings)


def main() -> None:
    """Train for one epoch."""
    args = arguments(__doc__)
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    loaded = load_model(ModelOptions(), texts=(), seed=0)
    settings = TrainingArguments(
        output_dir=str(args.output),
        per_device_train_batch_size=args.global_batch // world_size,
        num_train_epochs=1,
        save_strategy="steps",
        save_steps=5,
        save_total_limit=1,  # counted into the dataset's disk budget, with the one being saved
        learning_rate=1e-3,
        use_cpu=True,
        dataloader_pin_memory=False,
        report_to=[],
        disable_tqdm=True,
    )
    with StreamingVideoDataset(
        args.repo_id,
        args.subsets,
        annotations=args.annotations,
        cache_dir=args.cache,
        disk_budget=args.disk_budget,
        tail=args.tail,
        frames=FrameSampling(fps=1.0, max_frames=4, size=64),
    ) as dataset:
        trainer = TellingTrainer(
            model=loaded.model,
            args=settings,
            train_dataset=dataset,
            data_collator=WithNames(collate(loaded.family)),
        )
        attach(trainer, dataset)  # the one line
        trainer.train(resume_from_checkpoint=args.resume)


if __name__ == "__main__":
    main()
