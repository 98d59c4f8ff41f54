"""What a user can set about streaming; defaults live here and nowhere else."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from reelstream.errors import ConfigError
from reelstream.types import AnnotationKind, FrameSampling
from reelstream.units import ByteSize, Seconds


def _default_decode_threads() -> int:
    return os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """Which dataset is streamed, in which order, and inside which bounds."""

    repo_id: str
    """Dataset repository on the Hub, `organisation/name`."""
    subsets: tuple[str, ...]
    """Folders of the repository to train on."""
    annotations: tuple[AnnotationKind, ...] = ("cap", "oe", "mc")
    """Kinds of samples: captions, open-ended questions, multiple-choice questions."""
    revision: str | None = None
    """Branch, tag or commit; pinned to a commit at the start. None is the default branch."""
    cache_dir: Path = Path("data/stream_cache")
    """Where clips and the catalog live for a while."""
    disk_budget: ByteSize = 5_000_000_000
    """Bytes that clips, catalog, logs and checkpoints may take on disk together, at any instant."""
    cache_size: int = 100
    """Clips whose samples are shuffled together at a time, over all lanes."""
    prefetch: bool = True
    """Whether to download ahead of the windows in use, as far as the disk budget lets."""
    shuffle: bool = True
    """Whether spans and samples are put in a seeded order."""
    seed: int = 0
    """Same seed, same order."""
    lanes: int = 8
    """Archives read side by side; each lane is shuffled by itself."""
    limit: int | None = None
    """Take this many clips only, the same in every epoch; None takes all."""
    frames: FrameSampling = field(default_factory=FrameSampling)
    """Which frames of a clip are decoded."""
    decode_threads: int = field(default_factory=_default_decode_threads)
    """Clips decoded side by side."""
    decoded_memory: ByteSize = 2_000_000_000
    """Memory for decoded frames; what does not fit is decoded again."""
    connections: int = 8
    """The most ranged reads at once."""
    max_bad_share: float = 0.05
    """Stop when more than this share of the clips met (of 100 at least) cannot be used."""
    on_bad_archive: Literal["stop", "skip"] = "stop"
    """What to do when an archive is damaged: stop, or go on without what it does not give."""
    endpoint: str | None = None
    """Address of the Hub; None takes `HF_ENDPOINT`, or else the public one."""
    give_up_after: Seconds = 600.0
    """Seconds without a byte, retries included, after which a download has failed."""

    def __post_init__(self) -> None:
        for name in ("cache_size", "lanes", "decode_threads", "connections"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.subsets:
            raise ConfigError("subsets names nothing to train on", "name at least one folder of the repository")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit must be at least 1, not {self.limit}", "leave it out to take all clips")
        if not 0 <= self.max_bad_share <= 1:
            raise ConfigError(f"max_bad_share must be from 0 to 1, not {self.max_bad_share}")
        if self.disk_budget <= 0:
            raise ConfigError("disk_budget must be above 0")
