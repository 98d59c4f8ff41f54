"""Streamed datasets as torch sees them."""

from reelstream.data.iterable import StreamingVideoDataset
from reelstream.data.mapstyle import StreamingLLaVAVideo, StreamingLLaVAVideoDataset
from reelstream.data.sample import Sample

__all__ = ["Sample", "StreamingLLaVAVideo", "StreamingLLaVAVideoDataset", "StreamingVideoDataset"]
