"""The paths that begin with an underscore: counts and faults, for tests and demonstrations.

They have no latency, no cap, and are not counted.
"""

from __future__ import annotations

from aiohttp import web

from reelstream.hubserver.answers import Answer, hub_error, json_answer
from reelstream.hubserver.faults import FaultBook, parse_rules
from reelstream.hubserver.statistics import Statistics

_LARGEST_ORDER_BYTES = 1 << 20


class Control:
    """Answers to `/_stats`, `/_reset` and `/_faults`.

    Args:
        statistics: What is shown and zeroed.
        faults: What is ordered; None where faults are not to be had (404).
    """

    def __init__(self, statistics: Statistics, faults: FaultBook | None) -> None:
        self._statistics = statistics
        self._faults = faults

    async def handle(self, request: web.BaseRequest, refused: Answer | None) -> web.StreamResponse:
        """Answer one request, with `refused` where that is given."""
        answer = refused or await self._answer(request)
        assert isinstance(answer.body, bytes)
        return web.Response(status=answer.status, headers=dict(answer.headers), body=answer.body)

    async def _answer(self, request: web.BaseRequest) -> Answer:
        match request.method, request.rel_url.raw_path:
            case "GET", "/_stats":
                return json_answer(self._statistics.to_json())
            case ("POST", "/_reset") | ("DELETE", "/_stats"):
                self._statistics.reset()
                return json_answer({})
            case method, "/_faults" if self._faults is not None:
                return await self._answer_faults(request, method, self._faults)
        return hub_error(404, None, "No such control")

    async def _answer_faults(self, request: web.BaseRequest, method: str, faults: FaultBook) -> Answer:
        if method == "POST":
            document = await request.content.read(_LARGEST_ORDER_BYTES)
            while not request.content.at_eof() and len(document) < _LARGEST_ORDER_BYTES:
                document += await request.content.read(_LARGEST_ORDER_BYTES)
            try:
                faults.replace(parse_rules(document))
            except ValueError as error:
                return json_answer({"error": str(error)}, status=400)
        elif method == "DELETE":
            faults.replace([])
        elif method != "GET":
            return hub_error(405, None, "Method not allowed")
        return json_answer(faults.to_json())
