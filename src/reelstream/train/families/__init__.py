"""Model families: what a clip and a conversation become before a model can take them."""

from reelstream.train.families.base import EncodedSample, Family, PreparedClip

__all__ = ["EncodedSample", "Family", "PreparedClip"]
