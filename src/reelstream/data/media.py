"""What a sample holds of its clip, as tensors, bytes or a path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from torch.utils.data._utils.collate import default_collate_fn_map

from reelstream.prefetch.paths import PathLease
from reelstream.types import ClipMedia, Float32Array, Float64Array, Int64Array, UInt8Array


def _as_list(leases: Sequence[PathLease], **_: Any) -> list[PathLease]:
    """Collate leases: the batch holds them as long as it is held itself."""
    return list(leases)


# Torch's default collating refuses types that it does not know; this is how it is told of one.
default_collate_fn_map[PathLease] = _as_list


class MediaFields(TypedDict, total=False):
    """The fields of a `Sample` that depend on the options; documented there."""

    frames: torch.Tensor
    timestamps: torch.Tensor
    frame_indices: torch.Tensor
    video_bytes: bytes
    video_path: str
    lease: PathLease
    audio: torch.Tensor
    has_audio: bool
    fps: float
    duration: float


def media_fields(media: ClipMedia, lease: PathLease | None, *, share: bool) -> MediaFields:
    """Return a sample's fields for what was loaded of its clip.

    Args:
        media: What was loaded.
        lease: Of the clip's file, where the sample holds that.
        share: Whether tensors may be the loaded arrays themselves; else they are copies.
    """
    fields = MediaFields()
    if media.decoded is not None:
        fields["frames"] = _tensor(media.decoded.frames, share=share)
        fields["timestamps"] = _tensor(media.decoded.timestamps, share=share)
        fields["frame_indices"] = _tensor(media.decoded.frame_indices, share=share)
    if media.content is not None:
        fields["video_bytes"] = media.content
    if lease is not None:
        fields["video_path"] = str(lease.path)
        fields["lease"] = lease
    if media.audio is not None:
        fields["audio"] = _tensor(media.audio, share=share)
        fields["has_audio"] = media.audio.size > 0
    if media.fps is not None and media.duration is not None:
        fields["fps"], fields["duration"] = media.fps, media.duration
    return fields


def _tensor(array: UInt8Array | Int64Array | Float32Array | Float64Array, *, share: bool) -> torch.Tensor:
    return torch.from_numpy(array if share else array.copy())
