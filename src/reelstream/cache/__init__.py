"""The disk: a budget in bytes, a folder for each run, and the clips that live in it for a while."""

from reelstream.cache.budget import Account, DiskBudget, allocated_bytes
from reelstream.cache.clips import ClipCache, ClipFile, Lease
from reelstream.cache.folder import RunFolder
from reelstream.cache.room import Room

__all__ = ["Account", "ClipCache", "ClipFile", "DiskBudget", "Lease", "Room", "RunFolder", "allocated_bytes"]
