"""Published containers, read from front to back as their bytes arrive; nothing of them is stored.

Knows byte sources and nothing of HTTP, catalogs or training.
"""

from reelstream.archive.gunzip import GunzipReader
from reelstream.archive.seek.coalesce import PlannedRequest, RequestCosts, WantedRange, plan_requests, plan_rows
from reelstream.archive.seek.index import ArchiveIdentity, ArchiveIndex, IndexRow, MemberKind, Verification
from reelstream.archive.seek.index_format import decode_index, encode_index, index_file_name, read_index, write_index
from reelstream.archive.seek.indexing import IndexingPass
from reelstream.archive.seek.member_range import RangedMember, read_member, read_rows
from reelstream.archive.source import ByteSource, BytesSource, FileSource
from reelstream.archive.tar import Member, read_members

__all__ = [
    "ArchiveIdentity",
    "ArchiveIndex",
    "ByteSource",
    "BytesSource",
    "FileSource",
    "GunzipReader",
    "IndexRow",
    "IndexingPass",
    "Member",
    "MemberKind",
    "PlannedRequest",
    "RangedMember",
    "RequestCosts",
    "Verification",
    "WantedRange",
    "decode_index",
    "encode_index",
    "index_file_name",
    "plan_requests",
    "plan_rows",
    "read_index",
    "read_member",
    "read_members",
    "read_rows",
    "write_index",
]
