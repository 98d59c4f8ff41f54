"""Where epochs begin: what is fixed then, chosen by what is known; and which saved states may be gone on with."""

from __future__ import annotations

import dataclasses

from reelstream.archive.cuts.entry import ENTRY_RULE_VERSION
from reelstream.catalog import Catalog
from reelstream.errors import ConfigError, StateError
from reelstream.prefetch.options import StreamOptions
from reelstream.prefetch.shares import share_of
from reelstream.prefetch.spans import SpanPlanner
from reelstream.prefetch.state import EpochSettings, EpochState, Tail
from reelstream.schedule import RankShare, WindowLimits, lane_quotas
from reelstream.types import SpanKind


def refuse_tail(tail: str, share: RankShare) -> None:
    """Refuse what these ranks cannot do when lanes end; each of them by itself, before it waits for another one.

    Raises:
        ConfigError: Where lanes would be passed over on several ranks.
    """
    if tail == "skip" and not share.is_whole:
        raise ConfigError(
            f"tail is skip, and {share.world_size} ranks would not take the same number of steps",
            "set tail to repeat, drop or auto",
        )


class EpochStarts:
    """Chooses what epochs are fixed to. Not thread-safe.

    Args:
        options: What was asked for.
        catalog: All clips.
        planner: Chooses the spans.
        share: This rank's part of the lanes.
    """

    def __init__(self, options: StreamOptions, catalog: Catalog, planner: SpanPlanner, share: RankShare) -> None:
        self._options = options
        self._catalog = catalog
        self._planner = planner
        self._share = share
        self.before: EpochSettings | None = None
        """Of the epoch of this run that began last."""

    def begun(self, settings: EpochSettings) -> None:
        """An epoch begins, or goes on: those after it keep what shall not change within a run."""
        self.before, self._planner.lanes_before = settings, settings.num_lanes

    def choose(self, epoch: int, clip_budget_bytes: int) -> EpochState:
        """Return the state before the first sample of an epoch, of all ranks.

        Raises:
            ConfigError: Where the options cannot work together.
        """
        options = self._options
        spans = self._planner.choose(epoch, None if self.before is None else self.before.spans)
        num_lanes = self._planner.num_lanes(spans)
        limits = WindowLimits.of(
            cache_size=options.cache_size, num_lanes=num_lanes, clip_budget_bytes=clip_budget_bytes
        )
        settings = EpochSettings(
            catalog=self._catalog.fingerprint,
            seed=options.seed,
            epoch=epoch,
            shuffle=options.shuffle,
            limit=options.limit,
            split=str(options.clip_split),
            spans=spans,
            tail=self._tail(),
            num_lanes=num_lanes,
            window_clips=limits.clips,
            window_bytes=limits.size_bytes,
        )
        state = EpochState.at_start(settings, self._catalog.num_clips, None)
        if options.limit is not None:
            if spans.kind is SpanKind.BLOCK:
                lanes = self._planner.plan(settings).lanes
                state.lengths = [sum(len(span.clips) for span in lane) for lane in lanes]
            lengths = {lane: length for lane, length in enumerate(state.lengths) if length is not None}
            state.quotas = lane_quotas(options.limit, num_lanes, lengths)
        return state

    def _tail(self) -> Tail:
        tail = self._options.tail
        if tail == "auto":
            # A run that was begun on several ranks takes the same batches on one.
            by_number: Tail = "skip" if self._share.is_whole else "repeat"
            before = None if self.before is None else self.before.tail
            return before if before is not None and before != "skip" else by_number
        return tail

    def check(self, state: EpochState) -> None:
        """Refuse a saved state that is not of this dataset and seed, or that these ranks cannot go on from.

        What was fixed when its epoch began (spans, lanes, windows) is the state's own, and may differ from the options.

        Raises:
            StateError: Where it differs in what must agree.
        """
        saved = state.settings
        if saved.spans.kind is SpanKind.CUT and saved.spans.entry_rule != ENTRY_RULE_VERSION:
            raise StateError(
                f"the saved data state enters archives by rule {saved.spans.entry_rule}, this Reelstream by "
                f"{ENTRY_RULE_VERSION}",
                "resume with the Reelstream that saved it",
            )
        options = self._options
        now = dataclasses.replace(
            saved,
            catalog=self._catalog.fingerprint,
            seed=options.seed,
            shuffle=options.shuffle,
            limit=options.limit,
            split=str(options.clip_split),
        )
        state.check(now)
        share_of(state, self._share)
