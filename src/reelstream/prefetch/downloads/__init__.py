"""Whole archives on disk, where nothing shall be streamed: fetched before the first sample, and read there ever after.

The archives are kept, not their clips. They are what has a size before a byte is fetched, and a digest to know them by;
every kind of span is read from them as it is from the Hub, so that an epoch has the very order of a streamed one; and
the ranks of a node share them, however their lanes are dealt. Clips still pass through a small window on disk.
"""

from reelstream.prefetch.downloads.archives import ARCHIVE_FOLDER, Downloads
from reelstream.prefetch.downloads.files import DownloadedFile, file_name_of
from reelstream.prefetch.downloads.first import DownloadFirst

__all__ = ["ARCHIVE_FOLDER", "DownloadFirst", "DownloadedFile", "Downloads", "file_name_of"]
