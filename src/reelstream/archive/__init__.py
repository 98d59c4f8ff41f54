"""Published containers, read from front to back as their bytes arrive; nothing of them is stored.

Knows byte sources and nothing of HTTP, catalogs or training.
"""

from reelstream.archive.gunzip import GunzipReader
from reelstream.archive.tar import Member, read_members

__all__ = ["GunzipReader", "Member", "read_members"]
