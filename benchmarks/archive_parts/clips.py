"""What is packed: clips, as a plain tar, and the SHA-256 of each."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path

from reelstream.sampledata import SampleOptions, make_sample

Digests = list[tuple[str, str]]
"""Names and SHA-256, in the order that they are packed in."""

WHAT_THEY_ARE = (
    "The clips are H.264 in mp4, drawn and encoded as `reelstream make-sample` does: moving shapes, and noise that "
    "gives them their size. Gzip takes 1 to 3 % off them."
)


def make_clips(folder: Path, clip_bytes: int, total_bytes: int) -> None:
    """Encode clips of about that size into `folder`."""
    duration_s = min(25.0, max(2.0, clip_bytes / 300_000))
    options = SampleOptions(
        num_clips=max(4, total_bytes // clip_bytes),
        num_archives=2,
        num_heldout=0,
        clip_bytes=clip_bytes,
        min_duration_s=duration_s * 0.8,
        max_duration_s=duration_s * 1.2,
    )
    with tempfile.TemporaryDirectory() as sample:
        make_sample(Path(sample), options)
        for archive in sorted(Path(sample).rglob("*.tar.gz")):
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")


def pack(folder: Path, tar: Path) -> None:
    """Pack all files below a folder with GNU tar."""
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    subprocess.run(["tar", "-cf", str(tar), "-C", str(folder), "--", *files], check=True)


def unpacked_digests(archive: Path, folder: Path) -> Digests:
    """Return what GNU tar unpacks from a tar.gz, in the order that it lists it in."""
    folder.mkdir()
    done = subprocess.run(["tar", "-xvzf", str(archive), "-C", str(folder)], check=True, capture_output=True, text=True)
    return [(name, hashlib.sha256((folder / name).read_bytes()).hexdigest()) for name in done.stdout.splitlines()]
