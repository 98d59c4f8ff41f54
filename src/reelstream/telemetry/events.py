"""Events: frozen values, one class for each thing that can happen.

`Telemetry.emit` stamps them with the time; the name in a JSON line is the class name in snake case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stage = Literal["download", "decode", "collate", "ranks"]
"""What a consumer waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A run begins, or goes on after a resume; the first event of its process: wall time counts from here."""

    resumed_at_step: int | None = None
    """The checkpoint it goes on from; None where it begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """The run's last event: it has reached its end, or was called off in good order."""

    interrupted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochStarted(Event):
    """An epoch begins, or goes on after a resume."""

    epoch: int
    num_spans: int
    num_lanes: int
    resumed_at: int
    """Samples of the epoch that were consumed before this run."""
    needed_bytes: int = 0
    """Compressed bytes that the epoch must fetch, from its first sample to its last: the spans that are not at hand;
    0 where that cannot be known beforehand."""
    span_kind: str = "archive"
    """How its spans are bounded: `archive`, `cut` or `block`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochFinished(Event):
    """All lanes have ended."""

    epoch: int
    num_samples: int
    order_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochBooked(Event):
    """The samples of an epoch, each counted once and with its reason; when it ends, or the run ends inside it.

    A later booking of the same epoch replaces an earlier one. The books balance when `num_catalog` is the sum of
    delivered, quarantined, without media, and all that was left out.
    """

    epoch: int
    num_catalog: int
    """Samples of the chosen subsets and annotations."""
    num_delivered: int
    """Different samples that finished steps consumed since the epoch began, those before a resume included."""
    num_repeated: int
    """Samples that were delivered once more; not part of the balance."""
    num_quarantined: int
    """Samples of quarantined clips that were passed over."""
    num_without_media: int
    """Samples whose clip no archive holds."""
    left_out: dict[str, int]
    """Samples by reason: `limit`, `other_parts` (or in no archive: that is known only once all parts were read),
    `tail`, `held_out`, `not_seen` (the run ended first)."""
    order_digest: str
    """What was consumed in which order, so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressResolved(Event):
    """The Hub named the signed address of a file."""

    path: str
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeFinished(Event):
    """A ranged read ended, whole or broken."""

    path: str
    first_byte: int
    received_bytes: int
    wait_s: float
    """Seconds from the request to its last byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(Event):
    """A request failed in passing and is made again."""

    path: str
    reason: str
    attempt: int
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanFinished(Event):
    """A lane has read a span to its end."""

    lane: int
    path: str
    num_clips: int
    num_unreferenced: int
    """Members that no sample refers to, of this side of a split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipArrived(Event):
    """A clip is whole on disk."""

    lane: int
    subset: str
    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipReused(Event):
    """A clip was on disk already, kept from an epoch or a run before, and is not fetched."""

    lane: int
    subset: str
    path: str
    size_bytes: int
    saved_bytes: int
    """Compressed bytes that would have been fetched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipsKept(Event):
    """An epoch is over, or broken off: what stays on disk for the epochs to come."""

    num_clips: int
    size_bytes: int
    """As the file system allocates it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipDecoded(Event):
    """What samples hold of a clip is in memory; of one that they hold by its path, the word that it is good."""

    subset: str
    path: str
    num_frames: int
    cpu_s: float
    again: bool
    """Whether this clip had been decoded before in this visit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipDeleted(Event):
    """A clip's file is gone after its last use."""

    subset: str
    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipQuarantined(Event):
    """A clip cannot be used; its samples are passed over."""

    subset: str
    path: str
    num_samples: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveSuspect(Event):
    """An archive failed a check that only its end allows; what it delivered may be wrong."""

    path: str
    reason: str
    clips: tuple[str, ...] = ()
    """`subset/path` of the suspect clips, as far as this process has met them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled(Event):
    """The consumer waited for data."""

    stage: Stage
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReady(Event):
    """The first batch of a run is complete."""

    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished(Event):
    """The trainer made an optimizer step."""

    step: int
    epoch: int
    loss: float
    learning_rate: float
    num_samples: int
    data_wait_s: float
    """Seconds the step waited for its batches."""
    train_s: float
    """Seconds of forward, backward and update."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved(Event):
    """Weights and data state are durable."""

    step: int
    size_bytes: int
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointPushed(Event):
    """A checkpoint is whole at the place that `remote.push` names."""

    step: int
    size_bytes: int
    """Of the checkpoint and what lies beside it."""
    wait_s: float
    """Seconds in the background; training goes on meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushFailed(Event):
    """A push failed; it is made again, with a newer checkpoint where there is one by then."""

    step: int
    reason: str
    attempt: int
    """How many failed in a row."""
    wait_s: float
    """Seconds until the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated(Event):
    """Held-out samples were scored."""

    step: int
    loss: float | None = None
    """Mean over the tokens of held-out samples that would be trained on; None where there was none."""
    num_samples: int = 0
    """Samples that the loss is of."""
    accuracy: float
    """Share of multiple-choice questions answered right; 0 where there was none."""
    chance: float
    """What guessing gives."""
    num_questions: int
    received_bytes: int = 0
    """Bytes that came from the network for it; in no other figure."""
    wait_s: float = 0.0
    """Seconds that it took, in which nothing was trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut(Event):
    """What is held out from training, and the share of it that evaluations take."""

    num_clips: int
    """Held out."""
    num_samples: int
    """Held out."""
    num_evaluated_clips: int
    num_evaluated_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak(Event):
    """A clip that is trained on has the very bytes of one that is held out, under another name."""

    clip: str
    """`subset/path` of the one that is trained on."""
    held_out: str
    """`subset/path` of the one that is held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Event):
    """Something that a person should read."""

    message: str
