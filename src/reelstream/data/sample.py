"""What a sample is, as the trainer gets it."""

from __future__ import annotations

from typing import TypedDict

import torch

from reelstream.catalog import as_messages
from reelstream.types import Annotation, ClipRecord, Conversation, DecodedClip, Messages, Position


class Sample(TypedDict):
    """One training example: one conversation about one clip."""

    id: str
    """The publisher's id; not unique."""
    clip: str
    """Path of the clip in its subset."""
    subset: str
    position: Position
    """Place in the schedule: epoch, lane, and slot in the lane."""
    frames: torch.Tensor
    """RGB, uint8, T x 3 x H x W."""
    timestamps: torch.Tensor
    """Seconds from the clip's first frame to each sampled one, float64, T."""
    frame_indices: torch.Tensor
    """Index of each sampled frame among the clip's frames in order of time, int64, T."""
    fps: float
    """Frames per second of the video itself."""
    duration: float
    """Seconds."""
    conversations: Conversation
    """LLaVA turns, with `<video>` where the clip goes."""
    messages: Messages
    """The same as OpenAI turns."""


def make_sample(
    *, record: ClipRecord, annotation: Annotation, position: Position, decoded: DecodedClip, share_frames: bool
) -> Sample:
    """Put a sample together.

    Args:
        record: Its clip.
        annotation: Its text.
        position: Its place.
        decoded: The clip's frames.
        share_frames: Whether the tensors may be the decoded arrays themselves; else they are copies, so that a
            transform in place does not reach the clip's other samples.
    """
    arrays = (decoded.frames, decoded.timestamps, decoded.frame_indices)
    frames, timestamps, frame_indices = (torch.from_numpy(array if share_frames else array.copy()) for array in arrays)
    return Sample(
        id=annotation.id,
        clip=record.path,
        subset=record.subset,
        position=position,
        frames=frames,
        timestamps=timestamps,
        frame_indices=frame_indices,
        fps=decoded.fps,
        duration=decoded.duration,
        conversations=annotation.conversations,
        messages=as_messages(annotation.conversations),
    )
