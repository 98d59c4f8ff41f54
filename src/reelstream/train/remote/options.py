"""What a user can set about copies of a run's checkpoints elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from reelstream.errors import ConfigError
from reelstream.train.remote.place import parse_place
from reelstream.units import Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteOptions:
    """Where checkpoints are copied to, so that a run outlives its machine."""

    push: str | None = None
    """A model repository (`owner/name`, or `hf://owner/name/folder`) or a mounted folder (`/…`, `./…`, `~/…`) that
    durable checkpoints are copied to; None copies none."""
    pull: str | None = None
    """Where a resume on an empty machine finds the newest whole checkpoint; None looks where `push` says."""
    every: Seconds = 0.0
    """Least seconds between the beginnings of two pushes, such as `30min`. The last checkpoint is pushed anyway."""
    every_checkpoints: int = 1
    """Push each n-th checkpoint only. The last one is pushed anyway."""
    keep: int = 1
    """Checkpoints that stay there; older ones are deleted with the push that makes them superfluous."""
    private: bool = True
    """Whether a repository that is made by a push is private."""
    endpoint: str | None = None
    """Address of the Hub; None takes `data.endpoint`, else `HF_ENDPOINT`, or else the public one."""
    wait: Seconds = 900.0
    """Most seconds for which the end of a run waits for its last push; `train.max_time` may leave less."""

    def __post_init__(self) -> None:
        for name in ("every_checkpoints", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"remote.{name} must be at least 1, not {getattr(self, name)}")
        for name in ("push", "pull"):
            text = getattr(self, name)
            if text is not None:
                parse_place(text, f"remote.{name}")

    @property
    def source(self) -> str | None:
        """Where a resume looks; None where nowhere."""
        return self.pull if self.pull is not None else self.push
