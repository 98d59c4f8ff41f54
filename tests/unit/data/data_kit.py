"""What the tests of the dataset's faces share."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelstream.data import Sample
from reelstream.sampledata.record import SampleSummary
from reelstream.telemetry import events


@dataclass(frozen=True)
class Served:
    """A sample dataset on a hub."""

    endpoint: str
    summary: SampleSummary

    @property
    def repo_id(self) -> str:
        """Its name."""
        return self.summary.repo_id

    @property
    def subsets(self) -> list[str]:
        """Those to train on."""
        return [subset.name for subset in self.summary.subsets if not subset.heldout]

    @property
    def held_out(self) -> str:
        """The other one."""
        return next(subset.name for subset in self.summary.subsets if subset.heldout)


def key(sample: Sample) -> tuple[Any, ...]:
    """What tells a sample from all others."""
    return sample["position"], sample["subset"], sample["clip"], str(sample["conversations"])


def keys(samples: Iterable[Sample]) -> list[tuple[Any, ...]]:
    """Of samples, in their order."""
    return [key(sample) for sample in samples]


def contents(samples: Iterable[Sample]) -> list[tuple[Any, ...]]:
    """Of samples without their places, sorted."""
    return sorted(key(sample)[1:] for sample in samples)


def assert_nothing_runs(cache_dir: Path) -> None:
    """Make sure that no thread and no clip is left."""
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("reelstream-")] == []
    assert not (cache_dir / "runs").exists()


def is_balanced(booked: events.EpochBooked) -> bool:
    """Whether each sample of the catalog is accounted for."""
    parts = booked.num_delivered + booked.num_quarantined + booked.num_without_media + sum(booked.left_out.values())
    return booked.num_catalog == parts
