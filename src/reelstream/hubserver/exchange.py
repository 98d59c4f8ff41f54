"""What each request goes through on either port: latency, faults, books, the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import web

from reelstream.hubserver.answers import Answer, storage_error
from reelstream.hubserver.faults import FaultBook, FaultKind, FaultRule, Where
from reelstream.hubserver.sending import Courier
from reelstream.hubserver.statistics import Statistics


class Exchange(NamedTuple):
    """The stations that both ports share."""

    latency_s: float
    faults: FaultBook
    statistics: Statistics
    courier: Courier

    async def run(
        self, request: web.BaseRequest, where: Where, path: str, decide: Callable[[], Awaitable[Answer]]
    ) -> web.StreamResponse:
        """Answer one request.

        Args:
            request: The request.
            where: Its kind, for faults and books.
            path: Path in the repository, for faults; empty where it is for none.
            decide: Decides the answer; the answer is closed here.
        """
        if self.latency_s > 0:
            await asyncio.sleep(self.latency_s)
        answer = await decide()
        try:
            fault = self.faults.take(where, path, request.rel_url.path)
            answer = _with_fault(answer, fault)
            self.statistics.count_request(where.value, answer.counted_path, answer.status)
            breaks = fault is not None and fault.kind in {FaultKind.RESET, FaultKind.CUT_SHORT, FaultKind.STALL}
            return await self.courier.send(request, answer, fault if breaks else None)
        finally:
            answer.close()


def expired() -> Answer:
    """Return what the CDN says of an address that is too old."""
    return storage_error(403, "AccessDenied", "Request has expired")


def _with_fault(answer: Answer, fault: FaultRule | None) -> Answer:
    if fault is None or fault.kind not in {FaultKind.STATUS, FaultKind.EXPIRE}:
        return answer
    answer.close()
    if fault.kind is FaultKind.EXPIRE:
        broken = expired()
    else:
        headers = {"Content-Type": "text/plain; charset=utf-8", **fault.headers}
        broken = Answer(status=fault.status, headers=headers, body=fault.body.encode())
    broken.counted_path = answer.counted_path
    return broken
