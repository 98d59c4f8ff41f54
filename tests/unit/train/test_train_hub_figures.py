"""What the local Hub says that it has sent, by epoch."""

from __future__ import annotations

from typing import Any, cast

from reelstream.errors import HubError
from reelstream.hubserver import HubProcess
from reelstream.telemetry import events
from reelstream.train.hub_figures import HubFigures

ENDED = events.ClipsKept(num_clips=0, size_bytes=0)


class CountingHub:
    """Says what it is told to have sent; None: it is gone."""

    def __init__(self) -> None:
        self.sent: tuple[int, int] | None = (0, 0)

    def stats(self) -> dict[str, Any]:
        if self.sent is None:
            raise HubError("the local Hub is gone")
        return {"totals": {"bytes_sent": self.sent[0], "requests": self.sent[1]}}


def begun(epoch: int) -> events.EpochStarted:
    return events.EpochStarted(epoch=epoch, num_spans=1, num_lanes=1, resumed_at=0)


def figures_of(*steps: tuple[tuple[int, int] | None, events.Event]) -> list[dict[str, int]]:
    hub = CountingHub()
    figures = HubFigures(cast("HubProcess", hub))
    for sent, event in steps:
        hub.sent = sent
        figures.receive(0.0, event)
    return cast("list[dict[str, int]]", figures.report["epochs"])


def test_only_what_is_sent_within_an_epoch_counts() -> None:
    found = figures_of(((100, 2), begun(0)), ((600, 5), ENDED), ((900, 9), begun(1)), ((950, 10), ENDED))
    assert found == [
        {"epoch": 0, "bytes_sent": 500, "requests": 3},
        {"epoch": 1, "bytes_sent": 50, "requests": 1},
    ]


def test_an_epoch_that_is_served_in_two_goes_is_added_up() -> None:
    found = figures_of(((0, 0), begun(3)), ((10, 1), ENDED), ((40, 3), begun(3)), ((45, 4), ENDED), ((99, 9), ENDED))
    assert found == [{"epoch": 3, "bytes_sent": 15, "requests": 2}]


def test_a_hub_that_is_gone_has_sent_nothing_more() -> None:
    assert figures_of(((50, 1), begun(0)), (None, ENDED)) == [{"epoch": 0, "bytes_sent": 0, "requests": 0}]


def test_events_between_epochs_change_nothing() -> None:
    assert figures_of(((0, 0), ENDED), ((9, 1), events.Notice(message="hello"))) == []
