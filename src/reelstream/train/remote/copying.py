"""Files written from chunks, durably, and called off between any two of them."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from reelstream.cancel import Cancellation
from reelstream.errors import DiskError, ReelstreamError
from reelstream.train.remote.remote import Progress

_CHUNK_BYTES = 1 << 20


def chunks_of(file: Path) -> Iterator[bytes]:
    """Yield the bytes of a file, in chunks of at most 1 MiB."""
    with file.open("rb", buffering=0) as opened:
        while chunk := opened.read(_CHUNK_BYTES):
            yield chunk


def write_new(target: Path, chunks: Iterable[bytes], cancellation: Cancellation, progress: Progress) -> None:
    """Write a file that is not there yet, and force it to disk.

    Raises:
        OSError: Where the disk refuses; part of the file may be left.
        Cancelled: Where the work is called off.
    """
    with target.open("xb") as opened:
        for chunk in chunks:
            cancellation.raise_if_cancelled()
            opened.write(chunk)
            progress(len(chunk))
        opened.flush()
        os.fsync(opened.fileno())


def replace_file(target: Path, chunks: Iterable[bytes], cancellation: Cancellation) -> None:
    """Put a file in the place of what is there, at once; its folder is made if need be.

    Raises:
        OSError: Where the disk refuses; what was there stays.
        Cancelled: Where the work is called off.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")
    try:
        write_new(partial, chunks, cancellation, lambda _: None)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_errors(what: str, hint: str) -> Iterator[None]:
    """Turn the system's errors about `what` into ours."""
    try:
        yield
    except OSError as error:
        if isinstance(error, ReelstreamError):
            raise
        raise DiskError(f"{what}: {error.strerror or error}", hint) from error
