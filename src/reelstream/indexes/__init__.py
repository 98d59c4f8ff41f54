"""What archives hold: kept on this machine, learned without training, and used to fetch single clips."""

from reelstream.indexes.store import IndexStore, identity_of, set_aside_bytes

__all__ = ["IndexStore", "identity_of", "set_aside_bytes"]
