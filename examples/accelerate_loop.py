"""A training loop with accelerate, which saves and resumes the place in the data with all else.

accelerate launch examples/accelerate_loop.py lmms-lab/LLaVA-Video-178K 0_30_s_academic_v0_1
python examples/accelerate_loop.py --demo --ranks 2 --launcher accelerate
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from demo import WithNames, arguments, tell

from reelstream.data import StreamingVideoDataset
from reelstream.train.models import load_model
from reelstream.train.options import ModelOptions
from reelstream.trainers import StreamLoader, collate
from reelstream.types import FrameSampling

SAVE_EVERY = 5
ACCUMULATE = 2


def main() -> None:
    """Train for one epoch."""
    args = arguments(__doc__)
    project = ProjectConfiguration(project_dir=args.output, automatic_checkpoint_naming=True, total_limit=2)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=ACCUMULATE, project_config=project)
    loaded = load_model(ModelOptions(), texts=(), seed=0)

    with StreamingVideoDataset(
        args.repo_id,
        args.subsets,
        annotations=args.annotations,
        cache_dir=args.cache,
        disk_budget=args.disk_budget,
        tail=args.tail,
        frames=FrameSampling(fps=1.0, max_frames=4, size=64),
    ) as dataset:
        # accelerate leaves a StreamLoader as it is; a DataLoader it would divide among the ranks a second time.
        loader = StreamLoader(
            dataset,
            batch_size=max(1, args.global_batch // accelerator.num_processes // ACCUMULATE),
            collate=WithNames(collate(loaded.family)),
            accumulate=ACCUMULATE,
        )
        optimizer = torch.optim.AdamW(loaded.model.parameters(), lr=1e-3)
        model, optimizer, loader = accelerator.prepare(loaded.model, optimizer, loader)
        progress = Progress()
        # save_state and load_state take the place in the data along.
        accelerator.register_for_checkpointing(loader, progress)
        if args.resume:
            accelerator.load_state()
            accelerator.project_configuration.iteration = progress.step // SAVE_EVERY

        names: list[str] = []
        for batch in loader:
            names += batch.pop("names")
            tensors = {name: tensor.to(accelerator.device) for name, tensor in batch.items()}
            with accelerator.accumulate(model):
                accelerator.backward(model(**tensors).loss)
                optimizer.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                progress.step += 1
                tell(progress.step, names)
                names = []
                if progress.step % SAVE_EVERY == 0:
                    accelerator.save_state()
    accelerator.end_training()


class Progress:
    """How many steps were made."""

    def __init__(self) -> None:
        self.step = 0

    def state_dict(self) -> dict[str, int]:
        """Return what accelerate saves."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take up what it saved."""
        self.step = state["step"]


if __name__ == "__main__":
    main()
