"""The figures of a run of several ranks, as one: each rank counts what it fetched and decoded, the report tells all."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from reelstream.ranks import RankPlace
from reelstream.telemetry.totals import MOST_LISTED, Spent, Totals

_HIGH_WATER, _NODE = "disk_high_water_bytes", "node"

# What ranks do side by side, each its share.
_ADDED = (
    "received_bytes",
    "saved_bytes",
    "ranges",
    "resolves",
    "retries",
    "retry_wait_s",
    "clips_arrived",
    "clip_bytes",
    "clips_deleted",
    "clips_reused",
    "kept_clips",
    "kept_bytes",
    "clips_decoded",
    "clips_decoded_again",
    "decode_cpu_s",
)
_ADDED_BY_EPOCH = ("received_bytes_by_epoch", "saved_bytes_by_epoch")


def figures_of(totals: Totals, *, high_water_bytes: int, place: RankPlace) -> dict[str, Any]:
    """Return a rank's figures as a JSON value, which `merged_figures` and `Totals.from_json` take.

    Args:
        totals: What it counted.
        high_water_bytes: The most that it had on disk.
        place: Of the rank.
    """
    return {**totals.to_json(), _HIGH_WATER: high_water_bytes, _NODE: place.rank - place.local_rank}


def high_water_of(figures: Mapping[str, Any] | None) -> int:
    """Return the most bytes that were on disk, by saved figures; 0 where there are none."""
    return 0 if figures is None else int(figures.get(_HIGH_WATER, 0))


def with_high_water(figures: Mapping[str, Any], earlier_bytes: int) -> dict[str, Any]:
    """Return figures with the most bytes that were on disk before a resume, where that was more."""
    return {**figures, _HIGH_WATER: max(high_water_of(figures), earlier_bytes)}


def merged_figures(figures: Sequence[dict[str, Any]], *, begun_before: Collection[int] = ()) -> dict[str, Any]:
    """Return the figures of all ranks as one rank's.

    Steps, losses and books are the first rank's, which are those of all. Bytes, requests, clips and seconds of decoding
    are added. Seconds in which ranks waited or read are not, since they pass side by side: of reading the longest
    counts, of all else the first rank's. On disk was at most what the ranks of one node had together.

    Args:
        figures: Of each rank, by rank; the first one's hold what all ranks had counted before a resume.
        begun_before: Epochs that had begun before it: what those need is known of all ranks.
    """
    first = figures[0]
    if len(figures) == 1:
        return first
    spent = _merged_spent([Spent(**each["spent"]) for each in figures])
    nodes: dict[int, int] = {}
    for each in figures:
        nodes[each[_NODE]] = nodes.get(each[_NODE], 0) + each[_HIGH_WATER]
    known = {str(epoch) for epoch in begun_before}
    needed = [_by_text(each["consumed"]["needed_bytes"]) for each in figures]
    others = [{epoch: number for epoch, number in each.items() if epoch not in known} for each in needed[1:]]
    consumed = {**first["consumed"], "needed_bytes": _added([needed[0], *others])}
    return {**first, "consumed": consumed, "spent": dataclasses.asdict(spent), _HIGH_WATER: max(nodes.values())}


def _by_text(by_epoch: Mapping[Any, int]) -> dict[str, int]:
    """Return numbers by epoch as JSON has them: what has not travelled still has numbers for keys."""
    return {str(epoch): number for epoch, number in by_epoch.items()}


def _merged_spent(ranks: Sequence[Spent]) -> Spent:
    merged = {name: sum(getattr(rank, name) for rank in ranks) for name in _ADDED}
    merged |= {name: _added(getattr(rank, name) for rank in ranks) for name in _ADDED_BY_EPOCH}
    merged["reading_s"] = max(rank.reading_s for rank in ranks)
    # A clip at the border of two cuts may be met by two ranks.
    merged["quarantined"] = _united(rank.quarantined for rank in ranks)
    merged["num_quarantined"] = _num_united(merged["quarantined"], [rank.num_quarantined for rank in ranks])
    merged["suspect"] = _united(rank.suspect for rank in ranks)
    merged["num_suspect"] = _num_united(merged["suspect"], [rank.num_suspect for rank in ranks])
    suspect_clips = list(dict.fromkeys(clip for rank in ranks for clip in rank.suspect_clips))
    merged["num_suspect_clips"] = _num_united(suspect_clips, [rank.num_suspect_clips for rank in ranks])
    merged["suspect_clips"] = suspect_clips[:MOST_LISTED]
    return dataclasses.replace(ranks[0], **merged)


def _added(by_epoch: Iterable[Mapping[str, int]]) -> dict[str, int]:
    added: dict[str, int] = {}
    for each in by_epoch:
        for epoch, number in each.items():
            added[epoch] = added.get(epoch, 0) + number
    return added


def _united(named: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    united: dict[str, Any] = {}
    for each in named:
        united |= {name: value for name, value in each.items() if name not in united}
    return dict(list(united.items())[:MOST_LISTED])


def _num_united(named: Sequence[str] | Mapping[str, Any], counted: Sequence[int]) -> int:
    """Return how many there are: by name as long as all are named, else as counted."""
    return len(named) if len(named) < MOST_LISTED else max(len(named), sum(counted))
