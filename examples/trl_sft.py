"""TRL's SFTTrainer on a stream.

python examples/trl_sft.py lmms-lab/LLaVA-Video-178K 0_30_s_academic_v0_1
torchrun --nproc-per-node 2 examples/trl_sft.py lmms-lab/LLaVA-Video-178K 0_30_s_academic_v0_1 --resume
python examples/trl_sft.py --demo --ranks 2
"""

from __future__ import annotations

import os
from typing import Any

from demo import WithNames, arguments, tell
from trl import SFTConfig, SFTTrainer

from reelstream.data import StreamingVideoDataset
from reelstream.train.models import load_model
from reelstream.train.options import ModelOptions
from reelstream.trainers import attach, collate, for_trl
from reelstream.types import FrameSampling


class TellingTrainer(SFTTrainer):
    """A trainer that says what it computes the loss of; yours need not."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **settings: Any) -> Any:
        """Compute the loss as ever."""
        tell(self.state.global_step + 1, inputs.pop("names"))
        return super().compute_loss(model, inputs, *args, **settings)


def main() -> None:
    """Train for one epoch."""
    args = arguments(__doc__)
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    loaded = load_model(ModelOptions(), texts=(), seed=0)
    settings = SFTConfig(
        output_dir=str(args.output),
        per_device_train_batch_size=args.global_batch // world_size,
        num_train_epochs=1,
        save_strategy="steps",
        save_steps=5,
        save_total_limit=1,  # counted into the dataset's disk budget, with the one being saved
        learning_rate=1e-3,
        dataset_kwargs={"skip_prepare_dataset": True},  # the collator makes tensors of the samples
        max_length=None,  # a cut conversation would lose tokens of its clip
        activation_checkpointing=False,
        bf16=False,
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
            train_dataset=for_trl(dataset),  # TRL takes no dataset of torch, and looks at a sample's shape
            data_collator=WithNames(collate(loaded.family)),
            processing_class=loaded.family.tokenizer,
        )
        attach(trainer, dataset)  # the one line
        trainer.train(resume_from_checkpoint=args.resume)


if __name__ == "__main__":
    main()
