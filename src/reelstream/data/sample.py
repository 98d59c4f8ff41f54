"""What a sample is, as the trainer gets it."""

from __future__ import annotations

from pathlib import Path
from typing import NotRequired, TypedDict

import torch

from reelstream.catalog import as_messages
from reelstream.data.media import media_fields
from reelstream.prefetch.paths import PathLease
from reelstream.types import Annotation, ClipMedia, ClipRecord, Conversation, Messages, Position


class Sample(TypedDict):
    """One training example: one conversation about one clip.

    What it holds of the clip follows from the options `media`, `check` and `audio`; the rest is always there.
    """

    id: str
    """The publisher's id; not unique."""
    clip: str
    """Path of the clip in its subset."""
    subset: str
    position: Position
    """Place in the schedule: epoch, lane, and slot in the lane."""
    frames: NotRequired[torch.Tensor]
    """With `media: frames`: RGB, uint8, T x 3 x H x W."""
    timestamps: NotRequired[torch.Tensor]
    """With `media: frames`: seconds from the clip's first frame to each sampled one, float64, T."""
    frame_indices: NotRequired[torch.Tensor]
    """With `media: frames`: index of each sampled frame among the clip's frames in order of time, int64, T."""
    video_bytes: NotRequired[bytes]
    """With `media: bytes`: the clip as published, container and all."""
    video_path: NotRequired[str]
    """With `media: path`: the clip as published, in a file that lives as `PathLease` says; absolute."""
    lease: NotRequired[PathLease]
    """With `media: path`: the hold on that file."""
    audio: NotRequired[torch.Tensor]
    """With `audio`: samples from -1 to 1, float32, N if mono, else channels x N; the first is heard as the first frame
    is shown, and N is 0 where the clip has no sound."""
    has_audio: NotRequired[bool]
    """With `audio`: whether the clip has sound."""
    fps: NotRequired[float]
    """Frames per second of the video itself; not with `check: none`."""
    duration: NotRequired[float]
    """Seconds; not with `check: none`."""
    conversations: Conversation
    """LLaVA turns, with `<video>` where the clip goes."""
    messages: Messages
    """The same as OpenAI turns."""


def make_sample(
    *,
    record: ClipRecord,
    annotation: Annotation,
    position: Position,
    media: ClipMedia,
    lease: PathLease | None,
    share: bool,
) -> Sample:
    """Put a sample together.

    Args:
        record: Its clip.
        annotation: Its text.
        position: Its place.
        media: What it holds of the clip.
        lease: Of the clip's file, where it holds that.
        share: Whether its tensors may be the decoded arrays themselves; else they are copies, so that a transform in
            place does not reach the clip's other samples.
    """
    return {
        "id": annotation.id,
        "clip": record.path,
        "subset": record.subset,
        "position": position,
        "conversations": annotation.conversations,
        "messages": _messages(annotation.conversations, None if lease is None else lease.path),
        **media_fields(media, lease, share=share),
    }


def _messages(conversations: Conversation, path: Path | None) -> Messages:
    """Return a conversation in the OpenAI form, its video part naming the clip's file where there is one."""
    messages = as_messages(conversations)
    if path is not None:
        for message in messages:
            for part in message["content"]:
                if part["type"] == "video":
                    part["video"] = str(path)
    return messages
