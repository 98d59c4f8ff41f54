from __future__ import annotations

import json

import pytest

from reelstream.hubserver.faults import FaultBook, FaultKind, FaultRule, Where, parse_rules


def rule(**fields: object) -> FaultRule:
    return parse_rules(json.dumps([{"on": "cdn", "kind": "reset", **fields}]).encode())[0]


@pytest.mark.parametrize(
    ("pattern", "strikes"),
    [("*", True), ("*.tar.gz", True), ("sub/*", True), ("/org/name/*", True), ("*.json", False), ("SUB/*", False)],
)
def test_a_pattern_is_held_against_both_paths(pattern: str, strikes: bool) -> None:
    assert rule(match=pattern).strikes(Where.CDN, "sub/a.tar.gz", "/org/name/sub/a.tar.gz") is strikes


def test_a_rule_strikes_its_own_kind_of_request_only() -> None:
    assert not rule().strikes(Where.RESOLVE, "a", "/a")


def test_rules_are_used_up_in_their_order() -> None:
    book = FaultBook()
    book.replace([rule(match="a", times=2), rule(match="*", kind="stall"), rule(match="a", kind="cut_short")])
    kinds = [fault.kind if (fault := book.take(Where.CDN, "a", "/a")) else None for _ in range(5)]
    assert kinds == [FaultKind.RESET, FaultKind.RESET, FaultKind.STALL, FaultKind.CUT_SHORT, None]


def test_what_is_left_can_be_read_back() -> None:
    book = FaultBook()
    book.replace([rule(times=3, after_bytes=7)])
    book.take(Where.CDN, "a", "/a")
    assert parse_rules(json.dumps(book.to_json()).encode()) == [rule(times=2, after_bytes=7)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"on": "disk"},
        {"kind": "explode"},
        {"times": 0},
        {"after_bytes": -1},
        {"unknown": 1},
        {"kind": "expire", "on": "api"},
        {"status": 200},
    ],
)
def test_a_wrong_rule_is_refused_with_its_place(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"fault rules\[0\]"):
        rule(**wrong)
