"""RUN/report.json: what a run streamed, what it cost, and what bounds it. Drawn in docs/reference/report.md."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reelstream.durable import force_to_disk
from reelstream.errors import DiskError
from reelstream.telemetry.evaluation import evaluation_lines, evaluation_report
from reelstream.telemetry.events import EpochBooked
from reelstream.telemetry.totals import Consumed, Spent, Totals
from reelstream.units import count, format_bytes, format_rate, format_seconds

REPORT_VERSION = 1

MOST_QUARANTINED = 100
"""Quarantined clips, and suspect archives, that the report names; their number is always whole."""

Bound = Literal["network", "decode", "training"]
"""What bounds a run."""


_MOST_EPOCH_LINES = 8
_SPAN_WORDS = {None: "spans of an unknown kind", "archive": "whole archives", "cut": "cuts", "block": "blocks"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The least time that each resource needs for the run's work, if it never waited for another."""

    network_s: float
    """Bytes needed / bandwidth seen while reading."""
    decode_s: float
    """CPU seconds of decoding / cores."""
    training_s: float
    """Seconds of forward, backward and update."""

    @property
    def seconds(self) -> float:
        """The least time of the run: the resources work side by side."""
        return max(self.network_s, self.decode_s, self.training_s)

    @property
    def bound(self) -> Bound:
        """Which of them it is; training where they are equal, since then nothing waits."""
        if self.training_s >= self.seconds:
            return "training"
        return "network" if self.network_s >= self.decode_s else "decode"


def floor_of(consumed: Consumed, spent: Spent, *, num_cores: int) -> Floor:
    """Return the floor of a run: `max(bytes / bandwidth, decode / cores, steps x step time)`.

    Bytes are those needed, but no more than were received, since a run may end within an epoch; the bandwidth is
    received bytes / seconds in which at least one range was being read, pauses for want of room left out.
    """
    needed_bytes = sum(consumed.needed_bytes.values()) or spent.received_bytes
    share = min(1.0, needed_bytes / spent.received_bytes) if spent.received_bytes else 0.0
    return Floor(
        network_s=share * spent.reading_s,
        decode_s=spent.decode_cpu_s / num_cores,
        training_s=spent.train_s,
    )


def verdict(floor: Floor, consumed: Consumed, spent: Spent) -> tuple[Bound, str]:
    """Return what bounds the run, and a sentence with the figure that shows it.

    The bound is the resource with the highest floor (`floor_of`): the one to have more of. The share of time that the
    trainer waited tells how much it matters.
    """
    waited = f"the trainer waited {_share(spent.stall_s, spent.wall_s)} of the time"
    match floor.bound:
        case "network":
            rate = spent.received_bytes / spent.reading_s if spent.reading_s else 0.0
            return "network", f"network-bound: {format_rate(rate)} received; {waited}"
        case "decode":
            clip_s = spent.decode_cpu_s / max(1, spent.clips_decoded)
            return "decode", f"decode-bound: {format_seconds(clip_s)} of CPU a clip; {waited}"
        case "training":
            step_s = spent.train_s / max(1, consumed.steps)
            return "training", f"training-bound: {format_seconds(step_s)} a step; {waited}"


def _share(part_s: float, whole_s: float) -> str:
    return f"{100 * part_s / whole_s:.0f} %" if whole_s > 0 else "0 %"


def check_balance(consumed: Consumed) -> list[str]:
    """Return a sentence for each epoch whose books do not balance; none where nothing was lost in silence.

    Two things are compared: the catalog's samples with the sum of what became of them, and what the books say was
    delivered with what the trainer counted by itself, step by step.
    """
    wrong = []
    for epoch in sorted(consumed.books.keys() | consumed.consumed_samples.keys()):
        booked, stepped = consumed.books.get(epoch), consumed.consumed_samples.get(epoch, 0)
        if booked is None:
            wrong.append(f"epoch {epoch}: never booked, though steps consumed {count(stepped, 'sample')}")
            continue
        accounted = _accounted(booked)
        if accounted != booked.num_catalog:
            wrong.append(f"epoch {epoch}: {booked.num_catalog} samples in the catalog, {accounted} accounted for")
        delivered = booked.num_delivered + booked.num_repeated
        if delivered != stepped:
            wrong.append(f"epoch {epoch}: {delivered} samples delivered by the books, {stepped} by the steps")
    return wrong


def _accounted(booked: EpochBooked) -> int:
    left_out = sum(booked.left_out.values())
    return booked.num_delivered + booked.num_quarantined + booked.num_without_media + left_out


def build_report(
    totals: Totals, *, disk_budget_bytes: int, disk_high_water_bytes: int, num_cores: int
) -> dict[str, Any]:
    """Return the report as a JSON value; docs/reference/report.md says what each figure means.

    Args:
        totals: The run's figures, those before a resume included.
        disk_budget_bytes: What the run may have had on disk.
        disk_high_water_bytes: The most that it had.
        num_cores: Cores that decoding may use.
    """
    consumed, spent = totals.consumed, totals.spent
    floor = floor_of(consumed, spent, num_cores=num_cores)
    bound, sentence = verdict(floor, consumed, spent)
    imbalances = check_balance(consumed)
    digests = [booked.order_digest for _, booked in sorted(consumed.books.items())]
    return {
        "version": REPORT_VERSION,
        "verdict": bound,
        "verdict_sentence": sentence,
        "disk": {"budget_bytes": disk_budget_bytes, "high_water_bytes": disk_high_water_bytes},
        "cache": {
            "kept_clips": spent.kept_clips,
            "kept_bytes": spent.kept_bytes,
            "reused_clips": spent.clips_reused,
        },
        "network": {
            "bytes_received": spent.received_bytes,
            "bytes_needed": sum(consumed.needed_bytes.values()),
            "saved_bytes": spent.saved_bytes,
            "requests": spent.ranges + spent.resolves,
            "retries": spent.retries,
            "retry_wait_s": _rounded(spent.retry_wait_s),
            "bytes_per_s": _rounded(spent.received_bytes / spent.reading_s if spent.reading_s else 0.0),
        },
        "samples": {**_samples(list(consumed.books.values())), "balanced": not imbalances, "imbalances": imbalances},
        "clips": _clips(spent),
        "archives": {
            "num_suspect": spent.num_suspect,
            "suspect": _named(spent.suspect, "reason"),
            "num_suspect_clips": spent.num_suspect_clips,
            "suspect_clips": spent.suspect_clips,
        },
        "epochs": [_epoch(booked, consumed, spent) for _, booked in sorted(consumed.books.items())],
        "order_digest": digests[-1] if digests else None,
        "time": _time(spent, floor),
        "loss": {"first": _finite(consumed.first_loss), "last": _finite(consumed.last_loss)},
        "evaluation": evaluation_report(consumed, spent),
        "steps": consumed.steps,
        "resumes": spent.resumes,
        "checkpoints": {
            "saved": spent.checkpoints,
            "last_step": spent.last_checkpoint_step,
            "size_bytes": spent.checkpoint_bytes,
            "wait_s": _rounded(spent.checkpoint_s),
        },
    }


def _samples(books: list[EpochBooked]) -> dict[str, Any]:
    left_out = {"limit": 0, "tail": 0, "not_seen": 0}
    for booked in books:
        for reason, number in booked.left_out.items():
            left_out[reason] = left_out.get(reason, 0) + number
    return {
        "catalog": sum(booked.num_catalog for booked in books),
        "delivered": sum(booked.num_delivered for booked in books),
        "repeated": sum(booked.num_repeated for booked in books),
        "quarantined": sum(booked.num_quarantined for booked in books),
        "without_media": sum(booked.num_without_media for booked in books),
        "left_out": left_out,
    }


def _epoch(booked: EpochBooked, consumed: Consumed, spent: Spent) -> dict[str, Any]:
    return {
        "epoch": booked.epoch,
        "spans": consumed.span_kinds.get(booked.epoch),
        "bytes_received": spent.received_bytes_by_epoch.get(str(booked.epoch), 0),
        "saved_bytes": spent.saved_bytes_by_epoch.get(str(booked.epoch), 0),
        "samples": _samples([booked]),
        "order_digest": booked.order_digest,
    }


def _clips(spent: Spent) -> dict[str, Any]:
    listed = list(spent.quarantined.items())[:MOST_QUARANTINED]
    return {
        "arrived": spent.clips_arrived,
        "bytes": spent.clip_bytes,
        "deleted": spent.clips_deleted,
        "decoded": spent.clips_decoded,
        "decoded_again": spent.clips_decoded_again,
        "decode_cpu_s": _rounded(spent.decode_cpu_s),
        "num_quarantined": spent.num_quarantined,
        "quarantined": [{"clip": name, **why} for name, why in listed],
    }


def _named(reasons: Mapping[str, str], key: str) -> list[dict[str, str]]:
    return [{"path": path, key: reason} for path, reason in list(reasons.items())[:MOST_QUARANTINED]]


def _time(spent: Spent, floor: Floor) -> dict[str, Any]:
    return {
        "wall_s": _rounded(spent.wall_s),
        "first_batch_s": None if spent.first_batch_s is None else _rounded(spent.first_batch_s),
        "stall_s": _rounded(spent.stall_s),
        "stall_by_stage_s": {stage: _rounded(wait_s) for stage, wait_s in sorted(spent.stall_by_stage_s.items())},
        "floor_s": _rounded(floor.seconds),
        "floor_by_resource_s": {
            "network": _rounded(floor.network_s),
            "decode": _rounded(floor.decode_s),
            "training": _rounded(floor.training_s),
        },
        "train_s": _rounded(spent.train_s),
    }


def _rounded(value: float) -> float:
    return round(value, 3)


def _finite(value: float | None) -> float | None:
    # JSON has no NaN; a loss that is none must not make the report unreadable.
    return value if value is not None and math.isfinite(value) else None


def summary_lines(report: Mapping[str, Any]) -> list[str]:
    """Return the lines that end a run: what was streamed, the most on disk, the stall, and the verdict."""
    network, disk, samples, time = report["network"], report["disk"], report["samples"], report["time"]
    clips, loss = report["clips"], report["loss"]
    streamed = f"streamed {format_bytes(network['bytes_received'])} in {count(network['requests'], 'request')}"
    retried = count(network["retries"], "retry", "retries")
    delivered = f"{count(clips['decoded'], 'clip')} decoded, {count(samples['delivered'], 'sample')} delivered"
    budget = format_bytes(disk["budget_bytes"])
    lines = [
        f"{streamed} ({retried}); {delivered}",
        f"at most {format_bytes(disk['high_water_bytes'])} on disk, of {budget} allowed",
        f"waited {format_seconds(time['stall_s'])} of {format_seconds(time['wall_s'])} for data",
    ]
    lines += _epoch_lines(report)
    if report["cache"]["reused_clips"]:
        reused = count(report["cache"]["reused_clips"], "clip")
        lines.append(f"{reused} used again from disk: {format_bytes(network['saved_bytes'])} not fetched")
    if clips["num_quarantined"]:
        lines.append(f"{count(clips['num_quarantined'], 'clip')} quarantined; the report names them")
    if loss["first"] is not None and loss["last"] is not None:
        lines.append(f"loss {loss['first']:.3f} at the first step, {loss['last']:.3f} at the last")
    lines += evaluation_lines(report["evaluation"])
    return [*lines, *samples["imbalances"], report["verdict_sentence"]]


def _epoch_lines(report: Mapping[str, Any]) -> list[str]:
    """Return a line for each epoch, where there are several and not many."""
    epochs = report["epochs"]
    if not 1 < len(epochs) <= _MOST_EPOCH_LINES:
        return []
    sent = {epoch["epoch"]: epoch for epoch in report.get("local_hub", {}).get("epochs", ())}
    lines = []
    for epoch in epochs:
        number = epoch["epoch"]
        line = f"epoch {number}: {epoch['samples']['delivered']:,} samples from {_SPAN_WORDS[epoch['spans']]}, "
        line += f"{format_bytes(epoch['bytes_received'])} fetched"
        if number in sent:
            bytes_sent, requests = sent[number]["bytes_sent"], sent[number]["requests"]
            line += f" (the local Hub counts {format_bytes(bytes_sent)} in {count(requests, 'request')})"
        lines.append(line)
    return lines


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write `report` to `path`, durably: whoever reads it finds the old one or the new one, whole.

    Raises:
        DiskError: It cannot be written.
    """
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        _replace(path, text)
    except OSError as error:
        raise DiskError(
            f"cannot write the run's report {path}: {error.strerror}", "Make room or choose another run folder."
        ) from error


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with partial.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    force_to_disk(path.parent)
