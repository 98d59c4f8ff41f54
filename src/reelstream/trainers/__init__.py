"""Streamed datasets in the trainers that people use: `Trainer`, TRL, accelerate, and plain loops.

```
attached      Trainer and SFTTrainer, by attach(trainer, dataset)
loader        StreamLoader: batches for accelerate and loops of one's own
collators     samples to tensors
placeholder   what TRL takes as a dataset until it is attached
options, checkpoints, room, run, groups      what attach is made of
```

Importing this package does not import transformers, accelerate, datasets or TRL.
"""

from reelstream.trainers.attached import attach
from reelstream.trainers.collators import collate, processor_collate
from reelstream.trainers.loader import StreamLoader
from reelstream.trainers.placeholder import for_trl

__all__ = ["StreamLoader", "attach", "collate", "for_trl", "processor_collate"]
