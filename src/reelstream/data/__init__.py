"""Streamed datasets as torch sees them."""

from reelstream.data.iterable import StreamingVideoDataset
from reelstream.data.mapstyle import StreamingLLaVAVideo, StreamingLLaVAVideoDataset
from reelstream.data.sample import Sample
from reelstream.data.states import merge_states
from reelstream.prefetch.paths import PathLease

__all__ = [
    "PathLease",
    "Sample",
    "StreamingLLaVAVideo",
    "StreamingLLaVAVideoDataset",
    "StreamingVideoDataset",
    "merge_states",
]
