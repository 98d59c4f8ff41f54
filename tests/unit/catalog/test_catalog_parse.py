from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import ijson
import pytest

from catalog_kit import record, repository_file
from reelstream.catalog.parse import LeftOut, ParsedSample, parse_annotations
from reelstream.errors import AnnotationError
from reelstream.types import RepositoryFile

NAME = "s/s_cap.json"


def parse(data: bytes, chunk_bytes: int = 10**6) -> list[ParsedSample | LeftOut]:
    chunks = (data[start : start + chunk_bytes] for start in range(0, len(data), chunk_bytes))
    return list(parse_annotations(repository_file(NAME, data), chunks))


def parse_rows(*rows: Any) -> list[ParsedSample | LeftOut]:
    return parse(json.dumps(rows).encode())


def test_the_fastest_parser_is_in_use() -> None:
    assert ijson.backend == "yajl2_c"


def test_a_row_becomes_a_sample() -> None:
    assert parse_rows(record("./source//a.mp4", id="1006-8968804598")) == [
        ParsedSample(
            row=0,
            id="1006-8968804598",
            path="source/a.mp4",
            conversations=[{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "A cat."}],
        )
    ]


@pytest.mark.parametrize("chunk_bytes", [1, 7, 8191, 10**6])
def test_pieces_may_cut_anywhere(chunk_bytes: int) -> None:
    rows = [record(f"vidéo/{number}.mp4", answer="日本 🐈\n") for number in range(200)]
    data = b"\xef\xbb\xbf  \n" + json.dumps(rows, ensure_ascii=False, indent=1).encode() + b"\n"
    if chunk_bytes < 3:
        data = data.removeprefix(b"\xef\xbb\xbf")
    samples = parse(data, chunk_bytes)
    assert [sample.row for sample in samples] == list(range(200))
    assert [sample.path for sample in samples if isinstance(sample, ParsedSample)] == [row["video"] for row in rows]


def test_an_empty_array_has_no_rows() -> None:
    assert parse(b" [ ] \n") == []


@pytest.mark.parametrize(
    ("human", "gpt"), [("human", "gpt"), ("user", "assistant"), ("human", "assistant"), ("user", "gpt")]
)
def test_other_names_of_the_roles_are_taken(human: str, gpt: str) -> None:
    turns = [{"from": human, "value": "What?"}, {"from": gpt, "value": "A cat."}]
    (sample,) = parse_rows(record() | {"conversations": turns})
    assert isinstance(sample, ParsedSample)
    assert [turn["from"] for turn in sample.conversations] == ["human", "gpt"]


@pytest.mark.parametrize(("published", "taken"), [(7, "7"), (None, ""), ("x", "x")])
def test_an_id_is_text(published: Any, taken: str) -> None:
    (sample,) = parse_rows(record(id=published))
    assert isinstance(sample, ParsedSample)
    assert sample.id == taken


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"id": 1, "conversations": []}, "names no video"),
        ({"id": 1, "image": "a.jpg", "conversations": []}, "names no video"),
        (record(None), "names no video"),
        (record(""), "names no video"),
        (record(["a.mp4", "b.mp4"]), "names several videos"),
        (record(answer=" "), "has no answer"),
        (record(conversations=[]), "has no question"),
        (record(conversations=[{"from": "gpt", "value": "Hi"}]), "has no question"),
    ],
)
def test_rows_that_are_no_example_of_a_video_are_left_out_with_the_reason(row: Any, reason: str) -> None:
    assert parse_rows(record(), row, record())[1] == LeftOut(1, reason)


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (record("../../etc/passwd"), r"'video' that points outside with '\.\.': '\.\./\.\./etc/passwd'"),
        (record("/etc/passwd"), "'video' that is absolute"),
        (record(7), "'video' that is no path: 7"),
        (record(conversations=None), "no list of 'conversations', but None"),
        (record(conversations="Hi"), "no list of 'conversations'"),
        (record(conversations=["Hi"]), "has a turn that is not"),
        (record(conversations=[{"from": "bot", "value": "Hi"}]), "has a turn that is not"),
        (record(conversations=[{"from": ["human"], "value": "Hi"}]), "has a turn that is not"),
        (record(conversations=[{"from": "human", "value": None}]), "has a turn that is not"),
        ("text", "is no record, but 'text'"),
        ([1, 2], "is no record"),
    ],
)
def test_a_wrong_row_stops_the_reading_with_its_file_and_number(row: Any, what: str) -> None:
    with pytest.raises(AnnotationError, match=rf"Row 2 of s/s_cap\.json .*{what}") as caught:
        parse_rows(record(), record(None), row)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("data", "fact", "hint"),
    [
        (b"<!DOCTYPE html><html>Log in", "is a web page, not JSON: at byte 0 it begins with '<!DOCTYPE", "proxy"),
        (b'{"id": 1}\n{"id": 2}', "not a JSON array, but begins with an object", "JSON lines are not read"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer", "git lfs pull"),
        (b"\x1f\x8b\x08\x00", "is not a JSON array", "damaged"),
        (b"", "is cut short: it ends before the end of its first row, at 0 of 0 bytes", "Try again"),
        (b'[{"video": 1', "is cut short", "Try again"),
        (b'[{"video": nope}]', "is not JSON: lexical error: .* before the end of its first row, near byte", "damaged"),
        (b'[{"video": ""}, {]', "is not JSON: parse error: .*, after row 0, near byte", "damaged"),
        (b"[] []", "is not JSON: parse error: trailing garbage", "damaged"),
        (b'[{"video": "\xff"}]', "invalid bytes in UTF8 string", "damaged"),
    ],
)
def test_what_is_no_array_is_told_apart(data: bytes, fact: str, hint: str) -> None:
    with pytest.raises(AnnotationError, match=fact) as caught:
        parse(data)
    assert caught.value.fact.startswith(NAME)
    assert hint in caught.value.hint


def test_an_array_cut_short_is_told_with_the_last_whole_row_and_the_bytes() -> None:
    data = json.dumps([record(), record(), record()]).encode()
    file = repository_file(NAME, data)
    with pytest.raises(
        AnnotationError, match=f"cut short: it ends after row 1, at {len(data) - 5} of {len(data)} bytes"
    ):
        list(parse_annotations(file, [data[:-5]]))


def test_bytes_of_another_file_are_refused() -> None:
    data = json.dumps([record()]).encode()
    for other, message in [
        (
            RepositoryFile(path=NAME, size_bytes=len(data), sha256="0" * 64),
            "bytes of SHA-256 .* announced 000000000000",
        ),
        (RepositoryFile(path=NAME, size_bytes=7, sha256=None), "announced 7"),
    ]:
        with pytest.raises(AnnotationError, match=message):
            list(parse_annotations(other, [data]))
    assert list(parse_annotations(RepositoryFile(path=NAME, size_bytes=len(data), sha256=None), [data]))


@pytest.mark.parametrize("nesting", [b"[", b'{"a":'])
def test_nesting_that_would_take_gigabytes_is_refused_before_it_is_parsed(nesting: bytes) -> None:
    with pytest.raises(AnnotationError, match="holds a row that is no conversation, before the end of its first row"):
        parse(b"[" + nesting * 100_000)


def test_a_row_without_end_is_refused() -> None:
    def endless() -> Iterator[bytes]:
        yield b'[{"video": "'
        while True:
            yield b"a" * 2**16

    with pytest.raises(AnnotationError, match=r"longer than 4\.19 MB"):
        list(parse_annotations(RepositoryFile(path=NAME, size_bytes=10**12, sha256=None), endless()))


def test_short_rows_are_never_taken_for_nesting() -> None:
    assert len(parse(b"[" + b"{}," * 50_000 + b"{}]")) == 50_001


def test_rows_come_while_the_bytes_do() -> None:
    given = []

    def chunks() -> Iterator[bytes]:
        for number in range(100):
            given.append(number)
            yield (b"[" if number == 0 else b",") + json.dumps(record()).encode()
        yield b"]"

    rows = parse_annotations(RepositoryFile(path=NAME, size_bytes=10**6, sha256=None), chunks())
    next(rows)
    assert len(given) <= 2
