"""The state of an epoch: what the trainer has consumed, small enough to lie beside every checkpoint.

```json
{"version": 2, "catalog": "<fingerprint>", "seed": 0, "epoch": 2, "shuffle": true, "limit": null, "split": "all",
 "spans": {"kind": "cut", "cut_bytes": 25000000, "block_bytes": null, "parts": 1, "part_of": {},
           "part_rule": "bytes", "known": null, "entry_rule": 1},
 "tail": "skip", "window_clips": 12, "window_bytes": 416666666, "turn": 3,
 "quotas": null, "lengths": [null, …], "seen": "<base64 of zlib of one bit a clip>", "books": {...},
 "reports": {"<archive>": [<CutReport>, …]},
 "lanes": [{"span": 0, "member": 37, "window": 5, "cursor": 11, "clips": 37, "slot": 281, "digest": "…",
            "repeats": [], "mark": {"clips": 36, "bookmark": {...}}}, …]}
```

A lane's `span`, `member` and `window` say where its current window begins: the ordinal of the span among the lane's,
and the number of clips of that span before it. Its `mark` is a place in that span, at or before the window, where a
reader can begin who has nothing but this state and the repository; without one it begins where the span does.
`reports` hold the checksums of the pieces read so far: an archive is verified whoever read them, and when.

A clip may lie in several archives. The visit that serves a sample of it first *owns* it; what others serve of it are
repeats. `seen` says which clips are owned, a lane's `repeats` which clips of its current window are owned elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from reelstream.archive.cuts.bookmark import Bookmark
from reelstream.archive.cuts.entry import ENTRY_RULE_VERSION
from reelstream.archive.cuts.report import CutReport
from reelstream.errors import ArchiveError, StateError
from reelstream.schedule import OrderDigest, RankShare, combine_digests
from reelstream.types import SpanKind

STATE_VERSION = 3

Tail = Literal["skip", "repeat", "drop"]
"""What happens when lanes end: `skip` passes over them, `repeat` has them serve their last window again until all have
ended, `drop` ends the epoch with the shortest one."""

_DAMAGED = (KeyError, TypeError, ValueError, AttributeError, binascii.Error, zlib.error)
_CATALOG_HINT = "resume with the repository, revision, subsets and annotations it was saved with, or start anew"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanSettings:
    """Which spans an epoch has; fixed when it begins."""

    kind: SpanKind
    """How the spans of this epoch are bounded."""
    cut_bytes: int | None = None
    """Compressed bytes of a cut, where nothing is known of the archives; None reads them whole."""
    block_bytes: int | None = None
    """Unpacked bytes of a block of several members; None where the spans are no blocks."""
    parts: int = 1
    """Into how many parts each subset is divided."""
    part_of: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Which parts of a subset the epoch takes, from 0; all of those that are not named."""
    part_rule: Literal["bytes", "members"] = "bytes"
    """Whether subsets are divided by their archives' bytes, or by the members that an index names."""
    known: str | None = None
    """A digest of all the blocks' members; None where the spans are no blocks."""
    entry_rule: int = ENTRY_RULE_VERSION
    """By which rule cuts are entered."""

    def share_of(self, subset: str) -> float:
        """Return about how much of a subset the epoch takes, from 0 to 1."""
        parts = self.part_of.get(subset)
        return 1.0 if parts is None else len(parts) / self.parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A place in a lane's span where a reader can begin."""

    clips: int
    """Clips of the span before it."""
    bookmark: Bookmark

    def to_json(self) -> dict[str, Any]:
        """Return the mark as JSON values."""
        return {"clips": self.clips, "bookmark": self.bookmark.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Mark:
        """Return the mark that `to_json` wrote; raises what damaged values make it raise."""
        return cls(clips=int(values["clips"]), bookmark=Bookmark.from_json(values["bookmark"]))


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
    mark: Mark | None = None
    """Where in its span to begin reading; None for the span's own beginning."""

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        return {**values, "repeats": list(self.repeats), "mark": self.mark and self.mark.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> LaneState:
        """Return the state that `to_json` wrote; raises what damaged values make it raise."""
        mark = values["mark"]
        return cls(
            **{**values, "repeats": tuple(values["repeats"]), "mark": mark if mark is None else Mark.from_json(mark)}
        )


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
    split: str = "all"
    """Which side of which split of the clips; see `Split`."""
    spans: SpanSettings
    tail: Tail
    num_lanes: int
    window_clips: int
    window_bytes: int


@dataclass(slots=True, kw_only=True)
class EpochState:
    """An epoch up to a consumed sample: all of it, or one rank's lanes; see `shares` for the way between the two."""

    settings: EpochSettings
    share: RankShare
    """Whose lanes count; the others are as they were when the rank began."""
    num_consumed: int
    """Samples of the epoch that are consumed in these lanes, repeats included."""
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
    reports: dict[str, list[CutReport]] = field(default_factory=dict)
    """What the readers of spans found that are read to their end, by archive."""

    @classmethod
    def at_start(cls, settings: EpochSettings, num_clips: int, quotas: list[int] | None) -> EpochState:
        """Return the state before the first sample."""
        return cls(
            settings=settings,
            share=RankShare(),
            num_consumed=0,
            lanes=[LaneState() for _ in range(settings.num_lanes)],
            turn=0,
            quotas=quotas,
            lengths=[None] * settings.num_lanes,
            seen=np.zeros(num_clips, np.bool_),
            books=Books(),
        )

    @property
    def order_digest(self) -> str:
        """Digest of the order of what is consumed."""
        return combine_digests(lane.digest for lane in self.lanes)

    def copy(self) -> EpochState:
        """Return an independent copy."""
        return dataclasses.replace(
            self,
            lanes=list(self.lanes),
            seen=self.seen.copy(),
            books=self.books.copy(),
            reports={path: list(reports) for path, reports in self.reports.items()},
        )

    def add_report(self, path: str, report: CutReport) -> None:
        """Note what the reader of a span found; one of the same cut is replaced."""
        others = [other for other in self.reports.get(path, []) if other.first_byte != report.first_byte]
        self.reports[path] = [*others, report]

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        settings = dataclasses.asdict(self.settings)
        # A plain string: what is pickled beside weights must load where classes are refused.
        settings["spans"]["kind"] = self.settings.spans.kind.value
        del settings["num_lanes"]
        return {
            "version": STATE_VERSION,
            **settings,
            "share": dataclasses.asdict(self.share),
            "num_consumed": self.num_consumed,
            "turn": self.turn,
            "quotas": self.quotas,
            "lengths": self.lengths,
            "seen": base64.b64encode(zlib.compress(np.packbits(self.seen).tobytes(), 9)).decode(),
            "books": dataclasses.asdict(self.books),
            "reports": {path: [report.to_json() for report in reports] for path, reports in self.reports.items()},
            "lanes": [lane.to_json() for lane in self.lanes],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any], num_clips: int | None = None) -> EpochState:
        """Return the state that `to_json` wrote.

        Args:
            values: What it wrote.
            num_clips: Of the catalog; None where nobody asks about single ones.

        Raises:
            StateError: Where it is of another version, or damaged.
        """
        version = values.get("version") if isinstance(values, dict) else None
        if version != STATE_VERSION:
            raise StateError(
                f"the saved data state has version {version!r}; this Reelstream reads {STATE_VERSION}",
                "resume with the Reelstream that saved it",
            )
        try:
            names = [entry.name for entry in dataclasses.fields(EpochSettings) if entry.name != "num_lanes"]
            settings = {name: values[name] for name in names}
            spans = settings["spans"]
            part_of = {subset: tuple(parts) for subset, parts in spans["part_of"].items()}
            settings["spans"] = SpanSettings(**{**spans, "kind": SpanKind(spans["kind"]), "part_of": part_of})
            bits = np.frombuffer(zlib.decompress(base64.b64decode(values["seen"])), np.uint8)
            state = cls(
                settings=EpochSettings(**settings, num_lanes=len(values["lanes"])),
                share=RankShare(**values["share"]),
                num_consumed=int(values["num_consumed"]),
                lanes=[LaneState.from_json(lane) for lane in values["lanes"]],
                turn=values["turn"],
                quotas=values["quotas"],
                lengths=values["lengths"],
                seen=np.unpackbits(bits, count=num_clips).astype(np.bool_),
                books=_books_from_json(values["books"]),
                reports={
                    path: [CutReport.from_json(report) for report in reports]
                    for path, reports in values["reports"].items()
                },
            )
            state._check_shape()
        except (*_DAMAGED, ArchiveError) as error:
            raise StateError(f"the saved data state is damaged: {error!r}", "resume from another checkpoint") from error
        return state

    def _check_shape(self) -> None:
        """Refuse what cannot be a state of any epoch.

        Raises:
            ValueError: With what is wrong.
        """
        num_lanes = self.settings.num_lanes
        if num_lanes % self.share.world_size or self.num_consumed < 0:
            raise ValueError(
                f"{self.num_consumed} samples of {num_lanes} lanes that {self.share.world_size} ranks share"
            )
        if self.turn not in self.share.lanes(num_lanes):
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
