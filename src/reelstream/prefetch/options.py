"""What a user can set about streaming; defaults live here and nowhere else."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from reelstream.catalog.split import Split, SplitSide
from reelstream.errors import ConfigError
from reelstream.types import AnnotationKind, AudioSampling, FrameSampling, MediaCheck, MediaKind
from reelstream.units import ByteSize, Seconds, format_bytes

LEAST_CUT_BYTES = 250_000
"""Of a cut."""

_AT_LEAST_ONE = (
    *("cache_size", "lanes", "decode_threads", "connections"),
    *("block_size", "parts", "epochs_per_part"),
)


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
    """Where clips live for a while; the catalog and archive indexes stay for later runs."""
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
    """Archives, or pieces of archives, read side by side; each lane is shuffled by itself."""
    tail: Literal["auto", "skip", "repeat", "drop"] = "auto"
    """What happens when lanes end: `skip` passes over them (one rank only), `repeat` has them serve their last window
    again until all have ended, `drop` ends the epoch with the shortest. `auto` takes `skip` on one rank, else `repeat`.
    """
    limit: int | None = None
    """Take this many clips only, the same in every epoch; None takes all."""
    spans: Literal["auto", "archive", "cut", "block"] = "auto"
    """What is read in one go: whole archives, cuts of them, or blocks of members whose places are known.

    `auto` takes blocks where all members are known, whole archives where there is one for each lane, else cuts."""
    cut_size: ByteSize | None = None
    """Compressed bytes of a cut; None chooses, so that cuts are many and their borders cost little."""
    block_size: ByteSize = 8_000_000
    """The most bytes of neighbours that are read as one block; a larger clip is a block by itself."""
    parts: int = 1
    """Into how many parts each subset is divided, to be trained on one after the other."""
    epochs_per_part: int = 1
    """Epochs on a part before the next one's turn."""
    streaming_mode: bool = True
    """Whether archives are streamed; else all of them are downloaded before the first sample, and read from disk."""
    keep_clips: bool = True
    """Whether clips that fit the budget beside the moving windows stay on disk for the epochs to come."""
    split: SplitSide = "all"
    """Which clips are taken: all, those to train on, or those held out from that, by their file names."""
    held_out_share: float | None = None
    """Hold out about this share of the clips; the same ones whatever the seed, subsets and machine."""
    held_out_clips: int | None = None
    """Hold out this many clips instead; all of one file name stay together."""
    held_out_samples: int | None = None
    """With `split: held_out`: take no more samples than this, of the same clips each time; None takes all."""
    frames: FrameSampling = field(default_factory=FrameSampling)
    """Which frames of a clip are decoded."""
    media: MediaKind = "frames"
    """What a sample holds of its clip: `frames`, its own `bytes`, or the `path` of a file that lives for a while."""
    check: MediaCheck = "open"
    """How a clip that is handed out as bytes or path is looked at before: `decode` as its frames would be, `open` it
    and decode one frame, or `none`: then a bad one reaches the trainer."""
    audio: AudioSampling | None = None
    """How the sound of a clip is taken; None takes none."""
    lease_samples: int = 64
    """With `media: path`, a sample that was let go keeps its file until so many later ones were served."""
    decode_threads: int = field(default_factory=_default_decode_threads)
    """Clips decoded side by side."""
    decoded_memory: ByteSize = 2_000_000_000
    """Memory for what samples hold of clips: frames, bytes, sound; what does not fit is decoded, or read, again."""
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
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        self._refuse_what_is_no_choice()
        if self.lease_samples < 0:
            raise ConfigError(f"lease_samples must be at least 0, not {self.lease_samples}")
        if self.audio is not None and self.media != "frames" and self.check == "none":
            raise ConfigError(
                "audio cannot be taken of clips that nobody opens: check is none",
                "set check to open, or leave audio out",
            )
        if not self.subsets:
            raise ConfigError("subsets names nothing to train on", "name at least one folder of the repository")
        if self.cut_size is not None and self.cut_size < LEAST_CUT_BYTES:
            raise ConfigError(
                f"cut_size must be at least {format_bytes(LEAST_CUT_BYTES)}, not {format_bytes(self.cut_size)}",
                "an entry alone reads as much; leave it out to have it chosen",
            )
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit must be at least 1, not {self.limit}", "leave it out to take all clips")
        _ = self.clip_split
        if not 0 <= self.max_bad_share <= 1:
            raise ConfigError(f"max_bad_share must be from 0 to 1, not {self.max_bad_share}")
        if self.disk_budget <= 0:
            raise ConfigError("disk_budget must be above 0")

    def _refuse_what_is_no_choice(self) -> None:
        for name, choices in _choices().items():
            if getattr(self, name) not in choices:
                words = ", ".join(map(repr, choices))
                raise ConfigError(f"{name} must be one of {words}, not {getattr(self, name)!r}")
        if not isinstance(self.audio, AudioSampling | None):
            raise ConfigError(f"audio must be an AudioSampling, not {self.audio!r}", "leave it out to take no sound")

    @property
    def clip_split(self) -> Split:
        """Which side of which split the clips are on.

        Raises:
            ConfigError: Where the options contradict one another; refused when they are made.
        """
        return Split(
            side=self.split,
            share=self.held_out_share,
            clips=self.held_out_clips,
            most_samples=self.held_out_samples,
        )


@functools.cache
def _choices() -> Mapping[str, tuple[Any, ...]]:
    """Return the values that options have which are one of a few words: Python takes any for them."""
    hints = get_type_hints(StreamOptions)
    return {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}
