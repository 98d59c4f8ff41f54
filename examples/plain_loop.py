"""A training loop of plain PyTorch, on one rank or several, that can be killed at any time and goes on exactly.

python examples/plain_loop.py lmms-lab/LLaVA-Video-178K 0_30_s_academic_v0_1
torchrun --nproc-per-node 2 examples/plain_loop.py lmms-lab/LLaVA-Video-178K 0_30_s_academic_v0_1
python examples/plain_loop.py --demo --ranks 2
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed
from demo import WithNames, arguments, tell
from torch.nn.parallel import DistributedDataParallel

from reelstream.data import StreamingVideoDataset
from reelstream.train.models import load_model
from reelstream.train.options import ModelOptions
from reelstream.trainers import StreamLoader, collate
from reelstream.types import FrameSampling

SAVE_EVERY = 5


def main() -> None:
    """Train for one epoch."""
    args = arguments(__doc__)
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size > 1:
        torch.distributed.init_process_group("gloo")

    # Name a real model here: ModelOptions(family="smolvlm2", name="HuggingFaceTB/SmolVLM2-256M-Video-Instruct").
    loaded = load_model(ModelOptions(), texts=(), seed=0)
    model = DistributedDataParallel(loaded.model) if world_size > 1 else loaded.model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    with StreamingVideoDataset(
        args.repo_id,
        args.subsets,
        annotations=args.annotations,
        cache_dir=args.cache,
        disk_budget=args.disk_budget,
        tail=args.tail,
        frames=FrameSampling(fps=1.0, max_frames=4, size=64),
    ) as dataset:
        # Each rank fetches its own samples: no sampler, and no workers, since the dataset works in the background.
        loader = StreamLoader(
            dataset, batch_size=args.global_batch // world_size, collate=WithNames(collate(loaded.family))
        )
        step = 0
        if args.resume:
            saved = torch.load(args.output / "checkpoint.pt")
            loaded.model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            # The state of all ranks: it resumes on another number of them, too.
            loader.load_state_dict(saved["data"])
            step = saved["step"]

        for batch in loader:
            step += 1
            tell(step, batch.pop("names"))
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if step % SAVE_EVERY == 0:
                # All ranks ask for it, one saves it: the place behind the batches that were yielded.
                data = loader.state_dict()
                if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
                    weights = {"model": loaded.model.state_dict(), "optimizer": optimizer.state_dict()}
                    save({**weights, "data": data, "step": step}, args.output)
    if world_size > 1:
        torch.distributed.destroy_process_group()


def save(checkpoint: dict[str, object], folder: Path) -> None:
    """Save a checkpoint so that a kill leaves the old one or the new one, never half of one."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "checkpoint.partial"
    with partial.open("wb") as file:
        torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / "checkpoint.pt")


if __name__ == "__main__":
    main()
