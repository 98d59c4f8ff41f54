"""What a configuration file says: one dataclass a section."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from reelstream.errors import ConfigError
from reelstream.prefetch.options import StreamOptions
from reelstream.train.options import CheckpointOptions, EvaluationOptions, ModelOptions, TrainOptions, saved_weights
from reelstream.train.remote.options import RemoteOptions
from reelstream.train.remote.place import FolderPlace, parse_place
from reelstream.units import ByteRate, ByteSize, Seconds

_LARGE_BUDGET_BYTES = 10**9
# A step and its clips are about 2 kB of events.
_LOG_BYTES, _SMALL_LOG_BYTES = 50_000_000, 3_000_000


@dataclass(frozen=True, kw_only=True)
class LocalHubOptions:
    """A Hub on loopback that serves a folder of repositories for the time of the run."""

    root: Path
    """Folder of repositories, as `reelstream serve` takes it."""
    bandwidth: ByteRate | None = None
    """Bytes per second over all connections, such as `10MB/s`; None does not limit them."""
    latency: Seconds = 0.0
    """Seconds before each answer, such as `50ms`."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """A training run."""

    run_dir: Path
    """Folder of the run: checkpoints, events, report. Its bytes count in the disk budget."""
    data: StreamOptions
    """What is streamed."""
    streaming_mode: bool = True
    """Stream through a small window on disk; false downloads all archives before the first step, as `data` has it."""
    model: ModelOptions = field(default_factory=ModelOptions)
    """What is trained."""
    train: TrainOptions = field(default_factory=TrainOptions)
    """How."""
    checkpoints: CheckpointOptions = field(default_factory=CheckpointOptions)
    """When it is saved."""
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    """What it is asked about held-out clips."""
    remote: RemoteOptions = field(default_factory=RemoteOptions)
    """Where checkpoints are copied to, and fetched from on an empty machine."""
    local_hub: LocalHubOptions | None = None
    """Serve a folder on loopback and stream from there; None streams from the Hub."""
    log_budget: ByteSize | None = None
    """The most bytes of the event log; None takes 50 MB where the disk budget is 1 GB or more, else 3 MB."""

    def __post_init__(self) -> None:
        if not self.streaming_mode:
            # Written at the top, where people look for it; the stream's own is what counts.
            object.__setattr__(self, "data", dataclasses.replace(self.data, streaming_mode=False))
        if self.data.media != "frames":
            raise ConfigError(
                f"data.media is {self.data.media}, and the models that `reelstream train` knows take frames",
                "leave data.media out; bytes and paths are for training loops of your own",
            )
        if self.evaluation.subset is not None and self.evaluation.subset in self.data.subsets:
            raise ConfigError(
                f"evaluation.subset {self.evaluation.subset} is trained on as well",
                "take it out of data.subsets: what was trained on says nothing about what was learned",
            )
        if self.evaluation.holds_out and self.data.split != "all":
            raise ConfigError(
                "evaluation.share or evaluation.clips is set, and data.split as well",
                "leave data.split out: what evaluation holds out is not trained on",
            )
        saved_weights(self.model, self.checkpoints)
        if self.local_hub is not None and self.data.endpoint is not None:
            raise ConfigError("local_hub and data.endpoint are both set", "set one of them")
        self._refuse_push_into_the_budget()

    def _refuse_push_into_the_budget(self) -> None:
        place = None if self.remote.push is None else parse_place(self.remote.push, "remote.push")
        if not isinstance(place, FolderPlace):
            return
        for name, folder in (("run_dir", self.run_dir), ("data.cache_dir", self.data.cache_dir)):
            if place.path.absolute().is_relative_to(folder.absolute()):
                raise ConfigError(
                    f"remote.push {self.remote.push} lies in {name}, where only what the disk budget counts may lie",
                    "push to a folder elsewhere, best on another disk: what is lost with this one can be had there",
                )

    @property
    def training_data(self) -> StreamOptions:
        """What is trained on: `data` without what the evaluation holds out."""
        if not self.evaluation.holds_out:
            return self.data
        return dataclasses.replace(
            self.data,
            split="training",
            held_out_share=self.evaluation.share,
            held_out_clips=self.evaluation.clips,
        )

    @property
    def log_limit_bytes(self) -> int:
        """Bytes that the event log may take."""
        if self.log_budget is not None:
            return self.log_budget
        # Not a share of the budget: a larger budget that an error names would have to be larger once more.
        return _LOG_BYTES if self.data.disk_budget >= _LARGE_BUDGET_BYTES else _SMALL_LOG_BYTES
