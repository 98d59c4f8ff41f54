from __future__ import annotations

from typing import Any

import pytest

from reelstream.hubserver import statistics as module
from reelstream.hubserver.ranges import ByteRange
from reelstream.hubserver.statistics import Statistics


class Buffer:
    """What a connection holds back."""

    held_bytes = 0

    def __call__(self) -> int:
        return self.held_bytes


def ranges_of(stats: Statistics, path: str) -> list[dict[str, int]]:
    ranges: list[dict[str, int]] = stats.to_json()["paths"][path]["ranges"]
    return ranges


def test_bytes_count_once_the_system_has_taken_them() -> None:
    stats, buffer = Statistics(), Buffer()
    transfer = stats.begin("a", ByteRange(10, 110), buffer)
    buffer.held_bytes = 30
    transfer.wrote(60)
    assert ranges_of(stats, "a") == [{"first": 10, "last": 109, "bytes_sent": 30}]
    buffer.held_bytes = 0
    assert ranges_of(stats, "a") == [{"first": 10, "last": 109, "bytes_sent": 60}]


def test_what_a_broken_connection_held_back_does_not_count() -> None:
    stats, buffer = Statistics(), Buffer()
    transfer = stats.begin("a", ByteRange(0, 100), buffer)
    buffer.held_bytes = 30
    transfer.wrote(60)
    buffer.held_bytes = 0
    stats.end(transfer)
    assert ranges_of(stats, "a") == [{"first": 0, "last": 99, "bytes_sent": 30}]
    assert stats.to_json()["totals"]["bytes_sent"] == 30


def test_requests_are_counted_by_kind_path_and_status() -> None:
    stats = Statistics()
    stats.count_request("api", None, 200)
    stats.count_request("resolve", "a", 302)
    stats.count_request("cdn", "a", 403)
    stats.count_request("cdn", "a", 206)
    document = stats.to_json()
    assert document["totals"] == {
        "bytes_sent": 0,
        "requests": 4,
        "api_calls": 1,
        "resolves": 1,
        "cdn_requests": 2,
        "statuses": {"200": 1, "206": 1, "302": 1, "403": 1},
    }
    assert document["paths"]["a"] | {"ranges": []} == {
        "bytes_sent": 0,
        "requests": 3,
        "resolves": 1,
        "statuses": {"206": 1, "302": 1, "403": 1},
        "ranges": [],
        "ranges_left_out": 0,
    }


def test_a_reset_zeroes_and_a_transfer_under_way_counts_on_in_the_total() -> None:
    stats, buffer = Statistics(), Buffer()
    transfer = stats.begin("a", ByteRange(0, 100), buffer)
    transfer.wrote(60)
    stats.reset()
    assert stats.to_json()["totals"]["bytes_sent"] == 0
    transfer.wrote(40)
    transfer.drained()
    stats.end(transfer)
    assert stats.to_json()["totals"]["bytes_sent"] == 40
    assert stats.to_json()["paths"] == {}


def test_memory_is_bounded_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_PATHS", "MAX_RANGES_OF_A_PATH"):
        monkeypatch.setattr(module, name, 2)
    stats = Statistics()
    for path in "abc":
        for _ in range(3):
            stats.end(stats.begin(path, ByteRange(0, 1), Buffer()))
    document: dict[str, Any] = stats.to_json()
    assert {path: len(record["ranges"]) for path, record in document["paths"].items()} == {"a": 2, "b": 2}
    assert [record["ranges_left_out"] for record in document["paths"].values()] == [1, 1]
    assert document["limits"]["requests_for_paths_left_out"] == 3


def test_a_body_that_is_no_file_counts_in_the_total_only() -> None:
    stats = Statistics()
    transfer = stats.begin(None, None, Buffer())
    transfer.wrote(5)
    transfer.drained()
    stats.end(transfer)
    document = stats.to_json()
    assert document["totals"]["bytes_sent"] == 5
    assert document["paths"] == {}
