"""The disk: a budget in bytes, a folder for each run, and the clips that live in it for a while."""

from reelstream.cache.budget import Account, DiskBudget, allocated_bytes
from reelstream.cache.clips import ClipCache, ClipFile, Lease, Survivor
from reelstream.cache.folder import RunFolder
from reelstream.cache.kept import KeepLimits, KeptClips
from reelstream.cache.names import clip_identity
from reelstream.cache.room import Room

__all__ = [
    "Account",
    "ClipCache",
    "ClipFile",
    "DiskBudget",
    "KeepLimits",
    "KeptClips",
    "Lease",
    "Room",
    "RunFolder",
    "Survivor",
    "allocated_bytes",
    "clip_identity",
]
