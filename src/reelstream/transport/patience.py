"""Trying again: the thin part that waits, tells and gives up. The arithmetic is in `retry`."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from reelstream.cancel import Cancellation
from reelstream.clock import Clock
from reelstream.errors import HubError, NetworkError
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import Retried
from reelstream.transport.failure import PassingFailure
from reelstream.transport.retry import RetryPolicy, RetryState
from reelstream.units import count, format_seconds

_T = TypeVar("_T")


class Patience:
    """The patience for one piece of work, from its first failure to its next progress.

    Args:
        policy: The limits.
        clock: Where the waits go.
        telemetry: Hears of each retry.
        cancellation: Ends a wait at once.
        label: What events call the work.
        endpoint: The Hub, for the hint.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        clock: Clock,
        telemetry: Telemetry,
        cancellation: Cancellation,
        label: str,
        endpoint: str,
    ) -> None:
        self._state = RetryState(policy, random.random)
        self._clock = clock
        self._telemetry = telemetry
        self._cancellation = cancellation
        self._label = label
        self._endpoint = endpoint

    def progressed(self) -> None:
        """Note that the work went on."""
        self._state.progressed()

    def pause(self, failure: PassingFailure) -> None:
        """Wait until the next try.

        Raises:
            NetworkError: Where there were failures for too long.
            Cancelled: Where the wait is called off.
        """
        wait_s = self._state.failed(
            self._clock.monotonic(), asked_s=failure.asked_s, first_contact=failure.first_contact
        )
        if wait_s is None:
            raise self._exhausted(failure) from failure
        self._telemetry.emit(
            Retried(path=self._label, reason=failure.reason, attempt=self._state.num_failures, wait_s=wait_s)
        )
        self._clock.wait(self._cancellation.event, wait_s)
        self._cancellation.raise_if_cancelled()

    def insist(self, work: Callable[[], _T]) -> _T:
        """Do `work` until it ends in something else than a passing failure."""
        while True:
            try:
                return work()
            except PassingFailure as failure:
                self.pause(failure)

    def _exhausted(self, failure: PassingFailure) -> HubError:
        tries = count(self._state.num_failures, "try", "tries")
        fact = f"{self._label} could not be had in {tries}; the last one: {failure.reason}"
        if failure.first_contact:
            return NetworkError(
                fact,
                f"is there a network? The Hub is {self._endpoint} (HF_ENDPOINT names another one); "
                "behind a proxy, set HTTPS_PROXY",
            )
        if failure.asked_s is not None:
            return NetworkError(
                fact,
                f"the server asks to wait {format_seconds(failure.asked_s)}; "
                "signed in (`hf auth login`, or HF_TOKEN) the limits are higher",
            )
        return NetworkError(fact, "the run can be resumed once the network is back")
