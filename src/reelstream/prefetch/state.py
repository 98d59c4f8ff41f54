"""The state of an epoch: what the trainer has consumed, small enough to lie beside every checkpoint.

```json
{"version": 1, "catalog": "<fingerprint>", "seed": 0, "epoch": 2, "shuffle": true, "limit": null,
 "span_kind": "archive", "tail": "skip", "window_clips": 12, "window_bytes": 416666666, "turn": 3,
 "quotas": null, "lengths": [null, …], "seen": "<base64 of zlib of one bit a clip>", "books": {...},
 "lanes": [{"span": 0, "member": 37, "window": 5, "cursor": 11, "clips": 37, "slot": 281, "digest": "…",
            "repeats": []}, …]}
```

A lane's `span`, `member` and `window` say where its current window begins: the ordinal of the span among the lane's,
and the number of clips of that span before it. Together with the repository this is enough to go on.

A clip may lie in several archives. The visit that serves a sample of it first *owns* it; what others serve of it are
repeats. `seen` says which clips are owned, a lane's `repeats` which clips of its current window are owned elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import zlib
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from reelstream.errors import StateError
from reelstream.schedule import OrderDigest, combine_digests
from reelstream.types import SpanKind

STATE_VERSION = 1

Tail = Literal["skip"]
"""What happens when lanes end: `skip` passes over them."""

_CATALOG_HINT = "resume with the repository, revision, subsets and annotations it was saved with, or start anew"


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneState:
    """How far one lane is consumed."""

    span: int = 0
    """Ordinal, among the lane's spans, of the one in which the current window begins."""
    member: int = 0
    """Clips of that span before the current window."""
    window: int = 0
    """Number of the current window."""
    cursor: int = 0
    """Samples of the current window that are consumed or passed over."""
    clips: int = 0
    """Clips of the lane before the current window."""
    slot: int = 0
    """Samples of the lane that are consumed or passed over."""
    digest: str = OrderDigest().value
    repeats: tuple[int, ...] = ()
    """Places, in the current window, of clips that it has begun with and does not own: served as repeats, or bad."""


@dataclass(slots=True, kw_only=True)
class Books:
    """What became of an epoch's samples so far."""

    delivered: int = 0
    repeated: int = 0
    quarantined_clips: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Samples passed over, and why, by `subset/path`; without clips that another visit serves."""

    @property
    def quarantined(self) -> int:
        """Samples passed over."""
        return sum(num_samples for num_samples, _ in self.quarantined_clips.values())

    def copy(self) -> Books:
        """Return an independent copy."""
        return dataclasses.replace(self, quarantined_clips=dict(self.quarantined_clips))


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochSettings:
    """What is fixed when an epoch begins; a state of other settings is refused."""

    catalog: str
    """Fingerprint of the catalog."""
    seed: int
    epoch: int
    shuffle: bool
    limit: int | None
    span_kind: SpanKind
    tail: Tail
    num_lanes: int
    window_clips: int
    window_bytes: int


@dataclass(slots=True, kw_only=True)
class EpochState:
    """An epoch up to a consumed sample."""

    settings: EpochSettings
    lanes: list[LaneState]
    turn: int
    """Lane whose turn is next."""
    quotas: list[int] | None
    """Clips that each lane may give, where the epoch is limited."""
    lengths: list[int | None]
    """Clips of each lane that was known to have ended when the quotas were set, so that a resume need not read its last
    span again to learn it."""
    seen: npt.NDArray[np.bool_]
    """Whether each clip of the catalog has an owner: samples of it are delivered."""
    books: Books

    @classmethod
    def at_start(cls, settings: EpochSettings, num_clips: int, quotas: list[int] | None) -> EpochState:
        """Return the state before the first sample."""
        return cls(
            settings=settings,
            lanes=[LaneState() for _ in range(settings.num_lanes)],
            turn=0,
            quotas=quotas,
            lengths=[None] * settings.num_lanes,
            seen=np.zeros(num_clips, np.bool_),
            books=Books(),
        )

    @property
    def num_consumed(self) -> int:
        """Samples delivered so far, repeats included."""
        return self.books.delivered + self.books.repeated

    @property
    def order_digest(self) -> str:
        """Digest of the order of what is consumed."""
        return combine_digests(lane.digest for lane in self.lanes)

    def copy(self) -> EpochState:
        """Return an independent copy."""
        return dataclasses.replace(self, lanes=list(self.lanes), seen=self.seen.copy(), books=self.books.copy())

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        settings = dataclasses.asdict(self.settings)
        del settings["num_lanes"]
        return {
            "version": STATE_VERSION,
            **settings,
            "turn": self.turn,
            "quotas": self.quotas,
            "lengths": self.lengths,
            "seen": base64.b64encode(zlib.compress(np.packbits(self.seen).tobytes(), 9)).decode(),
            "books": dataclasses.asdict(self.books),
            "lanes": [dataclasses.asdict(lane) for lane in self.lanes],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any], num_clips: int) -> EpochState:
        """Return the state that `to_json` wrote.

        Raises:
            StateError: Where it is of another version, or damaged.
        """
        if values.get("version") != STATE_VERSION:
            raise StateError(
                f"the saved data state has version {values.get('version')!r}; this Reelstream reads {STATE_VERSION}",
                "resume with the Reelstream that saved it",
            )
        try:
            names = [entry.name for entry in dataclasses.fields(EpochSettings) if entry.name != "num_lanes"]
            settings = {name: values[name] for name in names}
            settings["span_kind"] = SpanKind(settings["span_kind"])
            bits = np.frombuffer(zlib.decompress(base64.b64decode(values["seen"])), np.uint8)
            state = cls(
                settings=EpochSettings(**settings, num_lanes=len(values["lanes"])),
                lanes=[LaneState(**{**lane, "repeats": tuple(lane["repeats"])}) for lane in values["lanes"]],
                turn=values["turn"],
                quotas=values["quotas"],
                lengths=values["lengths"],
                seen=np.unpackbits(bits, count=num_clips).astype(np.bool_),
                books=_books_from_json(values["books"]),
            )
            state._check_shape()
        except (KeyError, TypeError, ValueError, AttributeError, binascii.Error, zlib.error) as error:
            raise StateError(f"the saved data state is damaged: {error!r}", "resume from another checkpoint") from error
        return state

    def _check_shape(self) -> None:
        """Refuse what cannot be a state of any epoch.

        Raises:
            ValueError: With what is wrong.
        """
        num_lanes = self.settings.num_lanes
        if not 0 <= self.turn < num_lanes:
            raise ValueError(f"turn {self.turn} of {num_lanes} lanes")
        for name, numbers in (("quotas", self.quotas or self.lengths), ("lengths", self.lengths)):
            if len(numbers) != num_lanes:
                raise ValueError(f"{len(numbers)} {name} of {num_lanes} lanes")
        for number, lane in enumerate(self.lanes):
            OrderDigest(lane.digest)
            if min(lane.span, lane.member, lane.window, lane.cursor, lane.clips, lane.slot) < 0:
                raise ValueError(f"lane {number} stands before its beginning")

    def check(self, settings: EpochSettings) -> None:
        """Refuse to go on under other settings, naming the first that differs.

        Raises:
            StateError: Where a setting differs.
        """
        for entry in dataclasses.fields(EpochSettings):
            saved, now = getattr(self.settings, entry.name), getattr(settings, entry.name)
            if saved != now:
                hint = (
                    _CATALOG_HINT if entry.name == "catalog" else f"resume with {entry.name} = {saved}, or start anew"
                )
                raise StateError(f"the saved data state has {entry.name} = {saved}, this run has {now}", hint)


def _books_from_json(values: dict[str, Any]) -> Books:
    clips = {
        name: (int(num_samples), str(reason)) for name, (num_samples, reason) in values["quarantined_clips"].items()
    }
    return Books(delivered=values["delivered"], repeated=values["repeated"], quarantined_clips=clips)
