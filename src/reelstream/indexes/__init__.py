"""What archives hold: kept on this machine, learned without training, and used to fetch single clips."""

from reelstream.indexes.cut_file import LearnedCut
from reelstream.indexes.store import INDEX_FOLDER, IndexStore, identity_of, set_aside_bytes

__all__ = ["INDEX_FOLDER", "IndexStore", "LearnedCut", "identity_of", "set_aside_bytes"]
