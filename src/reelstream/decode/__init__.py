"""From a clip's bytes to its sampled frames, with no more decoding than they need."""

from reelstream.decode.pyav import decode_clip

__all__ = ["decode_clip"]
