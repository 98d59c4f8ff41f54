"""What a user may choose about the sample dataset."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from reelstream.errors import ConfigError
from reelstream.sampledata.barcode import LARGEST_NUMBER

Questions = Literal["motion", "all"]
"""What the rows are about: only the direction of motion, or shape, colour, count and motion mixed."""

Packing = Literal["tar.gz", "tar", "zip", "files"]
"""What holds the clips: archives of one of three kinds, or nothing: each clip is a file of its own."""

DEFAULT_SIZES = ((320, 240), (240, 320), (384, 216))
DEFAULT_NUM_ARCHIVES = 8
FASTEST_FPS = 15
# The flaws fall on clips of their own, in both subsets.
LEAST_CLIPS_WITH_FLAWS = 16

_REPO_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOptions:
    """The options of one sample dataset; the same options give the same bytes on the same machine.

    Raises:
        ConfigError: Where a value cannot work, with what can.
    """

    num_clips: int
    """Clips that the two training subsets refer to; the held-out ones come on top."""
    seed: int = 0
    """Of everything that is drawn by chance."""
    num_archives: int | None = None
    """Archives of the two training subsets together; `None` is 8, or one a clip where there are fewer clips.

    With loose files it still says how many clips fall to each of the two.
    """
    num_heldout: int | None = None
    """Clips of the held-out subset; `None` is a tenth of `num_clips`, at least 20; 0 is no such subset."""
    sizes: tuple[tuple[int, int], ...] = DEFAULT_SIZES
    """Width and height in pixels, dealt evenly to the clips."""
    questions: Questions = "all"
    """What the rows are about."""
    with_flaws: bool = False
    """Whether to plant what goes wrong in published datasets."""
    packing: Packing = "tar.gz"
    """What holds the clips; the clips and what is said of them are the same for each."""
    repo_id: str = "sample/llava-video-mini"
    """Names the folder `<organisation>/<name>`."""
    clip_bytes: int = 450_000
    """The mean size of a clip, reached within some percent; a clip's own size follows its duration."""
    min_duration_s: float = 5.0
    """Shortest clip."""
    max_duration_s: float = 30.0
    """Longest clip; short ones are more frequent."""

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_video()
        if self.questions not in {"motion", "all"}:
            raise ConfigError(f"questions is {self.questions!r}.", "Choose 'motion' or 'all'.")
        if self.packing not in get_args(Packing):
            raise ConfigError(f"packing is {self.packing!r}.", f"Choose one of {', '.join(get_args(Packing))}.")
        if self.packing == "files" and self.with_flaws:
            raise ConfigError(
                "Flaws cannot be planted among loose files: most of them are flaws of archives.",
                "Choose tar.gz, tar or zip, or leave the flaws out.",
            )
        if not _REPO_ID.fullmatch(self.repo_id):
            raise ConfigError(
                f"The repository id {self.repo_id!r} is not of the form organisation/name.",
                "Use letters, digits, '.', '_' and '-', such as sample/llava-video-mini.",
            )

    def _check_counts(self) -> None:
        least = LEAST_CLIPS_WITH_FLAWS if self.with_flaws else 2
        if self.num_clips < least:
            reason = "each flaw needs a clip of its own" if self.with_flaws else "there are two subsets"
            raise ConfigError(
                f"A sample dataset of {self.num_clips} clips cannot be made: {reason}.", f"Ask for {least} or more."
            )
        if self.seed < 0:
            raise ConfigError(f"The seed is {self.seed}.", "Choose 0 or a positive number.")
        if self.num_archives is not None and not 2 <= self.num_archives <= self.num_clips:
            raise ConfigError(
                f"{self.num_clips} clips cannot be put into {self.num_archives} archives.",
                f"Choose between 2 archives (one a subset) and {self.num_clips} (one a clip).",
            )
        if self.num_heldout is not None and self.num_heldout < 0:
            raise ConfigError(f"The number of held-out clips is {self.num_heldout}.", "Choose 0 or more.")

    def _check_video(self) -> None:
        if not self.sizes:
            raise ConfigError("No frame size is given.", "Give at least one, such as 320x240.")
        for width, height in self.sizes:
            if width % 2 or height % 2 or not (96 <= min(width, height) <= max(width, height) <= 1920):
                raise ConfigError(
                    f"The frame size {width}x{height} cannot be used.",
                    "Both sides must be even, and between 96 and 1920 pixels, such as 320x240.",
                )
            if max(width, height) > 2.5 * min(width, height):
                raise ConfigError(
                    f"The frame size {width}x{height} is too narrow for its frame number and a moving shape.",
                    "Keep the longer side at most 2.5 times the shorter one.",
                )
        # The frame number's twelve bits bound the duration.
        longest_s = LARGEST_NUMBER // FASTEST_FPS
        if not 0.5 <= self.min_duration_s <= self.max_duration_s <= longest_s:
            raise ConfigError(
                f"Clips of {self.min_duration_s} to {self.max_duration_s} s cannot be made.",
                f"Choose a least and a longest duration between 0.5 and {longest_s} s, in that order.",
            )
        if not 5_000 <= self.clip_bytes <= 100_000_000:
            raise ConfigError(
                f"Clips of {self.clip_bytes} bytes on average cannot be made.", "Choose between 5kB and 100MB."
            )

    @property
    def archives(self) -> int:
        """The number of archives, the default resolved."""
        return min(DEFAULT_NUM_ARCHIVES, self.num_clips) if self.num_archives is None else self.num_archives

    @property
    def heldout(self) -> int:
        """The number of held-out clips, the default resolved."""
        return max(20, self.num_clips // 10) if self.num_heldout is None else self.num_heldout

    def as_record(self) -> dict[str, Any]:
        """Return the options as plain JSON values, defaults resolved."""
        record = dataclasses.asdict(self) | {"num_archives": self.archives, "num_heldout": self.heldout}
        record["sizes"] = [f"{width}x{height}" for width, height in self.sizes]
        return record


def parse_size(text: str) -> tuple[int, int]:
    """Return the width and height that a text such as `320x240` names.

    Raises:
        ConfigError: Where it is not of that form.
    """
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None:
        raise ConfigError(f"{text!r} is not a frame size.", "Write width x height in pixels, such as 320x240.")
    return int(match[1]), int(match[2])
