r"""Which clips are held out from training: a function of their file names alone.

```
u(name) = the first 8 bytes of SHA-256("reelstream held out\n" + name), as a whole number, over 2**64
name    = the last component of the clip's path, case kept, UTF-8
```

A clip is held out by `share` where u(name) < share; by `clips: N` where its name is among those of the lowest u that
hold N clips together. So one clip in two folders, subsets or kinds of annotations falls on one side, whatever the seed,
the machine and the Python version; and a larger share holds out all that a smaller one does. The rule never changes: a
model's figures on held-out clips are worth nothing once some of these were trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from reelstream.errors import ConfigError

SplitSide = Literal["all", "training", "held_out"]
"""Of a split: all clips, those to train on, or the others."""

BoolArray: TypeAlias = npt.NDArray[np.bool_]

_SALT = b"reelstream held out\n"
_WHOLE = 1 << 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A side of a split, and the rule that divides the clips; `all` needs no rule.

    Raises:
        ConfigError: Where the rule is missing, said twice, or can hold out nothing or all.
    """

    side: SplitSide = "all"
    share: float | None = None
    """Hold out about this share of the file names; of a `held_out` side it may be 1: all."""
    clips: int | None = None
    """Hold out so many clips; the others of the last name's too."""
    most_samples: int | None = None
    """Of the held-out side take only the clips of the lowest hashes, as many as have no more samples together than
    this; one at least."""

    def __post_init__(self) -> None:
        rules = [rule for rule in (self.share, self.clips, self.most_samples) if rule is not None]
        if self.side == "all":
            if rules:
                raise ConfigError(
                    "held_out_share, held_out_clips or held_out_samples is set, and split is all",
                    "set split to training or held_out",
                )
            return
        if (self.share is None) == (self.clips is None):
            raise ConfigError(
                f"split is {self.side}, and {'neither' if self.share is None else 'each'} of held_out_share and "
                "held_out_clips is set",
                "set one of them",
            )
        if self.share is not None and not (0 < self.share < 1 or (self.side == "held_out" and self.share == 1)):
            raise ConfigError(f"held_out_share must be above 0 and below 1, not {self.share}")
        for name, number in (("held_out_clips", self.clips), ("held_out_samples", self.most_samples)):
            if number is not None and number < 1:
                raise ConfigError(f"{name} must be at least 1, not {number}")
        if self.most_samples is not None and self.side == "training":
            raise ConfigError(
                "held_out_samples is set, and split is training",
                "leave it out: what is held out and not asked for is not trained on either",
            )

    def __str__(self) -> str:
        """In words: what states are compared by."""
        rules = (
            ("held_out_share", self.share),
            ("held_out_clips", self.clips),
            ("held_out_samples", self.most_samples),
        )
        return ", ".join([self.side, *(f"{name} {rule}" for name, rule in rules if rule is not None)])


def file_name_hash(path: str) -> int:
    """Return 64 bits of a path's file name: clips are held out from the lowest on."""
    name = path.rpartition("/")[2]
    return int.from_bytes(hashlib.sha256(_SALT + name.encode()).digest()[:8], "big")


def taken_clips(split: Split, paths: Iterable[str], sample_counts: npt.NDArray[np.int64]) -> BoolArray:
    """Return which clips are on the side that a split names.

    Args:
        split: One with a rule.
        paths: Of all clips, in their order.
        sample_counts: Samples of each.

    Raises:
        ConfigError: Where a side would be empty.
    """
    assert split.side != "all"
    num_clips = len(sample_counts)
    hashes = np.fromiter((file_name_hash(path) for path in paths), np.uint64, num_clips)
    held_out = hashes < _threshold(split, hashes) if split.share != 1 else np.ones(num_clips, np.bool_)
    num_held_out = int(held_out.sum())
    if num_held_out == 0:
        least = (int(hashes.min()) + 1) / _WHOLE if num_clips else 1.0
        raise ConfigError(
            f"held_out_share {split.share} holds out none of {num_clips} clips",
            f"hold out a larger share, such as {max(least, 1 / max(1, num_clips)):.2g}, or a number of clips",
        )
    if num_held_out == num_clips and split.share != 1:
        rule = f"held_out_share {split.share}" if split.clips is None else f"held_out_clips {split.clips}"
        raise ConfigError(
            f"{rule} holds out all of {num_clips} clips", "hold out fewer, so that some can be trained on"
        )
    if split.side == "training":
        return ~held_out
    return held_out if split.most_samples is None else _first(held_out, hashes, sample_counts, split.most_samples)


def _threshold(split: Split, hashes: npt.NDArray[np.uint64]) -> np.uint64:
    """Return the lowest hash that is not held out."""
    if split.share is not None:
        # Exact: a float times a power of two.
        return np.uint64(int(split.share * _WHOLE))
    assert split.clips is not None
    if split.clips >= len(hashes):
        return np.uint64(_WHOLE - 1)
    return np.uint64(min(int(np.sort(hashes)[split.clips - 1]) + 1, _WHOLE - 1))


def _first(
    held_out: BoolArray, hashes: npt.NDArray[np.uint64], sample_counts: npt.NDArray[np.int64], most_samples: int
) -> BoolArray:
    """Return the held-out clips of the lowest hashes that have at most so many samples together, one at least."""
    (clips,) = np.nonzero(held_out)
    order = clips[np.argsort(hashes[clips], kind="stable")]
    num_taken = max(1, int(np.searchsorted(np.cumsum(sample_counts[order]), most_samples, side="right")))
    taken = np.zeros_like(held_out)
    taken[order[:num_taken]] = True
    return taken
