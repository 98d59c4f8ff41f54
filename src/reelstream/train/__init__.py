"""Training: models, the loop, checkpoints and evaluation.

Importing this package loads neither torch nor transformers; its modules load them where they are needed:
`models.load_model`, `loop.TrainingLoop`, `checkpoints.CheckpointStore`, `evaluate.evaluate`.
"""

from reelstream.train.options import CheckpointOptions, EvaluationOptions, ModelOptions, TinyOptions, TrainOptions

__all__ = ["CheckpointOptions", "EvaluationOptions", "ModelOptions", "TinyOptions", "TrainOptions"]
