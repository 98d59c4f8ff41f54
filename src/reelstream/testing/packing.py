"""Files like videos, and archives of them in memory."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import zipfile
from collections.abc import Mapping


def media_bytes(seed: int, size_bytes: int) -> bytes:
    """Return bytes as compressible as a video: noise, with a header repeated now and then, and some plain stretches."""
    draw = random.Random(seed)
    parts = []
    left = size_bytes
    header = draw.randbytes(24)
    while left > 0:
        part = (
            header + draw.randbytes(draw.randrange(500, 9000)) + bytes(draw.choices(b"abcd\0", k=draw.randrange(300)))
        )
        parts.append(part)
        left -= len(part)
    return b"".join(parts)[:size_bytes]


def pack_tar(files: Mapping[str, bytes], *, tar_format: int = tarfile.GNU_FORMAT) -> bytes:
    """Pack files in their order; a name that ends in a slash is a folder."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tar_format) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def pack_tar_gz(files: Mapping[str, bytes], *, level: int = 6) -> bytes:
    """Pack files in their order into a tar.gz; the same files give the same bytes."""
    return gzip.compress(pack_tar(files), level, mtime=0)


def pack_zip(files: Mapping[str, bytes]) -> bytes:
    """Pack files in their order into a zip that stores them as they are."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return packed.getvalue()
