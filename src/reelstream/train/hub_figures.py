"""What the local Hub has sent for each epoch, by its own count: the other end's view of the report's bytes."""

from __future__ import annotations

from typing import Any

from reelstream.errors import ReelstreamError
from reelstream.hubserver import HubProcess
from reelstream.telemetry import events


class HubFigures:
    """A sink that asks the local Hub at the beginning and the end of each epoch, when nothing is being read.

    Args:
        hub: The Hub on loopback that serves the run.
    """

    def __init__(self, hub: HubProcess) -> None:
        self._hub = hub
        self._epoch: int | None = None
        self._before: tuple[int, int] = (0, 0)
        self._sent: dict[int, tuple[int, int]] = {}

    def receive(self, wall_s: float, event: events.Event) -> None:  # noqa: ARG002 - the protocol's
        """Note what was sent between the event that begins an epoch and the one that ends it."""
        match event:
            case events.EpochStarted():
                self._epoch, self._before = event.epoch, self._counted()
            case events.ClipsKept() if self._epoch is not None:
                sent_bytes, requests = self._sent.get(self._epoch, (0, 0))
                now_bytes, now_requests = self._counted()
                self._sent[self._epoch] = (
                    sent_bytes + now_bytes - self._before[0],
                    requests + now_requests - self._before[1],
                )
                self._epoch = None
            case _:
                pass

    @property
    def report(self) -> dict[str, Any]:
        """What goes into the run's report: the epochs of this process."""
        return {
            "epochs": [
                {"epoch": epoch, "bytes_sent": sent_bytes, "requests": requests}
                for epoch, (sent_bytes, requests) in sorted(self._sent.items())
            ]
        }

    def _counted(self) -> tuple[int, int]:
        try:
            totals = self._hub.stats()["totals"]
        except ReelstreamError:  # the Hub is gone, which others will say
            return self._before
        return int(totals["bytes_sent"]), int(totals["requests"])
