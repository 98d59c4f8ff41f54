"""What a user can set about training; contradictions are refused when the options are made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from reelstream.units import ByteSize, Seconds

FamilyName = Literal["qwen3_vl", "smolvlm2"]
Precision = Literal["auto", "float32", "bfloat16"]
Parallel = Literal["auto", "ddp", "fsdp2", "none"]
WeightsKind = Literal["full", "adapters"]

# As little as clips work with at all.
_LEAST_DISK_SHARE_BYTES = 1 << 20


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise ValueError(sentence)


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyOptions:
    """A small random model of a real architecture, with a tokenizer built from the dataset's own texts.

    The defaults are the configuration that was measured to learn the direction of motion in about a minute of CPU
    time; see `docs/reference/models.md`.
    """

    vocabulary_size: int = 1024
    """Most entries of the byte-level BPE tokenizer, special tokens included; at least 300."""
    hidden_size: int = 64
    """Width of the language model; a multiple of `num_heads`."""
    intermediate_size: int = 128
    """Width of the language model's feed-forward layers."""
    num_layers: int = 2
    """Layers of the language model."""
    num_heads: int = 4
    """Attention heads of the language model and of the vision encoder."""
    num_key_value_heads: int = 2
    """Key and value heads of the language model; divides `num_heads`."""
    vision_hidden_size: int = 64
    """Width of the vision encoder; a multiple of `num_heads`."""
    vision_layers: int = 2
    """Layers of the vision encoder."""
    patch_size: int = 8
    """Side of a vision patch in pixels."""
    max_positions: int = 4096
    """Longest sequence in tokens."""
    init_scale: float = 0.08
    """Standard deviation of the initial weights. The customary 0.02 leaves a model this narrow at chance."""

    def __post_init__(self) -> None:
        _require(
            self.vocabulary_size >= 300,
            "model.tiny.vocabulary_size must be at least 300 (256 bytes and the special tokens), "
            f"not {self.vocabulary_size}",
        )
        for name in ("hidden_size", "vision_hidden_size"):
            size = getattr(self, name)
            # Rotary embeddings turn pairs, in two dimensions in the vision encoder: heads of a multiple of four.
            _require(
                size > 0 and self.num_heads > 0 and size % (4 * self.num_heads) == 0,
                f"model.tiny.{name} must be a multiple of 4 x num_heads = {4 * self.num_heads}, not {size}",
            )
        _require(
            self.num_key_value_heads > 0 and self.num_heads % self.num_key_value_heads == 0,
            f"model.tiny.num_key_value_heads must divide num_heads = {self.num_heads}, not {self.num_key_value_heads}",
        )
        for name in ("intermediate_size", "num_layers", "vision_layers", "patch_size", "max_positions"):
            _require(getattr(self, name) > 0, f"model.tiny.{name} must be at least 1, not {getattr(self, name)}")
        _require(self.init_scale > 0, f"model.tiny.init_scale must be above 0, not {self.init_scale}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraOptions:
    """Low-rank adapters: two small matrices beside each chosen one, trained while the model itself stays as it is."""

    rank: int = 16
    """Inner size of the two matrices: what is trained, and what a checkpoint takes, grows with it."""
    alpha: int = 32
    """The adapters' part is scaled by `alpha / rank`."""
    dropout: float = 0.0
    """Share of the adapters' inputs that is dropped while training."""
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Which layers get adapters: all linear ones but the output embeddings, or those whose names end like these."""

    def __post_init__(self) -> None:
        _require(self.rank >= 1, f"model.lora.rank must be at least 1, not {self.rank}")
        _require(self.alpha >= 1, f"model.lora.alpha must be at least 1, not {self.alpha}")
        _require(0 <= self.dropout < 1, f"model.lora.dropout must be in [0, 1), not {self.dropout}")
        _require(
            bool(self.targets) and all(self.targets),
            "model.lora.targets names no layer; leave it out for all linear ones",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Which model is trained."""

    family: FamilyName = "qwen3_vl"
    """Architecture and preprocessing: `qwen3_vl` or `smolvlm2`."""
    name: str | None = None
    """A repository of the Hub or a local folder in its layout; None builds the tiny model."""
    revision: str | None = None
    """Commit, tag or branch of the model's repository; None is its main branch."""
    tiny: TinyOptions = field(default_factory=TinyOptions)
    """Sizes of the tiny model, where `name` is None."""
    min_pixels: int | None = None
    """Qwen3-VL: a clip of fewer pixels (frames x height x width) is enlarged; None is the model's own value."""
    max_pixels: int | None = None
    """Qwen3-VL: a clip of more pixels (frames x height x width) is made smaller; None is the model's own value."""
    image_size: int | None = None
    """SmolVLM2: side in pixels of the square that each frame becomes; tiny model only (real ones have one size)."""
    lora: LoraOptions | None = None
    """Train adapters beside the model's weights instead of the weights; None trains the weights."""

    def __post_init__(self) -> None:
        _require(
            self.family in ("qwen3_vl", "smolvlm2"), f"model.family must be qwen3_vl or smolvlm2, not {self.family!r}"
        )
        _require(
            self.revision is None or self.name is not None, "model.revision is set, but model.name is not: set both"
        )
        for name in ("min_pixels", "max_pixels", "image_size"):
            size = getattr(self, name)
            _require(size is None or size > 0, f"model.{name} must be above 0, not {size}")
        if self.family == "smolvlm2":
            _require(
                self.min_pixels is None and self.max_pixels is None,
                "model.min_pixels and model.max_pixels belong to qwen3_vl; smolvlm2 has one frame size",
            )
        else:
            _require(self.image_size is None, "model.image_size belongs to smolvlm2; qwen3_vl takes max_pixels")
        _require(
            self.image_size is None or self.name is None,
            "model.image_size belongs to the tiny model; a real one has a frame size of its own",
        )
        _require(
            self.min_pixels is None or self.max_pixels is None or self.min_pixels <= self.max_pixels,
            f"model.min_pixels = {self.min_pixels} is above model.max_pixels = {self.max_pixels}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """How the model is trained."""

    epochs: int = 1
    """Passes over the dataset."""
    max_steps: int | None = None
    """Stop after this many optimizer steps, whatever `epochs` says; None does not."""
    batch_size: int = 8
    """Samples that go through the model at once, of all ranks together: the number of ranks must divide it."""
    accumulate: int = 1
    """Batches whose gradients make one optimizer step."""
    learning_rate: float = 2e-3
    """Highest learning rate, reached after the warm-up. 2e-3 suits the tiny model; real ones want about 1e-5."""
    warmup_steps: int = 30
    """Steps in which the learning rate rises linearly; then it falls to zero along a cosine."""
    weight_decay: float = 0.0
    """AdamW's decay of matrices; biases and norms are never decayed."""
    max_grad_norm: float = 1.0
    """Longer gradients are cut to this length."""
    precision: Precision = "auto"
    """Arithmetic of forward and backward; weights and optimizer are float32. `auto`: bfloat16 on GPUs that have it."""
    device: str = "auto"
    """`auto` takes the GPU where there is one, each rank its own; else a name such as `cpu`, `cuda` or `cuda:0`."""
    parallel: Parallel = "auto"
    """How several ranks share a model: `ddp` (each holds all of it), `fsdp2` (each holds its part of the weights and
    of the optimizer), `auto` (`ddp`). One rank shares nothing, whatever this says."""
    step: str | None = None
    """Your own `train_step(model, batch)`: `package.module:function` or `path/to/file.py:function`. It is code, so it
    runs with `reelstream train --trust-imports` only. None takes the cross entropy of the answers' tokens."""
    seed: int = 0
    """Of the initial weights and of dropout."""
    num_threads: int | None = None
    """Threads of torch on the CPU; None leaves torch's own choice."""
    max_time: Seconds | None = None
    """Seconds from the start of the process to its end, such as `11h`: the run saves a checkpoint and leaves in time
    for that; None does not."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate"):
            _require(getattr(self, name) >= 1, f"train.{name} must be at least 1, not {getattr(self, name)}")
        for name in ("max_steps", "num_threads"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"train.{name} must be at least 1, not {value}")
        _require(self.max_time is None or self.max_time > 0, f"train.max_time must be above 0, not {self.max_time}")
        _require(self.warmup_steps >= 0, f"train.warmup_steps must not be negative: {self.warmup_steps}")
        for name in ("learning_rate", "max_grad_norm"):
            value = getattr(self, name)
            _require(value > 0 and math.isfinite(value), f"train.{name} must be above 0, not {value}")
        _require(0 <= self.weight_decay < 1, f"train.weight_decay must be in [0, 1), not {self.weight_decay}")
        _require(
            self.precision in ("auto", "float32", "bfloat16"),
            f"train.precision must be auto, float32 or bfloat16, not {self.precision!r}",
        )
        _require(
            self.parallel in ("auto", "ddp", "fsdp2", "none"),
            f"train.parallel must be auto, ddp, fsdp2 or none, not {self.parallel!r}",
        )
        _require(
            self.step is None or all(self.step.rpartition(":")[::2]),
            f"train.step must be package.module:function or path/to/file.py:function, not {self.step!r}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointOptions:
    """When checkpoints are written, and how many stay."""

    every_steps: int | None = 500
    """Steps between checkpoints; None writes one at the end only. An interrupt always writes one."""
    keep: int = 1
    """How many stay; the oldest goes once a newer one is durable, so that a save needs room for one more."""
    weights_only: bool = False
    """Leave out the optimizer: a third of the size, and nothing to resume from."""
    weights: WeightsKind | None = None
    """`full` saves the base model's weights too, `adapters` those of `model.lora` alone. None takes `adapters` where
    there are some beside a published model, which can be had again, and else `full`."""

    def __post_init__(self) -> None:
        _require(
            self.every_steps is None or self.every_steps >= 1,
            f"checkpoints.every_steps must be at least 1, not {self.every_steps}",
        )
        _require(self.keep >= 1, f"checkpoints.keep must be at least 1, not {self.keep}")
        _require(
            self.weights in (None, "full", "adapters"),
            f"checkpoints.weights must be full or adapters, not {self.weights!r}",
        )


def saved_weights(model: ModelOptions, checkpoints: CheckpointOptions) -> WeightsKind:
    """Return which weights a checkpoint holds.

    Raises:
        ValueError: Where adapters alone are asked for, and there are none, or nothing to put them beside later. A tiny
            model's base is random: it exists nowhere but in the run, so it is saved with each checkpoint, which is
            megabytes; saved once beside them, its loss would make all of them worthless.
    """
    if checkpoints.weights != "adapters":
        has_base_elsewhere = model.lora is not None and model.name is not None
        return "adapters" if checkpoints.weights is None and has_base_elsewhere else "full"
    _require(model.lora is not None, "checkpoints.weights is adapters, but model.lora is not set: set both or neither")
    _require(
        model.name is not None,
        "checkpoints.weights is adapters, but the tiny model's random base can be had nowhere again: "
        "set checkpoints.weights to full, or name a model",
    )
    return "adapters"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """Loss, and answers to multiple-choice questions, over clips that are not trained on."""

    share: float | None = None
    """Hold out about this share of the clips of `data.subsets` from training, by their file names."""
    clips: int | None = None
    """Hold out this many clips instead."""
    subset: str | None = None
    """Or a subset that is not trained on at all. Where none of the three is set, nothing is evaluated."""
    max_samples: int | None = 1000
    """Take no more held-out samples than this, the same ones each time; None takes all."""
    max_questions: int | None = None
    """Ask the first so many multiple-choice questions only; None asks all of these samples."""
    every_steps: int | None = None
    """Steps between evaluations; None evaluates at the end only."""
    keep: bool = False
    """Keep the held-out clips on disk, so that they are fetched once; else they are streamed at each evaluation."""
    disk_share: ByteSize | None = None
    """Bytes of the disk budget that are set aside for held-out clips during training; None chooses."""
    batch_size: int = 16
    """Samples, or pairs of question and option, that go through the model at once."""

    def __post_init__(self) -> None:
        sources = [name for name in ("share", "clips", "subset") if getattr(self, name) is not None]
        _require(
            len(sources) <= 1,
            " and ".join(f"evaluation.{name}" for name in sources) + " are set: set one of them",
        )
        _require(
            self.share is None or 0 < self.share < 1,
            f"evaluation.share must be above 0 and below 1, not {self.share}",
        )
        for name in ("clips", "max_samples", "max_questions", "every_steps"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"evaluation.{name} must be at least 1, not {value}")
        _require(self.batch_size >= 1, f"evaluation.batch_size must be at least 1, not {self.batch_size}")
        _require(
            self.disk_share is None or self.disk_share >= _LEAST_DISK_SHARE_BYTES,
            f"evaluation.disk_share must be at least {_LEAST_DISK_SHARE_BYTES} bytes, not {self.disk_share}",
        )
        _require(
            self.every_steps is None or self.enabled,
            "evaluation.every_steps is set, but nothing is held out: set evaluation.share, evaluation.clips or "
            "evaluation.subset",
        )
        if self.every_steps is None:
            _require(
                not self.keep,
                "evaluation.keep is set, but clips that are used at the end only need not be kept: "
                "set evaluation.every_steps, or leave keep out",
            )
            _require(
                self.disk_share is None,
                "evaluation.disk_share is set, but at the end of training the disk is free: "
                "set evaluation.every_steps, or leave disk_share out",
            )

    @property
    def holds_out(self) -> bool:
        """Whether clips of the subsets that are trained on are held out."""
        return self.share is not None or self.clips is not None

    @property
    def enabled(self) -> bool:
        """Whether anything is evaluated."""
        return self.holds_out or self.subset is not None
