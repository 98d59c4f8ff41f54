"""From a clip's bytes to its sampled frames and its sound, with no more decoding than they need."""

from reelstream.decode.audio import decode_audio
from reelstream.decode.inspection import inspect_clip
from reelstream.decode.pyav import decode_clip

__all__ = ["decode_audio", "decode_clip", "inspect_clip"]
