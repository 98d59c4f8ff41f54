"""However the network breaks, a read yields exactly its bytes, and asks for none of them twice."""

from __future__ import annotations

from dataclasses import dataclass

import httpx2
from hypothesis import given, settings
from hypothesis import strategies as st

from reelstream.cancel import Cancellation
from reelstream.transport.addresses import lifetime_s
from reelstream.transport.retry import asked_wait_s
from unit.transport.transport_fakes import FakeHub, Handler

CONTENT = bytes(range(251)) * 20


@dataclass(frozen=True)
class Fault:
    kind: str
    sent: int

    def handler(self, hub: FakeHub) -> Handler:
        def handle(request: httpx2.Request) -> httpx2.Response:
            if self.kind == "refuse":
                hub.revoked.add(int(request.url.params["number"]))
                return hub.serve(request)
            if self.kind == "status":
                return httpx2.Response(503)
            if self.kind == "no_answer":
                raise httpx2.ConnectError("refused")
            error = {"reset": httpx2.ReadError("reset"), "stall": httpx2.ReadTimeout("silence"), "cut": None}[self.kind]
            return hub.serve(request, error, sent=self.sent)

        return handle


FAULTS = st.builds(
    Fault,
    kind=st.sampled_from(["reset", "stall", "cut", "status", "no_answer", "refuse"]),
    sent=st.integers(0, 3000),
)


def that_can_be_borne(faults: list[Fault]) -> list[Fault]:
    """Leave out what is an error by right: a second refusal with no byte since the first."""
    refusals = [place for place, fault in enumerate(faults) if fault.kind == "refuse"]
    return [fault for place, fault in enumerate(faults) if place not in refusals[1:]]


@given(
    faults=st.lists(FAULTS, max_size=12).map(that_can_be_borne),
    borders=st.tuples(st.integers(0, len(CONTENT)), st.integers(0, len(CONTENT))).map(sorted),
)
@settings(max_examples=150, deadline=None)
def test_any_sequence_of_breaks_yields_exactly_the_bytes_each_sent_once(
    faults: list[Fault], borders: list[int]
) -> None:
    first, end = borders
    hub = FakeHub(CONTENT)
    hub.at_cdn = [fault.handler(hub) for fault in faults]
    with hub.client() as client:
        received = b"".join(client.open(hub.repository, hub.file).read(first, end, Cancellation()))
    assert received == CONTENT[first:end]
    assert hub.served_bytes == end - first
    starts = [int(text.removeprefix("bytes=").split("-")[0]) for text in hub.cdn_ranges]
    assert starts == sorted(starts)


@given(st.integers(100, 599), st.dictionaries(st.sampled_from(["retry-after", "ratelimit"]), st.text()))
def test_no_header_breaks_the_reading_of_waits(status: int, headers: dict[str, str]) -> None:
    wait_s = asked_wait_s(status, headers, 1e9)
    assert wait_s is None or wait_s >= 0


@given(st.text(alphabet=st.characters(codec="ascii", exclude_characters="[]")))
def test_no_query_breaks_the_reading_of_expiries(query: str) -> None:
    assert lifetime_s(f"https://cdn.example/object?{query}&Expires={query}", wall_s=1e9) > 0
