"""A small run as events, for the tests of totals, report and live view."""

from __future__ import annotations

from reelstream.telemetry.events import (
    AddressResolved,
    BatchReady,
    CheckpointSaved,
    ClipArrived,
    ClipDecoded,
    ClipDeleted,
    ClipQuarantined,
    ClipReused,
    ClipsKept,
    EpochBooked,
    EpochStarted,
    Evaluated,
    Event,
    RangeFinished,
    Retried,
    RunFinished,
    RunStarted,
    Stalled,
    StepFinished,
)


def range_finished(received_bytes: int, wait_s: float) -> RangeFinished:
    return RangeFinished(path="a.tar.gz", first_byte=0, received_bytes=received_bytes, wait_s=wait_s)


def reused(path: str, *, saved_bytes: int) -> ClipReused:
    return ClipReused(lane=0, subset="s", path=path, size_bytes=700, saved_bytes=saved_bytes)


def step(number: int, *, epoch: int = 0, loss: float = 1.0, wait_s: float = 1.0, train_s: float = 2.0) -> StepFinished:
    return StepFinished(
        step=number,
        epoch=epoch,
        loss=loss,
        learning_rate=1e-4,
        num_samples=4,
        data_wait_s=wait_s,
        train_s=train_s,
    )


def booked(epoch: int = 0, **changed: object) -> EpochBooked:
    fields: dict[str, object] = {
        "epoch": epoch,
        "num_catalog": 12,
        "num_delivered": 8,
        "num_repeated": 0,
        "num_quarantined": 2,
        "num_without_media": 1,
        "left_out": {"tail": 1},
        "order_digest": f"digest {epoch}",
    }
    return EpochBooked(**{**fields, **changed})  # type: ignore[arg-type]


def started(epoch: int, *, span_kind: str = "archive", needed_bytes: int = 0) -> EpochStarted:
    return EpochStarted(
        epoch=epoch, num_spans=2, num_lanes=8, resumed_at=0, needed_bytes=needed_bytes, span_kind=span_kind
    )


def small_run() -> list[tuple[float, Event]]:
    """Return one epoch of two steps: ten seconds, reading for four of them."""
    return [
        (100.0, RunStarted()),
        (100.0, started(0, span_kind="cut", needed_bytes=8_000_000)),
        (100.5, AddressResolved(path="a.tar.gz", wait_s=0.1)),
        (101.0, Retried(path="a.tar.gz", reason="503", attempt=1, wait_s=0.5)),
        (103.0, range_finished(4_000_000, 2.0)),
        (103.0, ClipArrived(lane=0, subset="s", path="one.mp4", size_bytes=700)),
        (103.1, ClipDecoded(subset="s", path="one.mp4", num_frames=8, cpu_s=0.5, again=False)),
        (103.2, ClipDecoded(subset="s", path="one.mp4", num_frames=8, cpu_s=0.5, again=True)),
        (103.3, ClipQuarantined(subset="s", path="bad.mp4", num_samples=2, reason="empty: zero bytes")),
        (103.5, BatchReady(wait_s=3.5)),
        (103.5, Stalled(stage="download", wait_s=1.0)),
        (105.0, step(1, loss=2.5)),
        (106.0, Stalled(stage="decode", wait_s=0.25)),
        (107.0, range_finished(4_000_000, 2.0)),
        (108.0, step(2, loss=1.5)),
        (108.5, ClipDeleted(subset="s", path="one.mp4", size_bytes=700)),
        (109.0, CheckpointSaved(step=2, size_bytes=5000, wait_s=0.2)),
        (109.5, Evaluated(step=2, loss=1.25, num_samples=80, accuracy=0.75, chance=0.25, num_questions=40)),
        (109.9, booked()),
        (109.9, ClipsKept(num_clips=3, size_bytes=8192)),
        (110.0, RunFinished()),
    ]


def second_epoch() -> list[tuple[float, Event]]:
    """Return an epoch of blocks after `small_run`: two clips come, two are on disk already."""
    return [
        (111.0, started(1, span_kind="block", needed_bytes=1_000_000)),
        (111.5, reused("one.mp4", saved_bytes=5_000_000)),
        (111.5, reused("two.mp4", saved_bytes=2_000_000)),
        (112.0, range_finished(1_000_000, 0.5)),
        (113.0, step(3, epoch=1)),
        (116.0, step(4, epoch=1)),
        (116.5, booked(1)),
        (116.5, ClipsKept(num_clips=4, size_bytes=12_288)),
    ]
