"""Clips and conversations on which our preprocessing is held against the families' own, and their recorded results.

Run as a script where torchvision is installed, it records `processor_results.json` anew.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reelstream.train.families.qwen3_vl import Qwen3VLFamily, Qwen3VLSettings
from reelstream.train.families.smolvlm2 import SmolVLM2Family, SmolVLM2Settings
from reelstream.train.tokenizer import build_tokenizer
from reelstream.types import Messages

RECORDED = Path(__file__).parent / "unit" / "train" / "processor_results.json"
FAMILIES = ("qwen3_vl", "smolvlm2")
_KEPT_ALIVE: list[Any] = []

# Templates of the published models, with the places that are trained on marked.
QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}{% generation %}"
    "{% for c in m['content'] %}{{ c['text'] }}{% endfor %}<|im_end|>{% endgeneration %}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
)
SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for m in messages %}{% if m['role'] == 'assistant' %}Assistant:{% generation %} "
    "{% for c in m['content'] %}{{ c['text'] }}{% endfor %}<end_of_utterance>{% endgeneration %}{% else %}"
    "{{ m['role'] | capitalize }}: {% for c in m['content'] %}{% if c['type'] == 'video' %}<video>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<end_of_utterance>{% endif %}{{ '\n' }}{% endfor %}"
)


@dataclass(frozen=True)
class Case:
    """A clip: frames, their size, and how far apart they are."""

    num_frames: int
    height: int
    width: int
    step: int = 15
    fps: float = 30.0

    @property
    def name(self) -> str:
        return f"{self.num_frames}x{self.height}x{self.width}"

    @property
    def indices(self) -> list[int]:
        return [number * self.step for number in range(self.num_frames)]

    @property
    def times(self) -> list[float]:
        return [index / self.fps for index in self.indices]

    @property
    def duration(self) -> float:
        return (self.indices[-1] + 20) / self.fps

    @property
    def frames(self) -> Tensor:
        """Smooth waves and edges, the same on every machine: integers only."""
        grid = torch.arange(self.num_frames * 3 * self.height * self.width, dtype=torch.int64)
        column, rest = grid % self.width, grid // self.width
        row, plane = rest % self.height, rest // self.height
        values = (
            column * (3 + plane % 5) + row * (7 - plane % 3) + (row // 8 + column // 8) % 2 * 90 + plane * 37
        ) % 256
        return values.to(torch.uint8).view(self.num_frames, 3, self.height, self.width)


CASES = (Case(4, 24, 32), Case(4, 64, 64), Case(5, 120, 90), Case(8, 233, 301, step=40), Case(2, 20, 150))
MESSAGES: Messages = [
    {"role": "system", "content": [{"type": "text", "text": "Look closely."}]},
    {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Where does it go? Größe, 尺寸?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "It moves left.\nThen  up."}]},
    {"role": "user", "content": [{"type": "text", "text": "Sure?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
]
TEXTS = ("It moves left.", "Where does it go?", "Yes. Sure?") * 3


def tokenizer_for(family: str) -> Any:
    """Return a tokenizer that knows the special tokens of the family, and those that only its processor needs."""
    family_class: Any = Qwen3VLFamily if family == "qwen3_vl" else SmolVLM2Family
    extra = () if family == "qwen3_vl" else ("<video>",)
    end_token = "<|im_end|>" if family == "qwen3_vl" else "<end_of_utterance>"
    return build_tokenizer(
        TEXTS,
        vocabulary_size=400,
        special_tokens=(*family_class.special_tokens, *extra),
        pad_token="<|endoftext|>",
        end_token=end_token,
    )


def config_of(family: str) -> dict[str, Any]:
    """Return a video processor's configuration, unlike the defaults where it can be."""
    if family == "qwen3_vl":
        return {
            "size": {"shortest_edge": 4096, "longest_edge": 300_000},
            "patch_size": 8,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "image_mean": [0.5, 0.45, 0.4],
            "image_std": [0.5, 0.3, 0.25],
            "resample": 3,
        }
    return {
        "size": {"longest_edge": 100},
        "max_image_size": {"longest_edge": 64},
        "image_mean": [0.5, 0.45, 0.4],
        "image_std": [0.5, 0.3, 0.25],
        "resample": 1,
    }


PROCESSOR_CONFIG = {"image_seq_len": 4}


def our_family(family: str, config: dict[str, Any] | None = None) -> Any:
    """Return our own preprocessing for a configuration."""
    config = config_of(family) if config is None else config
    if family == "qwen3_vl":
        return Qwen3VLFamily(tokenizer_for(family), Qwen3VLSettings.from_json(config))
    return SmolVLM2Family(tokenizer_for(family), SmolVLM2Settings.from_json(config, PROCESSOR_CONFIG))


def our_batch(family: str, cases: list[Case], config: dict[str, Any] | None = None) -> dict[str, Tensor]:
    """Return a batch as we make it."""
    ours = our_family(family, config)
    samples = [ours.encode(MESSAGES, ours.prepare(case.frames, case.times, case.duration)) for case in cases]
    batch: dict[str, Tensor] = ours.collate(samples)
    return batch


def has_torchvision() -> bool:
    """Return whether the families' own processors can be made."""
    return importlib.util.find_spec("torchvision") is not None


def import_torchvision() -> None:
    """Import torchvision, also a build for GPUs beside a torch for CPUs: its compiled operators are not needed."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT_ALIVE.append(library)
        importlib.import_module("torchvision")


def their_batch(family: str, cases: list[Case], config: dict[str, Any] | None = None) -> dict[str, Tensor]:
    """Return a batch as the family's own processor makes it."""
    import_torchvision()
    qwen2_images = _models("qwen2_vl.image_processing_pil_qwen2_vl")
    qwen3, qwen3_videos = _models("qwen3_vl.processing_qwen3_vl"), _models("qwen3_vl.video_processing_qwen3_vl")
    smolvlm, smolvlm_videos = _models("smolvlm.processing_smolvlm"), _models("smolvlm.video_processing_smolvlm")
    smolvlm_images = _models("smolvlm.image_processing_pil_smolvlm")
    config = config_of(family) if config is None else config
    processor: Any
    if family == "qwen3_vl":
        processor = qwen3.Qwen3VLProcessor(
            qwen2_images.Qwen2VLImageProcessorPil(), tokenizer_for(family), qwen3_videos.Qwen3VLVideoProcessor(**config)
        )
        template = QWEN_TEMPLATE
    else:
        processor = smolvlm.SmolVLMProcessor(
            smolvlm_images.SmolVLMImageProcessorPil(),
            tokenizer_for(family),
            smolvlm_videos.SmolVLMVideoProcessor(**config),
            **PROCESSOR_CONFIG,
        )
        template = SMOLVLM_TEMPLATE
    processor.tokenizer.padding_side = "right"
    batch = processor.apply_chat_template(
        [_with_frames(case) for case in cases],
        chat_template=template,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
        return_tensors="pt",
        processor_kwargs={
            "padding": True,
            "do_sample_frames": False,
            "num_frames": None,
            "fps": None,
            "video_metadata": [
                [
                    {
                        "fps": case.fps,
                        "total_num_frames": case.indices[-1] + 20,
                        "duration": case.duration,
                        "frames_indices": case.indices,
                    }
                ]
                for case in cases
            ],
        },
    )
    spoken = torch.as_tensor(batch.pop("assistant_masks")).bool() & batch["attention_mask"].bool()
    batch["labels"] = batch["input_ids"].masked_fill(~spoken, -100)
    return dict(batch)


def _models(name: str) -> Any:
    return importlib.import_module(f"transformers.models.{name}")


def _with_frames(case: Case) -> list[dict[str, Any]]:
    return [
        {
            "role": message["role"],
            "content": [
                {"type": "video", "video": case.frames} if part["type"] == "video" else part
                for part in message["content"]
            ],
        }
        for message in MESSAGES
    ]


def digest_of(batch: dict[str, Tensor]) -> dict[str, Any]:
    """Return what is recorded of a batch: each tensor's shape, and its contents or enough of them to know it by."""
    return {name: {"shape": list(tensor.shape), **_contents(tensor)} for name, tensor in sorted(batch.items())}


def _contents(tensor: Tensor) -> dict[str, Any]:
    if not tensor.is_floating_point():
        packed = tensor.to(torch.int64).contiguous().numpy().tobytes()
        return {"sha256": hashlib.sha256(packed).hexdigest()}
    flat = tensor.flatten()
    some = flat[:: max(1, len(flat) // 24)]
    return {"mean": flat.double().mean().item(), "some": [round(value, 6) for value in some.tolist()]}


if __name__ == "__main__":
    results = {family: {case.name: digest_of(their_batch(family, [case])) for case in CASES} for family in FAMILIES}
    RECORDED.write_text(json.dumps(results, indent=1) + "\n")
